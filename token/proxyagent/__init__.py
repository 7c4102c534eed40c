"""Hardware-backed Grid proxy agent: RFC 3820 proxies signed by keys that never leave a PKCS#11 dongle."""

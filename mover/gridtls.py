"""Connections over TLS in which both sides show who they are: we our proxy, servers a certificate of a Grid CA."""

from pathlib import Path

import pycurl


def new_curl(proxy_path: str, ca_directory: Path, *, stall_seconds: int) -> pycurl.Curl:
    """A new handle, so that no connection of another proxy is used again.

    It shows the proxy of that PEM file, trusts the authorities in `ca_directory` (hashed names) only, and gives up
    connecting after `stall_seconds`.
    """
    curl = pycurl.Curl()
    curl.setopt(pycurl.SSLCERT, proxy_path)
    curl.setopt(pycurl.SSLKEY, proxy_path)
    curl.setopt(pycurl.CAPATH, str(ca_directory))
    curl.unsetopt(pycurl.CAINFO)  # the world's authorities, which curl has compiled in
    curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.CONNECTTIMEOUT, stall_seconds)
    return curl


def check_crls(curl: pycurl.Curl, ca_directory: Path) -> bool:
    """Have the server's certificate held against the directory's CRLs; False if it has none at all.

    curl checks them when it is given a file of CRLs; OpenSSL then finds those of other CAs in the directory by itself.
    """
    crl = next(iter(sorted(ca_directory.glob("*.r0"))), None)
    if crl is not None:
        curl.setopt(pycurl.CRLFILE, str(crl))
    return crl is not None

"""Many clients at once: nobody is lost, and no key or serial number appears twice."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from mover.sandbox.agent import Agent
from proxyagent.chain import certificates_from_pem
from proxyagent.client import obtain_proxy

CLIENTS = 50
PROXIES = 1000
SECONDS = 120.0


def test_a_thousand_proxies_for_fifty_clients(agent: Agent) -> None:
    together = threading.Barrier(CLIENTS)

    def client(_number: int) -> list[tuple[int, int]]:
        together.wait(SECONDS)
        found = []
        for _ in range(PROXIES // CLIENTS):
            with obtain_proxy(agent.socket, agent.profile, 600, timeout_seconds=SECONDS) as proxy:
                leaf = certificates_from_pem(Path(proxy.path).read_text())[0]
            key = leaf.public_key()
            assert isinstance(key, rsa.RSAPublicKey)
            found.append((key.public_numbers().n, leaf.serial_number))
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = [each for of_client in pool.map(client, range(CLIENTS)) for each in of_client]
    assert len(found) == PROXIES
    assert len({modulus for modulus, _ in found}) == PROXIES
    assert len({serial for _, serial in found}) == PROXIES
    issued = "".join(file.read_text() for file in agent.directory.glob("audit-*.jsonl")).count('"issued"')
    assert issued == PROXIES

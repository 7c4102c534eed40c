"""The process that holds the PKCS#11 module. It may hang or crash without taking the agent along.

It answers one request at a time on the socket it was born with, and ends when that closes. There is no verb that
signs given bytes: it builds what it signs.
"""

import argparse
import math
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxyagent.chain import certificates_to_pem
from proxyagent.dongle import Dongle
from proxyagent.errors import ProtocolError, ProxyAgentError
from proxyagent.hardening import harden_process
from proxyagent.protocol import Channel, Message, PeerClosedError, failure
from proxyagent.request import check_public_key
from proxyagent.setup import generate_key, import_certificate, make_token_request
from proxyagent.uri import Uri

_ANSWER_SECONDS = 10.0

Verb = Callable[[Dongle, Message, Channel], Message]


def main() -> None:
    """Entry point of ``python -m proxyagent.hsm_helper``; started by `hsm.Helper` only."""
    harden_process()
    parser = argparse.ArgumentParser(prog="proxyagent.hsm_helper")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--module", required=True)
    parser.add_argument("--uri", type=Uri.parse, required=True)
    parser.add_argument("--setup", action="store_true", help="offer the verbs that change the dongle, too")
    options = parser.parse_args()
    connection = socket.socket(fileno=options.fd)
    threading.Thread(target=_end_with_parent, args=(connection.fileno(),), daemon=True).start()
    verbs = {**_VERBS, **(_SETUP_VERBS if options.setup else {})}
    try:
        _serve(connection, options.module, options.uri, verbs)
    except PeerClosedError:
        sys.exit(0)


def _end_with_parent(descriptor: int) -> None:
    """End when the agent is gone, even while the module hangs. This thread never touches the module.

    Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


def _serve(connection: socket.socket, module: str, uri: Uri, verbs: dict[str, Verb]) -> None:
    dongle: Dongle | None = None
    while True:
        channel = Channel(connection, timeout_seconds=math.inf)  # the agent's end ends us
        request = channel.receive()
        try:
            dongle = dongle or Dongle(module, uri)
            answer = _answer(dongle, request, channel, verbs)
        except PeerClosedError:
            raise
        except ProxyAgentError as error:
            answer = failure(error)
        channel.extend(_ANSWER_SECONDS)
        channel.send({**answer, "logged_in": dongle is not None and dongle.logged_in})


def _answer(dongle: Dongle, request: Message, channel: Channel, verbs: dict[str, Verb]) -> Message:
    verb = verbs.get(str(request.get("verb")))
    if verb is None:
        raise ProtocolError("the helper does not know this request", hint="restart the agent after an update")
    return verb(dongle, request, channel)


def _describe(dongle: Dongle, _request: Message, _channel: Channel) -> Message:
    found = dongle.describe()
    return {"serial": found.serial, "label": found.label, "pin_state": found.pin_state}


def _login(dongle: Dongle, request: Message, channel: Channel) -> Message:
    with channel.receive_secret() as pin:
        dongle.login(pin, str(request["serial"]))
    return {}


def _sign_session(dongle: Dongle, request: Message, _channel: Channel) -> Message:
    key = check_public_key(serialization.load_pem_public_key(str(request["public_key"]).encode()))
    chain = dongle.sign_session(key, timedelta(seconds=int(request["lifetime_seconds"])))
    return {"chain": certificates_to_pem(chain)}


def _generate_key(dongle: Dongle, request: Message, _channel: Channel) -> Message:
    return {"created": generate_key(dongle, label=str(request["label"]))}


def _make_request(dongle: Dongle, request: Message, _channel: Channel) -> Message:
    return {"request": make_token_request(dongle, x509.Name.from_rfc4514_string(str(request["subject"])))}


def _import_certificate(dongle: Dongle, request: Message, _channel: Channel) -> Message:
    import_certificate(dongle, x509.load_pem_x509_certificate(str(request["certificate"]).encode()))
    return {}


_VERBS: dict[str, Verb] = {"describe": _describe, "login": _login, "sign-session": _sign_session}
_SETUP_VERBS: dict[str, Verb] = {
    "generate-key": _generate_key,
    "make-request": _make_request,
    "import-certificate": _import_certificate,
}

if __name__ == "__main__":
    main()

"""The process that holds the PKCS#11 module. It may hang or crash without taking the agent along.

It answers one request at a time on the socket it was born with, and ends when that closes. There is no verb that
signs given bytes: it builds what it signs.
"""

import argparse
import contextlib
import math
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxyagent.chain import certificates_to_pem
from proxyagent.confinement import confine
from proxyagent.description import ListedDongle
from proxyagent.dongle import Dongle
from proxyagent.errors import ProtocolError, ProxyAgentError
from proxyagent.hardening import harden_process, lock_memory
from proxyagent.listing import list_dongles
from proxyagent.pin import Secret
from proxyagent.protocol import Channel, Message, PeerClosedError, failure
from proxyagent.request import check_public_key
from proxyagent.setup import generate_key, import_certificate, make_token_request
from proxyagent.uri import Uri

_ANSWER_SECONDS = 10.0

Verb = Callable[["Server", Message, Secret | None], Message]


def main() -> None:
    """Entry point of ``python -m proxyagent.hsm_helper``; started by `hsm.Helper` only."""
    harden_process()
    lock_memory()
    parser = argparse.ArgumentParser(prog="proxyagent.hsm_helper")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--module", required=True)
    parser.add_argument("--uri", type=Uri.parse, required=True)
    parser.add_argument("--setup", action="store_true", help="offer the verbs that change the dongle, too")
    options = parser.parse_args()
    connection = socket.socket(fileno=options.fd)
    _keep_stderr_from_module()
    confined = confine()
    threading.Thread(target=_end_with_parent, args=(connection.fileno(),), daemon=True).start()
    server = Server(connection, options.module, options.uri, setup=options.setup, confined=confined)
    try:
        server.run()
    except PeerClosedError:
        sys.exit(0)


def _keep_stderr_from_module() -> None:
    """What a module says might be a PIN, or look like an entry of the agent's log: nobody hears it. Python may."""
    ours = os.dup(2)  # not inherited by what it might start
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr = os.fdopen(ours, "w", buffering=1, errors="backslashreplace")


def _end_with_parent(descriptor: int) -> None:
    """End when the agent is gone, even while the module hangs. This thread never touches the module.

    Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


class Server:
    """Answers the agent's requests, one after the other."""

    def __init__(self, connection: socket.socket, module: str, uri: Uri, *, setup: bool, confined: bool) -> None:
        self._connection = connection
        self._module = module
        self._uri = uri
        self._setup = setup
        self._confined = confined
        self._verbs = {**_VERBS, **(_SETUP_VERBS if setup else {})}
        self._dongle: Dongle | None = None
        self.listed: list[ListedDongle] = []
        """What is being told, one dongle in an answer."""

    @property
    def dongle(self) -> Dongle:
        """The dongle behind the module, which is loaded when it is first asked for.

        Raises:
            ModuleError: it cannot be loaded.
        """
        if self._dongle is None:
            self._dongle = Dongle(self._module, self._uri, writable=self._setup)
        return self._dongle

    def run(self) -> None:
        """Answer until the agent closes the socket.

        Raises:
            PeerClosedError: it did.
        """
        while True:
            channel = Channel(self._connection, timeout_seconds=math.inf)  # the agent's end ends us
            request = channel.receive()
            with contextlib.ExitStack() as stack:
                # Whatever becomes of the request, what follows it is the PIN and nothing else.
                pin = stack.enter_context(channel.receive_secret()) if request.get("pin") else None
                answer = self._answer(request, pin)
            channel.extend(_ANSWER_SECONDS)
            logged_in = self._dongle is not None and self._dongle.logged_in
            channel.send({**answer, "logged_in": logged_in, "confined": self._confined})

    def _answer(self, request: Message, pin: Secret | None) -> Message:
        try:
            verb = self._verbs.get(str(request.get("verb")))
            if verb is None:
                raise ProtocolError("the helper does not know this request", hint="restart the agent after an update")
            return verb(self, request, pin)
        except ProxyAgentError as error:
            return failure(error)


def _describe(server: Server, _request: Message, _pin: Secret | None) -> Message:
    return server.dongle.describe().to_message()


def _others(server: Server, _request: Message, _pin: Secret | None) -> Message:
    return {"others": [asdict(each) for each in server.dongle.others()]}


def _list_dongles(server: Server, request: Message, _pin: Secret | None) -> Message:
    index = int(request["index"])
    if index == 0:
        server.listed = list_dongles(server.dongle)
    return {"dongle": server.listed[index].to_message() if index < len(server.listed) else None}


def _login(server: Server, request: Message, pin: Secret | None) -> Message:
    server.dongle.login(pin, str(request["serial"]))
    return {}


def _sign_session(server: Server, request: Message, _pin: Secret | None) -> Message:
    key = check_public_key(serialization.load_pem_public_key(str(request["public_key"]).encode()))
    lifetime = timedelta(seconds=int(request["lifetime_seconds"]))
    chain = server.dongle.sign_session(key, lifetime, now=datetime.fromisoformat(str(request["now"])))
    return {"chain": certificates_to_pem(chain)}


def _generate_key(server: Server, request: Message, _pin: Secret | None) -> Message:
    return {"created": generate_key(server.dongle, label=str(request["label"]), kind=str(request["kind"]))}


def _make_request(server: Server, request: Message, _pin: Secret | None) -> Message:
    subject = x509.Name.from_rfc4514_string(str(request["subject"]))
    return {"request": make_token_request(server.dongle, subject)}


def _import_certificate(server: Server, request: Message, _pin: Secret | None) -> Message:
    import_certificate(server.dongle, x509.load_pem_x509_certificate(str(request["certificate"]).encode()))
    return {}


_VERBS: dict[str, Verb] = {
    "describe": _describe,
    "others": _others,
    "list-dongles": _list_dongles,
    "login": _login,
    "sign-session": _sign_session,
}
_SETUP_VERBS: dict[str, Verb] = {
    "generate-key": _generate_key,
    "make-request": _make_request,
    "import-certificate": _import_certificate,
}

if __name__ == "__main__":
    main()

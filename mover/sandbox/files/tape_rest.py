#!/usr/bin/python3 -ESs
"""The WLCG Tape REST API v1 over the tape endpoint's state, for a few client certificates.

Called as `tape_rest.py PORT CLIENT…`, where CLIENT is a name (/C=…/CN=…) that may ask; its proxies may
too (RFC 3820). Reference: WLCG Tape REST API v1, https://doi.org/10.5281/zenodo.7220463.
"""

import json
import ssl
import sys
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mover.sandbox.files import tape_state

_MAX_BODY_BYTES = 1 << 20
_MAX_REQUESTS = 1000
_IDLE_SECONDS = 30
_SHORT = {"countryName": "C", "organizationName": "O", "commonName": "CN"}

_Answer = tuple[int, Any]


class _RefusedError(Exception):
    """What the client asked is not to be; `args` are the HTTP status and the reason."""


@dataclass
class _Request:
    paths: list[str]
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    cancelled: set[str] = field(default_factory=set)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext, clients: list[str]) -> None:
        self.context = context
        self.clients = clients
        self.requests: dict[str, _Request] = {}
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: _Server

    def setup(self) -> None:
        # In the connection's own thread, so that a silent client holds up nobody.
        self.request.settimeout(_IDLE_SECONDS)
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        try:
            body = self._body()
            self._authorise()
            status, answer = self._route(method, [name for name in self.path.split("/") if name], body)
        except _RefusedError as refusal:
            status, answer = refusal.args[0], {"title": "refused", "detail": refusal.args[1]}
        except (ValueError, KeyError, TypeError) as error:
            status, answer = 400, {"title": "bad request", "detail": str(error)}
        payload = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if status == 201:
            self.send_header("Location", f"{self.path.rstrip('/')}/{answer['requestId']}")
        self.end_headers()
        self.wfile.write(payload)

    def _body(self) -> Any:
        size = int(self.headers.get("Content-Length", 0))
        if not 0 <= size <= _MAX_BODY_BYTES:
            self.close_connection = True
            raise _RefusedError(413, "body too large")
        return json.loads(self.rfile.read(size) or b"{}")

    def _authorise(self) -> None:
        certificate = self.request.getpeercert() or {"subject": ()}
        pairs = [pair for relative_name in certificate["subject"] for pair in relative_name]
        name = "".join(f"/{_SHORT.get(kind, kind)}={value}" for kind, value in pairs)
        # OpenSSL has verified that what is longer than its issuer's name by common names is a proxy.
        if not f"{name}/CN=".startswith(tuple(f"{client}/CN=" for client in self.server.clients)):
            raise _RefusedError(403, "only the robots' certificates may use the tape")

    def _route(self, method: str, names: list[str], body: Any) -> _Answer:
        match (method, names):
            case ("POST", ["api", "v1", "archiveinfo"]):
                return 200, [_locality(path) for path in _paths(body["paths"])]
            case ("POST", ["api", "v1", "stage"]):
                return self._stage(_paths([file["path"] for file in body["files"]]))
            case ("GET", ["api", "v1", "stage", request_id]):
                return 200, _progress(request_id, self._request(request_id))
            case ("POST", ["api", "v1", "stage", request_id, "cancel"]):
                self._request(request_id).cancelled.update(_paths(body["paths"]))
                return 200, None
            case ("DELETE", ["api", "v1", "stage", request_id]):
                self._request(request_id)
                del self.server.requests[request_id]
                return 200, None
            case ("POST", ["api", "v1", "release", request_id]):
                self._request(request_id)
                for path in _paths(body["paths"]):
                    tape_state.evict(path)
                return 200, None
        raise _RefusedError(404, "no such resource")

    def _request(self, request_id: str) -> _Request:
        try:
            return self.server.requests[request_id]
        except KeyError:
            raise _RefusedError(404, "no such request") from None

    def _stage(self, paths: list[str]) -> _Answer:
        if len(self.server.requests) >= _MAX_REQUESTS:
            raise _RefusedError(429, "too many requests")
        request_id = str(uuid.uuid4())
        self.server.requests[request_id] = _Request(paths)
        tape_state.stage(request_id, paths)
        return 201, {"requestId": request_id}


def _paths(paths: Any) -> list[str]:
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise TypeError("paths is not a list of strings")
    # gfal2 asks with the slashes of the URL that it was given.
    return ["/" + path.lstrip("/") for path in paths]


def _locality(path: str) -> dict[str, str]:
    localities = {(True, True): "DISK_AND_TAPE", (True, False): "DISK", (False, True): "TAPE"}
    locality = localities.get((tape_state.on_disk(path), tape_state.on_tape(path)))
    if tape_state.is_lost(path):
        locality = "LOST"
    if locality is None:
        return {"path": path, "error": "USER ERROR: file does not exist or is not accessible to you"}
    return {"path": path, "locality": locality}


def _progress(request_id: str, request: _Request) -> dict[str, Any]:
    return {
        "id": request_id,
        "createdAt": request.created_ms,
        "startedAt": request.created_ms,
        "files": [_file_progress(path, request) for path in request.paths],
    }


def _file_progress(path: str, request: _Request) -> dict[str, Any]:
    disk = tape_state.on_disk(path)
    if disk:
        state = "COMPLETED"
    elif path in request.cancelled:
        state = "CANCELLED"
    else:
        state = "STARTED" if tape_state.on_tape(path) else "FAILED"
    return {"path": path, "onDisk": disk, "state": state, "startedAt": request.created_ms}


def main(port: int, clients: list[str]) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tape_state.BASE / "etc/hostcert.pem", tape_state.BASE / "etc/hostkey.pem")
    context.load_verify_locations(capath=tape_state.BASE / "etc/certificates")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    server = _Server(port, context, clients)
    print("tape REST API is ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

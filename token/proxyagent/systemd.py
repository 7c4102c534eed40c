"""What systemd has for its services: readiness and watchdog, activated sockets, credentials, levels in the journal."""

import contextlib
import ctypes
import logging
import math
import os
import re
import socket
import stat
import sys
import time
from collections.abc import MutableMapping

from proxyagent.errors import ConfigError
from proxyagent.pin import MAX_PIN_BYTES, Secret

_log = logging.getLogger(__name__)
_SEND_SECONDS = 2.0
_MAX_STATUS_CHARACTERS = 256
_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_JOURNAL_LINE_END = re.compile("[\n\0]")
_MAX_LOG_CHARACTERS = 8192  # journald breaks lines of 48 KiB, and the rest would have no level
_CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
_MEMORY_FILE_SYSTEMS = {0x858458F6, 0x01021994}  # RAMFS_MAGIC and TMPFS_MAGIC, linux/magic.h

_libc = ctypes.CDLL(None, use_errno=True)


class Notifier:
    """Tells systemd how the service is, see sd_notify(3). Does nothing when nobody asked for it."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables out of the environment, so that no child speaks for us.

        Raises:
            ConfigError: they are not what systemd sets.
        """
        self._address = _notify_address(environment.pop("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How long we may be silent before systemd ends us; None if for ever. Half of it is the time to speak."""
        self._fed_seconds = float("-inf")

    def ready(self) -> None:
        """Say that the service can be used from now on."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the line in `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def stopping(self) -> None:
        """Say that the service is about to end."""
        self._send("STOPPING=1")

    def feed(self) -> int | None:
        """Tell the watchdog that we live, if it is time; the milliseconds until it is again, None if never."""
        if self.watchdog_seconds is None:
            return None
        half = self.watchdog_seconds / 2
        now = time.monotonic()
        if now - self._fed_seconds >= half:
            self._send("WATCHDOG=1")
            self._fed_seconds = now
        return max(1, math.ceil(1000 * (half - (now - self._fed_seconds))))

    def _send(self, assignment: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(_SEND_SECONDS)
            try:
                channel.sendto(assignment.encode(), self._address)
            except OSError as error:
                # systemd acts by itself when it hears nothing; a service that works goes on working.
                _log.warning("cannot tell systemd %s: %s", assignment, error)


def activated_listener(environment: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """The listening Unix socket that a socket unit handed us (sd_listen_fds(3)), non-blocking; None if there is none.

    Its variables are taken out of the environment, and its descriptor is closed on exec.

    Raises:
        ConfigError: there are several, or it is no listening Unix stream socket.
    """
    values = {name: environment.pop(name, "") for name in _LISTEN_VARIABLES}
    if values["LISTEN_PID"] != str(os.getpid()):
        return None  # for our parent, who forgot to remove it
    count = _number(values["LISTEN_FDS"], "LISTEN_FDS")
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + min(count, 1024)):
        with contextlib.suppress(OSError):  # one that is closed is told below
            os.set_inheritable(descriptor, False)
    if count == 0:
        return None
    if count > 1:
        names = values["LISTEN_FDNAMES"]
        raise ConfigError(
            f"systemd handed over {count} sockets{f' ({_line(names)})' if names else ''}",
            hint="give the agent's socket unit one ListenStream= and nothing else",
        )
    return _check_listener(_FIRST_DESCRIPTOR)


def credential(name: str, environment: MutableMapping[str, str] = os.environ) -> Secret | None:
    """The credential `name` of the service (LoadCredentialEncrypted=, systemd.exec(5)); None if it has none such.

    One line feed at its end is taken off. systemd keeps credentials in ramfs, which is never swapped, and from version
    254 in tmpfs without swap. One on any other file system is refused: it might be on a disk.

    Raises:
        ConfigError: the name is unusable, the credential cannot be read, is empty or too long, may be read by
            everybody, or does not lie in memory.
    """
    descriptor = _open_credential(name, environment)
    if descriptor is None:
        return None
    try:
        _check_place(descriptor, name)
        return _read_secret(descriptor, name)
    except OSError as error:
        raise _unusable(name, f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def read_credential(name: str, limit_bytes: int, environment: MutableMapping[str, str] = os.environ) -> bytes | None:
    """The beginning of a credential of the service that is no secret; None if it has none such.

    Raises:
        ConfigError: the name is unusable, or the credential cannot be read.
    """
    descriptor = _open_credential(name, environment)
    if descriptor is None:
        return None
    try:
        return os.read(descriptor, limit_bytes)
    except OSError as error:
        raise _unusable(name, f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


class JournalFormatter(logging.Formatter):
    """Puts the level in front of every line, where journald looks for it (sd-daemon(3)).

    Every line, for otherwise a line feed in foreign text would begin an entry with a level of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record, with the level before each line."""
        prefix = f"<{_syslog_level(record.levelno)}>"
        lines = _JOURNAL_LINE_END.split(super().format(record))
        return "\n".join(prefix + line[:_MAX_LOG_CHARACTERS] for line in lines)


def log_formatter(environment: MutableMapping[str, str] = os.environ) -> logging.Formatter:
    """The format of log lines on standard error: with journal levels if the journal reads it (JOURNAL_STREAM)."""
    with contextlib.suppress(OSError, ValueError):  # closed, or no stream with a descriptor: then it is no journal
        found = os.fstat(sys.stderr.fileno())
        if environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
            return JournalFormatter()
    return logging.Formatter("%(levelname)s %(name)s: %(message)s")


def _notify_address(value: str) -> str | None:
    if not value:
        return None
    if value[0] not in "/@" or len(value) < 2 or len(os.fsencode(value)) > 107:
        raise ConfigError(f"NOTIFY_SOCKET is {_line(value)!r}, which is no Unix socket", hint="unset NOTIFY_SOCKET")
    return "\0" + value[1:] if value[0] == "@" else value


def _watchdog_seconds(environment: MutableMapping[str, str]) -> float | None:
    interval = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", "")
    if not interval or (pid and pid != str(os.getpid())):
        return None
    seconds = _number(interval, "WATCHDOG_USEC") / 1e6
    return seconds or None


def _line(text: str) -> str:
    """Foreign text as a part of one line: a line feed would begin another assignment."""
    return "".join(each if each.isprintable() else "?" for each in text[:_MAX_STATUS_CHARACTERS])


def _number(value: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise ConfigError(f"{name} is {_line(value)!r}, which is no number", hint=f"unset {name}")
    return int(value)


def _check_listener(descriptor: int) -> socket.socket:
    hint = "give the agent's socket unit ListenStream= with a path, and not Accept=yes"
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"systemd handed over no socket: {error.strerror}", hint=hint) from error
    if (
        listener.family != socket.AF_UNIX
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        listener.close()
        raise ConfigError("systemd handed over another kind of socket than a listening Unix stream socket", hint=hint)
    listener.setblocking(False)
    return listener


def _open_credential(name: str, environment: MutableMapping[str, str]) -> int | None:
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a credential's name", hint="use letters, digits, '.', '_' and '-'")
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = os.path.join(directory, name)  # noqa: PTH118  # foreign, and only handed on
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(name, f"cannot be opened: {error.strerror}") from error


def _unusable(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"the credential {name!r} {reason}",
        hint="seal the PIN with `systemd-creds encrypt` and name it in LoadCredentialEncrypted=",
    )


def _check_place(descriptor: int, name: str) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(name, "is not a file")
    if found.st_mode & stat.S_IRWXO:
        raise _unusable(name, "may be read by everybody")
    # struct statfs begins with f_type, a word, on all of Debian's architectures but s390x and mips; 120 bytes long.
    buffer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(descriptor, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if ctypes.c_ulong.from_buffer(buffer).value not in _MEMORY_FILE_SYSTEMS:
        raise _unusable(name, "does not lie in memory, so it may be on a disk")


def _read_secret(descriptor: int, name: str) -> Secret:
    buffer = bytearray(MAX_PIN_BYTES + 2)
    length = 0
    with Secret(buffer), memoryview(buffer) as view:
        while length < len(view) and (count := os.readv(descriptor, [view[length:]])) > 0:
            length += count
        if length > 0 and view[length - 1] == ord("\n"):
            length -= 1
        if length > MAX_PIN_BYTES:
            raise _unusable(name, f"is longer than {MAX_PIN_BYTES} bytes")
        if length == 0:
            raise _unusable(name, "is empty")
        return Secret(bytearray(view[:length]))


def _syslog_level(level: int) -> int:
    for limit, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= limit:
            return number
    return 7

"""What the disk remembers of logins without a person: per dongle, when and how often. Never anything about the PIN."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proxyagent.errors import ProxyAgentError

_NAME = "unattended.json"
_MAX_BYTES = 64 * 1024
_HINT = "see that the agent's state directory is writable for the agent's user, then run `proxyagent pin retry`"


class Attempt(BaseModel):
    """Logins that were begun and have not succeeded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: AwareDatetime
    count: Annotated[int, Field(ge=1)]


_FILE: TypeAdapter[dict[str, Attempt]] = TypeAdapter(dict[str, Attempt])


class UnattendedAttempts:
    """Keeps a robot's PIN from being tried twice by a machine, even if the machine dies in between.

    The intent is on disk before the PIN goes to the dongle, and is taken back after a success only. Whatever else
    happens, the next attempt waits for a person, who says `proxyagent pin retry`.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME

    def unfinished(self, serial: str) -> Attempt | None:
        """The attempt that a person has to look at first, if there is one.

        Raises:
            ProxyAgentError: nobody can tell, so there must be no attempt.
        """
        return self._read().get(_key(serial))

    def begin(self, serial: str, now: datetime) -> None:
        """Record, durably, that the PIN will now be sent.

        Raises:
            ProxyAgentError: it cannot be recorded, so there must be no attempt.
        """
        attempts = self._read()
        before = attempts.get(_key(serial))
        attempts[_key(serial)] = Attempt(time=now, count=before.count + 1 if before else 1)
        self._write(attempts)

    def forget(self, serial: str) -> bool:
        """Allow an attempt again: the last one succeeded, or a person says so. Tell whether there was one.

        Raises:
            ProxyAgentError: it cannot be recorded.
        """
        attempts = self._read()
        if attempts.pop(_key(serial), None) is None:
            return False
        self._write(attempts)
        return True

    def _read(self) -> dict[str, Attempt]:
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
            return _FILE.validate_json(content[:_MAX_BYTES])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ProxyAgentError(f"cannot read {self._path}: {error.strerror}", hint=_HINT) from error
        except ValidationError as error:
            raise ProxyAgentError(
                f"{self._path} is damaged, so nobody knows whether the PIN was tried",
                hint="remove that file if you know that the sealed PIN is right, and try again",
            ) from error

    def _write(self, attempts: dict[str, Attempt]) -> None:
        temporary = self._path.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_FILE.dump_json(attempts))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ProxyAgentError(f"cannot write {self._path}: {error.strerror}", hint=_HINT) from error


def _key(serial: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "?", serial)[:64]

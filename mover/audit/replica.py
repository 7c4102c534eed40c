"""Audit one bundle at one endpoint: ask the storage what it has, and read it back if that is wanted."""

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from mover.bundle.foreign import inspect_foreign
from mover.bundle.inspect import inspect_planned
from mover.bundle.plan import md5_name
from mover.bundle.whole import inspect_whole
from mover.catalogue.audits import Finding, Outcome
from mover.catalogue.runs import BundleRecord
from mover.config import EndpointConfig
from mover.errors import EndpointUnavailableError, FileMissingError, ForeignFileError, StoppedError, StorageError
from mover.model import BundleDigest, BundleKind, ChecksumKind, Locality
from mover.pace import Pace
from mover.ports import StorageEndpoint
from mover.steps.readback import bring_online, read_back


@dataclass(frozen=True, slots=True)
class Limits:
    """How an audit is slowed down and how long it waits. `pace` is shared by all endpoints."""

    pace: Pace
    stop: threading.Event
    pause_seconds: float = 0.0
    stage_seconds: float = 4 * 3600.0

    def wait(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            StoppedError: the audit is to stop.
        """
        if self.stop.wait(seconds):
            raise StoppedError("the audit was stopped", hint="`mover audit --resume` goes on with it")


class ReplicaAudit:
    """One bundle at one endpoint. What was found stands in `findings`, even if a later question gets no answer."""

    def __init__(
        self,
        bundle: BundleRecord,
        place: EndpointConfig,
        endpoint: StorageEndpoint,
        limits: Limits,
        *,
        deep: bool,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.findings: list[Finding] = []
        self.read_bytes = 0
        self._bundle = bundle
        self._place = place
        self._endpoint = endpoint
        self._limits = limits
        self._deep = deep
        self._observe = observe
        self._url = endpoint.url(bundle.lfn)
        self._again = f"`mover run retry {bundle.run} --look`"

    def run(self) -> None:
        """Ask.

        1. It is there, 2. with the right size, 3. at a tape endpoint: on tape, 4. and the site's own checksum is right.
        5. Deep: what it gives back is the bundle, byte for byte.

        Raises:
            StorageError: a question got no answer.
            CredentialError: there is no proxy to ask with.
            StoppedError: the audit is to stop.
        """
        digest = self._bundle.digest
        if digest is None:
            self._not_known("the catalogue has no digests of it yet", "let the engine finish")
            return
        # 1
        self._limits.wait(self._limits.pause_seconds)
        try:
            stored = self._endpoint.stat(self._bundle.lfn)
        except ForeignFileError as error:
            self._wrong(error.message, error.hint)
            return
        if stored is None:
            self._missing()
            return
        # 2
        if stored.size_bytes != digest.size_bytes:
            self._changed(f"{self._url} has {stored.size_bytes} bytes instead of {digest.size_bytes}")
        # 3
        online = self._on_tape() if self._endpoint.capabilities.tape else True
        # 4
        self._checksum(digest, online=online)
        # 5
        if self._deep:
            self._read_back(digest)

    def _on_tape(self) -> bool:
        """See that it is on tape; the answer is whether it can be read at once."""
        self._limits.wait(self._limits.pause_seconds)
        locality = self._endpoint.locality(self._bundle.lfn)
        self._limits.wait(self._limits.pause_seconds)
        on_tape = self._endpoint.on_tape(self._bundle.lfn)
        if locality in {Locality.LOST, Locality.NONE}:
            self._wrong(
                f"{self._url} is {locality}: its storage has no copy of it any more",
                "ask the site; `mover audit --deep` tells whether the other replicas are good",
            )
        elif not on_tape or locality is Locality.DISK:
            said = "" if on_tape == (locality is not Locality.DISK) else f" (it says {locality} and on tape {on_tape})"
            self._wrong(
                f"{self._url} is not on tape any more{said}",
                f"ask the site to write it to tape again, and what became of its tape; {self._again} waits for that",
            )
        elif locality is Locality.UNAVAILABLE:
            self._not_known(f"{self._url} is {locality} at its storage", "ask the site when its tape is back")
        return locality.online

    def _checksum(self, digest: BundleDigest, *, online: bool) -> None:
        if ChecksumKind.ADLER32 not in self._endpoint.capabilities.checksums:
            if not self._deep:
                self._not_known(
                    f"{self._place.name} computes no checksum, so that nothing is known of the bytes",
                    "needs --deep: only reading it back tells",
                )
            return
        self._limits.wait(self._limits.pause_seconds)
        try:
            adler32 = self._endpoint.checksum(
                self._bundle.lfn, ChecksumKind.ADLER32, size_bytes=self._bundle.size_bytes
            )
        except StorageError as error:
            if online or isinstance(error, EndpointUnavailableError):
                raise
            # Evicted from the disk buffer is how a file on tape should be; some storage then has no checksum to tell.
            self._good("on tape only: the site tells no checksum of it", "--deep brings it online and reads it")
            return
        if adler32 != digest.adler32:
            self._changed(f"{self._url} has adler32 {adler32} instead of {digest.adler32}, says the site")

    def _read_back(self, digest: BundleDigest) -> None:
        bundle, endpoint = self._bundle, self._endpoint
        try:
            bring_online(
                endpoint,
                bundle.lfn,
                deadline_seconds=self._limits.stage_seconds,
                poll_seconds=self._place.archive_poll_seconds,
                wait=self._limits.wait,
            )
        except FileMissingError:
            # Step 1 or 3 has said so, unless it happened just now.
            if not any(finding.outcome is Outcome.WRONG for finding in self.findings):
                self._missing()
            return
        # One byte more than there may be.
        most = digest.size_bytes + 1
        with closing(read_back(endpoint, bundle.lfn, most_bytes=most, alive=self._passed)) as chunks:
            if bundle.plan is not None:
                inspection = inspect_planned(chunks, bundle.plan, digest)
            elif bundle.kind is BundleKind.RAW:
                inspection = inspect_foreign(chunks, md5_name(bundle.lfn), digest)
            else:
                inspection = inspect_whole(chunks, digest)
        for text in inspection.findings:
            self._changed(f"as read back: {text}")

    def _passed(self, size_bytes: int) -> None:
        if self._limits.stop.is_set():
            self._limits.wait(0)
        self._limits.pace.spend(size_bytes, self._limits.stop)
        self.read_bytes += size_bytes
        self._observe(size_bytes)

    def _missing(self) -> None:
        self._wrong(f"{self._url} is not there any more", f"{self._again} wants it again; ask the site where it went")

    def _changed(self, text: str) -> None:
        self._wrong(
            text, f"{self._again} has it count no more and says what to do; ask the site to look at its storage"
        )

    def _good(self, text: str, remedy: str) -> None:
        self.findings.append(Finding(Outcome.GOOD, text, remedy))

    def _not_known(self, text: str, remedy: str) -> None:
        self.findings.append(Finding(Outcome.NOT_KNOWN, text, remedy))

    def _wrong(self, text: str, remedy: str) -> None:
        self.findings.append(Finding(Outcome.WRONG, text, remedy))

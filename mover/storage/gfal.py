"""What the Grid protocols have in common: every call but bulk data, through gfal2. Only this module imports it."""

import os
import re
import signal
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import gfal2

from mover.errors import (
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
    ThirdPartyCopyError,
    UnsafeNameError,
)
from mover.location import Location
from mover.model import ChecksumKind, Locality, StoredFile, check_name
from mover.ports import (
    SLOWEST_CHECKSUM_BYTES_PER_SECOND,
    Capabilities,
    CredentialSource,
    MayRemove,
    StorageEndpoint,
    always,
)
from mover.storage.cleanup import removed_on_failure
from mover.storage.credential import NamedCredential, NamedProxy
from mover.storage.gfalcopy import copy_by_gfal
from mover.storage.gfalerrors import printable, storage_error
from mover.storage.tapestatus import NOWHERE, check_online, locality_named, locality_told
from mover.storage.thirdparty import Watch, between_storages, check_pair
from mover.storage.xrdcl import limit_waiting

Answer = TypeVar("Answer")
_WIDTHS = {ChecksumKind.ADLER32: 8, ChecksumKind.MD5: 32}
_MOST_ENTRIES = 1_000_000
_PIN_SECONDS = 86400


class GfalEndpoint(ABC):
    """A `StorageEndpoint` for a Grid protocol, without `upload` and `read`.

    Trusts the certificate authorities of X509_CERT_DIR. A gfal2 context lives as long as a proxy does: davix would go
    on with TLS sessions of the old one. `stall_timeout_seconds` is the deadline of each metadata call and of each
    standstill of an upload; a checksum may take `checksum_timeout_seconds`, since the storage reads the file for it.
    """

    scheme: ClassVar[str]
    #: Whether files can be copied to and from other storages in it.
    copies: ClassVar[bool] = True
    #: Whether the server itself refuses to create a file that exists.
    exclusive_create: ClassVar[bool]

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        credentials: CredentialSource,
        tape: bool = False,
        checksums: frozenset[ChecksumKind] = frozenset({ChecksumKind.ADLER32}),
        stall_timeout_seconds: float = 60.0,
        checksum_timeout_seconds: float = 1800.0,
        third_party_copy: bool = True,
    ) -> None:
        """Connects to nothing yet. `third_party_copy` says whether the storage is set up for it.

        Raises:
            ConfigError: `base_url` is not one of this scheme.
        """
        self._name = name
        self._location = Location.parse(base_url, self.scheme)
        self._credential = NamedCredential(credentials)
        self._capabilities = Capabilities(
            checksums=checksums,
            tape=tape,
            exclusive_create=self.exclusive_create,
            rename_noreplace=False,
            third_party_copy=frozenset({self.scheme} if self.copies and third_party_copy else ()),
        )
        self._stall_seconds = max(1, round(stall_timeout_seconds))
        self._checksum_seconds = max(1, round(checksum_timeout_seconds))
        self._opened: tuple[NamedProxy, Any] | None = None

    @property
    def name(self) -> str:
        """The endpoint's name in the configuration."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """A rename replaces by every protocol, at least with XRootD and Globus' GridFTP server."""
        return self._capabilities

    def url(self, path: str) -> str:
        """The SURL of `path`."""
        return self._location.url(path)

    def stat(self, path: str) -> StoredFile | None:
        """What is stored under `path` now; ForeignFileError if it is a directory."""
        url = self.url(path)
        try:
            found = self.look(url, lambda context: context.stat(url))
        except FileMissingError:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise ForeignFileError(f"{url} is no regular file", hint="find out who made it, and why")
        return _describe(path, found)

    def list(self, directory: str) -> list[StoredFile]:
        """The files directly in `directory`, by name; without those whose names are not UTF-8."""
        url = self.url(directory)
        try:
            found = self.look(url, lambda context: list(_entries(context.opendir(url), url)))
        except FileMissingError:
            return []
        # By root://, files in listings have no type.
        files = (
            _describe(f"{directory}/{name}", status)
            for name, status in found
            if stat.S_IFMT(status.st_mode) in {stat.S_IFREG, 0}
        )
        return sorted(files, key=lambda file: file.path)

    def directories(self, directory: str) -> tuple[str, ...]:
        """The directories directly in `directory` that have safe names, by name."""
        url = self.url(directory) if directory else self._location.parent_url("")
        try:
            found = self.look(url, lambda context: list(_entries(context.opendir(url), url)))
        except FileMissingError:
            return ()
        return tuple(sorted(name for name, status in found if stat.S_ISDIR(status.st_mode) and _is_safe(name)))

    def checksum(self, path: str, kind: ChecksumKind, *, size_bytes: int = 0) -> str:
        """The storage's own checksum. Some know that of a file on tape, others say that there is no such file."""
        url = self.url(path)
        patience = self._checksum_seconds + size_bytes // SLOWEST_CHECKSUM_BYTES_PER_SECOND
        try:
            answer = self.ask_checksum(path, kind, patience)
        except FileMissingError:
            self.refuse_offline(path)
            raise
        # Some servers leave out leading zeros.
        value = answer.strip().lower().zfill(_WIDTHS[kind])
        if not re.fullmatch(rf"[0-9a-f]{{{_WIDTHS[kind]}}}", value):
            raise StorageError(
                f"{url}: the answer {printable(answer)!r} is no {kind} checksum", hint="ask the site what it means"
            )
        return value

    def ask_checksum(self, path: str, kind: ChecksumKind, patience_seconds: int) -> str:
        """The storage's answer, as it comes, within that time."""
        url = self.url(path)

        def ask(context: Any) -> str:
            context.set_opt_integer("CORE", "CHECKSUM_TIMEOUT", patience_seconds)
            answer: str = context.checksum(url, kind.name)
            return answer

        return self._call(url, ask)

    @abstractmethod
    def upload(self, path: str, chunks: Iterable[bytes], size_bytes: int, *, may_remove: MayRemove = always) -> None:
        """Stream `chunks` into a new file."""

    def copy_from(
        self,
        source: StorageEndpoint,
        source_path: str,
        path: str,
        size_bytes: int,
        *,
        alive: Callable[[int], None],
        may_remove: MayRemove = always,
    ) -> None:
        """Have the two storages copy. `source` is asked for its URL only: it may be at work in another thread."""
        check_pair(self.scheme, source, self)
        source_url, url = source.url(source_path), self.url(path)
        there = self._call(source_url, lambda context: context.stat(source_url)).st_size
        if there != size_bytes:
            raise ThirdPartyCopyError(
                f"{source_url} has {there} bytes, not {size_bytes}", hint="copy from another replica, or stream it"
            )
        if source.capabilities.tape:
            check_online(source_url, self._locality(source_url))
        self.refuse_existing(path)
        self.make_parent(path)
        watch = Watch(alive, what=f"{source_url} to {url}", stall_seconds=self._stall_seconds)
        with removed_on_failure(self.remove, path, ours=lambda: watch.begun, may_remove=may_remove):
            try:
                watch.look()
                self.third_party_copy(source_url, url, watch)
            except FileExistsAtEndpointError:
                watch.begun = False
                raise
            except StorageError as error:
                reason = self.refusal(url, error) if watch.begun and may_remove() else None
                raise between_storages(reason or error) from error
            alive(size_bytes)

    def third_party_copy(self, source_url: str, url: str, watch: Watch) -> None:
        """Have the storages copy, with the watch looking on; gfal2 does it in a process of its own."""
        copy_by_gfal(source_url, url, self._credential.current(), watch)

    def refusal(self, url: str, error: StorageError) -> StorageError | None:
        """Why this storage ended a copy into its file `url`, which is ours, if it tells more than `error` does."""
        del url, error
        return None

    @abstractmethod
    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """The file's bytes, up to the size that it has when the first is asked for."""

    def rename(self, source: str, target: str) -> None:
        """Give the file another name, after a look that there is a source and no target."""
        if self.stat(source) is None:
            raise FileMissingError(f"there is no {self.url(source)}", hint="look at what the endpoint has")
        self.make_parent(target)  # some storages do it themselves, others do not
        self.refuse_existing(target)
        self.move(source, target)

    def move(self, source: str, target: str) -> None:
        """Rename, whatever is there: `rename` has looked."""
        source_url, target_url = self.url(source), self.url(target)
        self._call(source_url, lambda context: context.rename(source_url, target_url))

    def remove(self, path: str) -> None:
        """Remove the file, if there is one. The look before it matters: by root://, unlink removes directories too."""
        if self.stat(path) is None:
            return
        with suppress(FileMissingError):
            self.unlink(path)

    def unlink(self, path: str) -> None:
        """Remove whatever is there: `remove` has looked."""
        url = self.url(path)
        self._call(url, lambda context: context.unlink(url))

    def on_tape(self, path: str) -> bool:
        """What the storage's archive poll (root: prepare query; davs: WLCG Tape REST API archiveinfo) says."""
        url = self._tape_url(path)
        try:
            return self._archived(url)
        except StorageError as error:
            if locality_told(error) in {Locality.LOST, Locality.NONE}:
                return False
            raise

    def locality(self, path: str) -> Locality:
        """What the storage says of the file's status (gfal2's attribute user.status)."""
        return self._locality(self._tape_url(path))

    def bring_online(self, path: str) -> None:
        """Ask for it, without waiting. The look before it is for root://, where nobody says that there is no file."""
        url = self._tape_url(path)
        self._call(url, lambda context: context.stat(url))
        self._tape_call(url, lambda context: context.bring_online(url, _PIN_SECONDS, self._stall_seconds, True))

    def bring_online_many(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Ask by one prepare request (root), or one stage request of the Tape REST API (davs), without waiting."""
        urls = [self._tape_url(path) for path in paths]
        if not urls:
            return {}
        answer = self._call(
            urls[0], lambda context: context.bring_online(urls, _PIN_SECONDS, self._stall_seconds, True)
        )
        return {
            path: storage_error(error.code, str(error.message), url)
            for path, url, error in zip(paths, urls, answer[0], strict=True)
            if error is not None
        }

    def close(self) -> None:
        """Let go of the context and the proxy."""
        self._opened = None
        self._credential.release()

    def refuse_existing(self, path: str) -> None:
        """Raise FileExistsAtEndpointError if anything is stored under `path` now."""
        if self.stat(path) is not None:
            raise FileExistsAtEndpointError(f"{self.url(path)} exists", hint="nothing is overwritten: look whose it is")

    def refuse_offline(self, path: str) -> None:
        """Raise NotOnlineError if the file is on tape only.

        To open it would have the storage stage it, for as long as that takes, and ends some servers of XRootD 5.5.
        """
        if self._capabilities.tape:
            check_online(self.url(path), self.locality(path))

    def make_parent(self, path: str) -> None:
        """Make the directory of `path`, and those above it."""
        url = self._location.parent_url(path)
        self._call(url, lambda context: context.mkdir_rec(url, 0o755))

    def _tape_url(self, path: str) -> str:
        url = self.url(path)
        if not self._capabilities.tape:
            raise StorageError(f"{url} is at an endpoint without tape", hint="ask capabilities first")
        return url

    def _locality(self, url: str) -> Locality:
        try:
            status: str = self._tape_call(url, lambda context: context.getxattr(url, "user.status"))
        except StorageError as error:
            locality = locality_told(error)
            if locality is None:
                raise
            return locality
        if status == NOWHERE:
            return Locality.TAPE if self._archived(url) else Locality.LOST
        named = locality_named(status)
        if named is None:
            raise StorageError(f"{url}: unknown status {printable(status)!r}", hint="ask the site")
        return named

    def _archived(self, url: str) -> bool:
        answer: int = self._tape_call(url, lambda context: context.archive_poll(url))
        return answer == 1

    def _tape_call(self, url: str, call: Callable[[Any], Answer]) -> Answer:
        try:
            return self._call(url, call)
        except StorageError:
            # The Tape REST API has no code of its own for a missing file: the look has.
            self._call(url, lambda context: context.stat(url))
            raise

    def look(self, url: str, call: Callable[[Any], Answer]) -> Answer:
        """What gfal2 answers to a question that changes nothing, and may be asked twice."""
        return self._call(url, call)

    def _call(self, url: str, call: Callable[[Any], Answer]) -> Answer:
        context = self._context()
        with translated(url):
            return call(context)

    def _context(self) -> Any:
        proxy = self._credential.current()
        if self._opened is None or self._opened[0] is not proxy:
            self._opened = (proxy, self._new_context(proxy.path))
        return self._opened[1]

    def _new_context(self, proxy_path: str) -> Any:
        limit_waiting()
        # davix (0.8.4) would follow what it remembers of redirects, and overflow the stack when they lead in a circle.
        os.environ["DAVIX_DISABLE_REDIRECT_CACHING"] = "1"
        # It blocks all signals in the thread that makes a context (and in every process that this thread starts).
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            context = gfal2.creat_context()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        context.set_opt_integer("CORE", "NAMESPACE_TIMEOUT", self._stall_seconds)
        context.set_opt_integer("HTTP PLUGIN", "OPERATION_TIMEOUT", self._stall_seconds)
        # The proxy is enough; a macaroon of the storage's would cost two more requests a call.
        context.set_opt_boolean("HTTP PLUGIN", "RETRIEVE_BEARER_TOKEN", False)
        credential = context.cred_new("X509_CERT", proxy_path)
        for scheme in (self.scheme, "https"):  # https is where a Tape REST API is
            context.cred_set(f"{scheme}://", credential)
        return context


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise the StorageErrors that gfal2's errors in the body stand for."""
    try:
        yield
    except gfal2.GError as error:
        raise storage_error(error.code, str(error.message), url) from None
    except UnicodeDecodeError as error:
        raise StorageError(
            f"{url}: the endpoint answers with a name that is not UTF-8", hint="rename or remove that file there"
        ) from error


def _entries(directory: Any, url: str) -> Iterator[tuple[str, Any]]:
    for _ in range(_MOST_ENTRIES):
        entry, status = directory.readpp()
        if entry is None:
            return
        try:
            name = entry.d_name
        except UnicodeDecodeError:
            continue  # somebody else's: we never give such a name
        yield name, status
    raise StorageError(f"{url} has over {_MOST_ENTRIES} entries", hint="ask the site; it should have a few hundred")


def _is_safe(name: str) -> bool:
    try:
        check_name(name)
    except UnsafeNameError:
        return False
    return True


def _describe(path: str, status: Any) -> StoredFile:
    try:
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise StorageError(f"{path}: impossible time of modification", hint="ask the site what it means") from error
    return StoredFile(path, status.st_size, modified)

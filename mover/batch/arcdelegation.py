"""The proxies that a compute element moves files with: delegated by ours for keys of its own, limited, and short.

It keeps the keys and the proxies on its own disk; they are of no use after their end, and are gone after `remove`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mover.batch.arcrest import ArcRest, is_id, text_of
from mover.errors import BatchUnavailableError, MoverError
from mover.ports import DelegatingProxy, DelegatingSource
from proxyagent.client import ProxyAgentError

_PEM = "application/x-pem-file"


@dataclass(frozen=True, slots=True)
class _Delegation:
    lifetime_seconds: int
    made: datetime
    ends: datetime

    def due(self, now: datetime) -> bool:
        """Whether less than a third of its life is left."""
        return now > self.ends - (self.ends - self.made) / 3

    def worth_replacing(self, ends: datetime) -> bool:
        """Whether one that `ends` then lasts longer by more than a tenth."""
        return ends > self.ends + (self.ends - self.made) / 10


class Delegations:
    """Those that one engine has made at a compute element."""

    def __init__(self, rest: ArcRest, credentials: DelegatingSource, *, longest_seconds: int) -> None:
        """One whose need is not known, since an earlier engine made it, is renewed for `longest_seconds` at most."""
        self._rest = rest
        self._credentials = credentials
        self._longest_seconds = longest_seconds
        self._made: dict[str, _Delegation] = {}
        self._known: dict[str, tuple[str, ...]] = {}

    def new(self, lifetime_seconds: int) -> str:
        """Delegate for that time, or until our own proxy ends; the delegation's id.

        Raises:
            BatchUnavailableError: the compute element did not take it.
        """
        answer = self._rest.post("delegations", action="new")
        if not is_id(answer.location):
            raise BatchUnavailableError(f"{self._rest.url} names no delegation", hint="ask the site")
        self._answer(answer.location, answer.body, lifetime_seconds, self._credentials.proxy())
        return answer.location

    def renew(self, jobs: Iterable[str]) -> dict[str, MoverError]:
        """Renew what these jobs, all that go on, move files with, as far as it is due; why that failed, by job.

        Raises:
            BatchUnavailableError: it cannot be told what they have.
        """
        known = {job_id: self._known.get(job_id) for job_id in jobs}
        if new := [job_id for job_id, ids in known.items() if ids is None]:
            found = self.of(new)
            known.update((job_id, found.get(job_id, ())) for job_id in new)
        self._known = {job_id: ids for job_id, ids in known.items() if ids is not None}
        failed: dict[str, MoverError] = {}
        for job_id, ids in self._known.items():
            try:
                for each in ids:
                    self._renew(each)
            except MoverError as error:
                failed[job_id] = error
        return failed

    def of(self, jobs: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The ids of the delegations of each job that has any.

        Raises:
            BatchUnavailableError: it cannot be told.
        """
        found = {}
        for entry in self._rest.post_ids("delegations", list(jobs)):
            ids = entry.get("delegation_id", [])
            known = tuple(str(each) for each in (ids if isinstance(ids, list) else [ids]) if is_id(each))
            if known:
                found[text_of(entry, "id")] = known
        return found

    def remove(self, delegation: str) -> None:
        """Have the compute element forget a delegation and its key; no error if it is not known.

        Raises:
            BatchUnavailableError: it did not.
        """
        self._rest.post("delegations", delegation, action="delete", done=(200, 202, 204, 404))
        self._made.pop(delegation, None)

    def _renew(self, delegation: str) -> None:
        now = datetime.now(UTC)
        last = self._made.get(delegation)
        if last is not None and not last.due(now):
            return
        lifetime_seconds = last.lifetime_seconds if last else self._longest_seconds
        proxy = self._credentials.proxy()
        ends = min(now + timedelta(seconds=lifetime_seconds), proxy.not_after)
        if last is None or last.worth_replacing(ends):
            answer = self._rest.post("delegations", delegation, action="renew")
            self._answer(delegation, answer.body, lifetime_seconds, proxy)

    def _answer(self, delegation: str, request: bytes, lifetime_seconds: int, proxy: DelegatingProxy) -> None:
        """Sign the compute element's request."""
        now = datetime.now(UTC)
        try:
            chain = proxy.delegate(request, lifetime_seconds, limited=True)
        except ProxyAgentError as error:
            raise BatchUnavailableError(
                f"{self._rest.url}: cannot delegate a proxy: {error.message}", hint=error.hint
            ) from error
        self._rest.put("delegations", delegation, body=chain.encode(), kind=_PEM)
        ends = min(now + timedelta(seconds=lifetime_seconds), proxy.not_after)
        self._made[delegation] = _Delegation(lifetime_seconds, now, ends)

"""Raw data on tape is brought online ahead of the jobs, many files a request, and none twice in a short time."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum

from mover.catalogue.campaigns import put_last
from mover.catalogue.database import Database
from mover.catalogue.endpoints import sick_endpoints
from mover.catalogue.jobchoice import runs_in_turn
from mover.catalogue.replicas import replicas_of_bundle
from mover.catalogue.runs import bundle_of
from mover.errors import FileMissingError, NotOnlineError, StorageError
from mover.model import EndpointKind, Locality
from mover.ports import StorageEndpoint
from mover.reco.threads import HelpfulThread, RecoSurroundings
from mover.states import ReplicaState

log = logging.getLogger("mover")

_PROVEN = {ReplicaState.VERIFIED, ReplicaState.ARCHIVED}
#: An endpoint that failed is left alone for so long.
_LEAVE_ALONE = timedelta(minutes=1)
#: What has not come after so long gives its turn to others, with words for a person.
_PATIENCE = timedelta(hours=24)
_MOST_A_REQUEST = 100
_MOST_REMEMBERED = 20_000


class _Found(Enum):
    """What became of the last look at a file at an endpoint, and for how long that holds."""

    ASKED = timedelta(minutes=30)
    """Another tape that has it is asked then."""
    ONLINE = timedelta(minutes=10)
    """Unless a job finds that it has gone again."""
    BAD = timedelta(minutes=15)
    """Lost, not available, or refused."""


class Recaller(HelpfulThread):
    """A thread of its own, so that a slow tape holds up nothing.

    It looks at the next `recall_ahead` jobs of campaigns whose raw data no disk has, and at what jobs wait for. What it
    remembers is lost when it ends: then it asks once more, which is harmless.
    """

    def __init__(self, around: RecoSurroundings) -> None:
        super().__init__("recaller", around)
        #: What the next jobs wait for, and since when.
        self._waiting: dict[str, datetime] = {}
        #: The tape at which a file was asked for last.
        self._tried: dict[str, str] = {}
        self._found: dict[tuple[str, str], tuple[_Found, datetime]] = {}
        self._alone_until: dict[str, datetime] = {}

    def help(self, database: Database, endpoints: Mapping[str, StorageEndpoint]) -> bool:
        """Ask for what is wanted now; False if nothing is."""
        now = self._around.clock.now()
        self._found = {key: found for key, found in self._found.items() if found[1] > now}
        due: dict[str, dict[str, None]] = {}
        wanted = dict(self._asked_by_jobs()) | dict(self._ahead(database, now))
        for lfn, names in wanted.items():
            if (name := self._choose(lfn, names)) is not None:
                due.setdefault(name, {})[lfn] = None
        asked, troubles = 0, []
        asked_at = [name for name in due if self._alone_until.get(name, now) <= now]
        for name in asked_at:
            try:
                asked += self._ask(endpoints[name], list(due[name]), now)
            except StorageError as error:
                self._alone_until[name] = now + _LEAVE_ALONE
                troubles.append(f"{error.message} ({error.hint})")
        if asked_at:
            self.say("; ".join(troubles))
        return asked > 0

    def _last(self, name: str, lfn: str) -> _Found | None:
        found = self._found.get((name, lfn))
        return found and found[0]

    def _choose(self, lfn: str, names: Sequence[str]) -> str | None:
        """The tape that is asked for the file now; None if it comes already, or none has it."""
        if {_Found.ASKED, _Found.ONLINE} & {self._last(name, lfn) for name in names}:
            return None
        # The one that was tried last comes last.
        tried = self._tried.get(lfn)
        begin = names.index(tried) + 1 if tried in names else 0
        chosen = next((name for name in (*names[begin:], *names[:begin]) if self._last(name, lfn) is None), None)
        if chosen is not None:
            self._tried.pop(lfn, None)
            self._tried[lfn] = chosen
            if len(self._tried) > _MOST_REMEMBERED:
                del self._tried[next(iter(self._tried))]
        return chosen

    def _asked_by_jobs(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What jobs wait for now: LFN, and the tapes that have it."""
        for lfn, names in self._around.recalls.take().items():
            for name in names:
                # The job has seen that it is not online any more.
                if self._last(name, lfn) is _Found.ONLINE:
                    del self._found[name, lfn]
            yield lfn, names

    def _ahead(self, database: Database, now: datetime) -> Iterator[tuple[str, Sequence[str]]]:
        """What the next jobs of campaigns need, and no disk has: LFN, and the tapes that have it."""
        waiting: dict[str, datetime] = {}
        for run in dict.fromkeys(runs_in_turn(database, ahead=self._around.reco.recall_ahead)):
            bundle = bundle_of(database, run)
            names = [] if bundle is None else self._tapes(database, bundle.id)
            if bundle is None or not names:
                continue
            since = self._waiting.get(bundle.lfn, now)
            if now - since > _PATIENCE:
                since = now
                late = _late(bundle.lfn, names)
                log.warning("%s: %s (%s)", self.name, late.message, late.hint)
                put_last(database, run, late, now=now)
            waiting[bundle.lfn] = since
            yield bundle.lfn, names
        self._waiting = waiting

    def _tapes(self, database: Database, bundle_id: int) -> list[str]:
        """The tapes that have it and are well, in their order; none if a disk has it too."""
        reco, places, sick = self._around.reco, self._around.config.places, sick_endpoints(database)
        have = {one.endpoint for one in replicas_of_bundle(database, bundle_id) if one.state in _PROVEN} & places.keys()
        if any(places[name].kind is EndpointKind.DISK and name not in sick for name in have):
            return []
        order = dict.fromkeys([*reco.sources, reco.endpoint, *places])
        return [name for name in order if name in have - sick.keys() and places[name].kind is EndpointKind.TAPE]

    def _ask(self, endpoint: StorageEndpoint, lfns: list[str], now: datetime) -> int:
        """Ask for those that are on tape only; how many they were."""
        offline = [lfn for lfn in lfns if self._is_offline(endpoint, lfn, now)]
        for start in range(0, len(offline), _MOST_A_REQUEST):
            self._go_on()
            request = offline[start : start + _MOST_A_REQUEST]
            refused = endpoint.bring_online_many(request)
            for lfn in request:
                self._note(endpoint, lfn, _Found.BAD if lfn in refused else _Found.ASKED, now)
            for error in refused.values():
                log.warning("%s: %s (%s)", self.name, error.message, error.hint)
            taken = len(request) - len(refused)
            log.info("%s: %d files are to be brought online at %s", self.name, taken, endpoint.name)
        return len(offline)

    def _is_offline(self, endpoint: StorageEndpoint, lfn: str, now: datetime) -> bool:
        self._go_on()
        try:
            locality = endpoint.locality(lfn)
        except FileMissingError:
            # The job that needs it says so.
            locality = Locality.NONE
        if locality is not Locality.TAPE:
            self._note(endpoint, lfn, _Found.ONLINE if locality.online else _Found.BAD, now)
        return locality is Locality.TAPE

    def _note(self, endpoint: StorageEndpoint, lfn: str, found: _Found, now: datetime) -> None:
        self._found[endpoint.name, lfn] = found, now + found.value


def _late(lfn: str, names: list[str]) -> NotOnlineError:
    hours = _PATIENCE.total_seconds() / 3600
    return NotOnlineError(
        f"{lfn} has not come from tape within {hours:.0f} h (asked at {', '.join(names)})",
        hint="ask the site whether its tapes are read now; the job's turn comes again, after the others",
    )

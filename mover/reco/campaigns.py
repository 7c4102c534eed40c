"""Which jobs a campaign is to have: of runs whose raw data is proven, and none that was done or wanted before."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from mover.catalogue.approvals import approved_releases
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey
from mover.config import Config
from mover.errors import ConfigError
from mover.model import BundleKind
from mover.reco.releases import Releases
from mover.states import JobState

_PROVEN_RAW = (
    "SELECT DISTINCT bundle.run AS run FROM bundle JOIN replica ON replica.bundle_id = bundle.id "
    "WHERE bundle.kind = 'raw' AND bundle.adler32 NOTNULL AND replica.state IN ('verified', 'archived') "
    "AND bundle.run BETWEEN ? AND ?"
)
_KNOWN = "SELECT number AS run FROM run WHERE number BETWEEN ? AND ?"
_JOBS = "SELECT * FROM job WHERE release = ? AND iteration = ? AND kind = ? AND run BETWEEN ? AND ?"


@dataclass(frozen=True, slots=True)
class CampaignChoice:
    """What a person asks for: every kind for every run, with one release."""

    release: str
    runs: tuple[tuple[int, int], ...]
    kinds: tuple[BundleKind, ...]
    iteration: int = 1

    def __str__(self) -> str:
        """For people: 'runs 4000-4778: reco and mc with 0.4.1'."""
        runs = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in self.runs)
        again = f", iteration {self.iteration}" if self.iteration > 1 else ""
        return f"runs {runs}: {' and '.join(self.kinds)} with {self.release}{again}"


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What that comes to: new jobs, cancelled ones (by id) to be taken up again, and the runs left out, by reason."""

    choice: CampaignChoice
    keys: tuple[JobKey, ...]
    again: tuple[int, ...]
    left_out: dict[str, tuple[int, ...]]


def plan_campaign(database: Database, config: Config, releases: Releases, choice: CampaignChoice) -> CampaignPlan:
    """Choose the jobs. Nothing is recorded.

    1. The release is there, approved, and can be set up. 2. The runs whose raw data is proven somewhere. 3. Of their
    jobs, those that are not done, under way, or in a person's hands.

    Raises:
        ReleaseNotFoundError: it is not.
        ConfigError: jobs of that kind are not configured.
    """
    for kind in choice.kinds:
        if config.job.of(kind) is None or config.policy_of(kind) is None:
            raise ConfigError(
                f"the configuration says nothing of jobs of the kind {str(kind)!r}",
                hint=f"add [job.{kind}] and [policy.{kind}]; docs/reco.md says what goes there",
            )
    # 1
    releases.check(choice.release, also_approved=approved_releases(database))
    # 2
    proven, left_out = _runs(database, choice)
    # 3
    keys: list[JobKey] = []
    again: list[int] = []
    for kind in choice.kinds:
        known = _jobs(database, choice, kind)
        keys += [JobKey(run, kind, choice.release, choice.iteration) for run in proven if run not in known]
        for run, row in sorted(known.items()):
            if run not in proven:
                continue
            if why := _why_not(kind, row):
                left_out.setdefault(why, []).append(run)
            else:
                again.append(row["id"])
    reasons = {why: tuple(runs) for why, runs in left_out.items() if runs}
    return CampaignPlan(choice, tuple(sorted(keys, key=lambda key: key.run)), tuple(again), reasons)


def in_ranges(runs: Iterable[int]) -> str:
    """Runs, in order, as people write them: '4000-4010, 4012'."""
    ranges: list[list[int]] = []
    for run in runs:
        if ranges and run == ranges[-1][1] + 1:
            ranges[-1][1] = run
        else:
            ranges.append([run, run])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def _runs(database: Database, choice: CampaignChoice) -> tuple[dict[int, None], dict[str, list[int]]]:
    """The runs to be done, in order, and the others, by reason."""
    proven, known = _found(database, _PROVEN_RAW, choice), _found(database, _KNOWN, choice)
    asked = sorted({run for first, last in choice.runs for run in range(first, last + 1)})
    left_out = {
        "not known here (`mover adopt` takes in what others have stored)": [one for one in asked if one not in known],
        "raw data not proven anywhere yet": [one for one in asked if one in known and one not in proven],
    }
    return dict.fromkeys(one for one in asked if one in proven), left_out


def _found(database: Database, statement: str, choice: CampaignChoice) -> Collection[int]:
    return {row["run"] for first, last in choice.runs for row in database.query(statement, first, last)}


def _jobs(database: Database, choice: CampaignChoice, kind: BundleKind) -> dict[int, sqlite3.Row]:
    def rows() -> Iterator[sqlite3.Row]:
        for first, last in choice.runs:
            yield from database.query(_JOBS, choice.release, choice.iteration, kind, first, last)

    return {row["run"]: row for row in rows()}


def _why_not(kind: BundleKind, row: sqlite3.Row) -> str | None:
    """Why a job that was wanted before is left as it is; None if it is to be taken up again."""
    state = JobState(row["state"])
    if state is JobState.PROVEN:
        return f"{kind} is proven already (to do it again, give another --iteration)"
    if state is JobState.QUARANTINED:
        return f"{kind} needs a person (`mover reco status RUN` says why, `mover reco retry RUN` does it again)"
    if state is not JobState.CANCELLED:
        return f"{kind} is under way already"
    if row["bundle_id"] is not None:
        return f"{kind} was given up after it had stored an output (give another --iteration)"
    if row["name"] is not None and row["batch"] is not None and not row["ended"]:
        return f"{kind} was cancelled, and the agent has not ended it yet (try again when it has)"
    return None

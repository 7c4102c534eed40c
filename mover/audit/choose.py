"""Which bundles an audit is about, and at which endpoints each is looked at."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mover.catalogue.audits import Candidate, candidates, last_good
from mover.catalogue.database import Database
from mover.config import Config
from mover.errors import CatalogueError, ConfigError
from mover.model import BundleKind
from mover.states import RunState
from mover.steps.standing import final_state

_SETTLED = {RunState.SAFE, RunState.RELEASED}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person asked for. Empty tuples mean all; `runs` are first and last numbers."""

    runs: tuple[tuple[int, int], ...] = ()
    endpoints: tuple[str, ...] = ()
    sample: int | None = None
    not_audited_for: timedelta | None = None
    deep: bool = False

    def __str__(self) -> str:
        """In words, for the report."""
        ranges = (f"{first}" if first == last else f"{first}-{last}" for first, last in self.runs)
        text = f"runs {', '.join(ranges)}" if self.runs else "all safe and released runs"
        if self.not_audited_for is not None:
            text += f" that were not found good for {self.not_audited_for.total_seconds() / 86400:g} days"
        if self.sample is not None:
            text = f"a sample of {self.sample} of {text}"
        return text + (f", at {', '.join(self.endpoints)}" if self.endpoints else "")


Target = tuple[int, tuple[str, ...]]


def choose(database: Database, config: Config, choice: Choice, *, now: datetime) -> list[Target]:
    """The bundles of the choice, by id, each with the endpoints where the catalogue says that it is proven.

    Without run numbers, only bundles that are said to be safe are chosen: what is still being moved is the engine's.

    Raises:
        CatalogueError: a run that was named has no bundle.
        ConfigError: an endpoint that was named is not configured.
    """
    if unknown := set(choice.endpoints) - config.places.keys():
        raise ConfigError(
            f"there is no endpoint {min(unknown)!r}", hint=f"the configuration has {', '.join(sorted(config.places))}"
        )
    all_of_them = candidates(database)
    chosen = [one for one in all_of_them if _is_meant(one, choice, config)]
    _check_named(choice.runs, chosen)
    if choice.not_audited_for is not None:
        good = last_good(database, deep=choice.deep)
        chosen = [one for one in chosen if not _is_fresh(good.get(one.bundle_id), now - choice.not_audited_for, now)]
    if choice.sample is not None and choice.sample < len(chosen):
        picked = set(secrets.SystemRandom().sample(range(len(chosen)), choice.sample))
        chosen = [one for number, one in enumerate(chosen) if number in picked]
    return [(one.bundle_id, tuple(_proven_at(one, config, choice.endpoints))) for one in chosen]


def _is_meant(one: Candidate, choice: Choice, config: Config) -> bool:
    if choice.runs:
        return any(first <= one.run <= last for first, last in choice.runs)
    if one.kind is BundleKind.RAW:
        return one.run_state in _SETTLED
    return bool(one.replicas) and len(list(_proven_at(one, config, ()))) == len(one.replicas)


def _check_named(runs: Sequence[tuple[int, int]], chosen: Iterable[Candidate]) -> None:
    numbers = {one.run for one in chosen}
    for first, last in runs:
        if not any(first <= number <= last for number in numbers):
            what = f"run {first} has" if first == last else f"runs {first} to {last} have"
            raise CatalogueError(
                f"{what} no bundle in the catalogue",
                hint="`mover status` lists the runs; what others stored, `mover adopt` takes into the catalogue",
            )


def _proven_at(one: Candidate, config: Config, only: Sequence[str]) -> Iterable[str]:
    """Where it is proven, as the catalogue says. Endpoints that are not configured any more cannot be asked."""
    for endpoint, state in one.replicas:
        place = config.places.get(endpoint)
        if place is not None and state is final_state(place.kind) and (not only or endpoint in only):
            yield endpoint


def _is_fresh(good: datetime | None, since: datetime, now: datetime) -> bool:
    # A time that is still to come was set by a clock that was wrong.
    return good is not None and since <= good <= now

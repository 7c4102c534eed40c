"""What a step on a job is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mover.catalogue.database import Database
from mover.catalogue.jobs import JobClaim, JobRecord
from mover.catalogue.runs import BundleRecord, bundle_of
from mover.config import Config
from mover.errors import ConfigError, NoSourceError
from mover.ports import BatchSystem, Clock, StorageEndpoint
from mover.reco.recalls import Recalls
from mover.recoconfig import JobConfig, RecoConfig


@dataclass(frozen=True, slots=True)
class JobWork:
    """One claimed job and everything that a step needs for it.

    `endpoints` has an adapter for each configured endpoint, for this worker alone. `alive()` is called often: it renews
    the claim, and raises when the work must stop. `recalls` takes note of what is waited for from tape.
    """

    database: Database
    claim: JobClaim
    job: JobRecord
    config: Config
    reco: RecoConfig
    batch: BatchSystem
    endpoints: Mapping[str, StorageEndpoint]
    clock: Clock
    alive: Callable[[], None]
    recalls: Recalls

    @property
    def settings(self) -> JobConfig:
        """The configuration of jobs of this kind.

        Raises:
            ConfigError: there is none any more.
        """
        found = self.config.job.of(self.job.key.kind)
        if found is None:
            raise ConfigError(
                f"the {self.job.key} was wanted by another configuration",
                hint=f"add [job.{self.job.key.kind}] again, or `mover reco cancel` it",
            )
        return found

    def raw(self) -> BundleRecord:
        """The bundle of the run's raw data, whose digests are known.

        Raises:
            NoSourceError: it is not known, or was never read.
        """
        found = bundle_of(self.database, self.job.key.run)
        if found is None or found.digest is None:
            raise NoSourceError(
                f"run {self.job.key.run} has no bundle whose digests are known",
                hint=f"`mover run show {self.job.key.run}` says what it waits for",
            )
        return found

    @property
    def output_lfn(self) -> str:
        """Where the output goes."""
        key = self.job.key
        steps = self.config.bundle.naming().steps
        return self.settings.output_lfn(key.run, key.release, key.iteration, steps)

    def directory(self, attempt: str) -> Path:
        """The attempt's own directory."""
        return self.reco.scratch / "jobs" / attempt


def attempt_name(job: JobRecord) -> str:
    """The name of the next attempt: unique for ever, and telling."""
    key = job.key
    return f"{key.kind}-{key.run:05d}-{job.id}-{job.attempts + 1}"

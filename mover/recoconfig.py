"""The reco agent's part of the configuration: `[reco]`, what runs where, and `[job]`, what must come out."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mover.errors import UnsafeNameError
from mover.model import BundleKind, check_name
from mover.naming import LfnNaming, Step, Template
from mover.reco.contract import OutputContract
from mover.reco.software import SoftwareConfig
from mover.tables import AbsolutePath, CredentialConfig, Name, Seconds, Table

_LFN_FIELDS = frozenset({"century", "step"})


class LocalBatchConfig(Table):
    """`[reco.batch]`, kind = "local": processes on this machine."""

    kind: Literal["local"]
    slots: int = Field(default=1, ge=1, le=256)


class SlurmBatchConfig(Table):
    """`[reco.batch]`, kind = "slurm": sbatch, squeue and sacct of this machine; scratch is shared with the nodes."""

    kind: Literal["slurm"]
    partition: Name
    account: Name | None = None
    config: AbsolutePath | None = None


class ArcBatchConfig(Table):
    """`[reco.batch]`, kind = "arc": an ARC compute element, which fetches and stores files itself."""

    kind: Literal["arc"]
    url: str
    queue: Name | None = None

    @model_validator(mode="after")
    def _url_is_usable(self) -> "ArcBatchConfig":
        if not self.url.startswith("https://") or set(self.url) & set("?#@ "):
            raise ValueError(f"url {self.url!r}: write https://host:port/arex, without user, query or fragment")
        return self


BatchConfig = Annotated[LocalBatchConfig | SlurmBatchConfig | ArcBatchConfig, Field(discriminator="kind")]


class RecoConfig(Table):
    """`[reco]`: which runs are reconstructed, by which software, where, and with how much patience.

    A run's jobs are wanted as soon as its raw bundle is proven at `endpoint`; its bytes are read from the first of
    `sources` that has it (default: `endpoint`, then the others in the order of the policy). With `find_new_seconds`,
    bundles that others store at `endpoint` are looked for so often, adopted, and reconstructed like others.
    """

    endpoint: Name
    kinds: tuple[Literal[BundleKind.RECO, BundleKind.MC], ...] = (BundleKind.RECO, BundleKind.MC)
    first_run: int = Field(default=0, ge=0)
    sources: tuple[Name, ...] = ()
    scratch: AbsolutePath
    scratch_bytes: int = Field(default=100_000_000_000, ge=1_000_000)
    batch: BatchConfig
    software: SoftwareConfig
    credential: CredentialConfig | None = None
    most_jobs: int = Field(default=8, ge=1, le=10_000)
    find_new_seconds: float | None = Field(default=None, ge=60, le=7 * 86_400)
    recall_ahead: int = Field(default=50, ge=0, le=10_000)
    workers: int = Field(default=2, ge=1, le=32)
    poll_seconds: Seconds = 10.0
    vanished_after_seconds: Seconds = 600.0
    silent_after_seconds: Seconds = 3600.0
    queue_seconds: int = Field(default=86_400, ge=1, le=30 * 86_400)
    first_retry_seconds: Seconds = 60.0
    longest_retry_seconds: Seconds = 7200.0
    failures_before_quarantine: int = Field(default=5, ge=1, le=100)
    kept_logs: int = Field(default=1000, ge=1)

    @property
    def ahead(self) -> int:
        """How many jobs of a campaign are considered at a time: those for which raw data is recalled from tape."""
        return max(self.recall_ahead, self.most_jobs)

    @model_validator(mode="after")
    def _is_consistent(self) -> "RecoConfig":
        if not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds must list 'reco' or 'mc' or both, each once")
        if self.longest_retry_seconds < self.first_retry_seconds:
            raise ValueError("longest_retry_seconds is shorter than first_retry_seconds")
        return self


@dataclass(frozen=True, slots=True)
class OutputName:
    """What the LFN of a job's output tells."""

    run: int
    release: str
    iteration: int


class JobConfig(Table):
    """`[job.reco]`, `[job.mc]`: the command, the file that it makes, its LFN, and what must be in it.

    `command` may use {bundle}, {run}, {iteration}, {release} and {output}; `lfn_again` is for iterations after the
    first.
    """

    command: tuple[str, ...] = Field(min_length=1)
    file: str = "{run:05d}_offline.tar"
    lfn: str
    lfn_again: str
    wall_seconds: int = Field(default=6 * 3600, ge=1, le=30 * 86_400)
    memory_mib: int = Field(default=2048, ge=16)
    output: OutputContract

    @model_validator(mode="after")
    def _names_are_usable(self) -> "JobConfig":
        try:
            check_name(self.output_file(1, 2))
            naming = Template.parse(self.lfn_again, required={"run", "release", "iteration"}, optional=_LFN_FIELDS)
            Template.parse(self.lfn, required={"run", "release"}, optional=_LFN_FIELDS | {"iteration"})
            for text in (self.lfn, naming.text):
                self.naming(text, (Step("step", 0),)).lfn(1, release="r", iteration=2)
        except UnsafeNameError as error:
            raise ValueError(error.message) from error
        return self

    def output_file(self, run: int, iteration: int) -> str:
        """The name of the file that the command makes."""
        return Template.parse(self.file, required={"run"}, optional=frozenset({"iteration"})).fill(
            run=run, iteration=iteration
        )

    def output_lfn(self, run: int, release: str, iteration: int, steps: tuple[Step, ...]) -> str:
        """The LFN of the output.

        Raises:
            UnsafeNameError: the release's name must not be used in one.
        """
        text = self.lfn if iteration == 1 else self.lfn_again
        return self.naming(text, steps).lfn(run, release=check_name(release), iteration=iteration)

    def output_of(self, lfn: str, steps: tuple[Step, ...]) -> "OutputName | None":
        """Whose output has this LFN; None if no job's has."""
        for text in (self.lfn, self.lfn_again):
            for values in self.naming(text, steps).values_of(lfn):
                name = OutputName(int(values["run"]), str(values["release"]), int(values.get("iteration", 1)))
                try:
                    if self.output_lfn(name.run, name.release, name.iteration, steps) == lfn:
                        return name
                except UnsafeNameError:
                    continue
        return None

    def output_folders(self, steps: tuple[Step, ...]) -> list[list[list[Template]]]:
        """What the folders of outputs may be called, as `LfnNaming.folder_patterns`: a list for each way."""
        ways = [self.naming(text, steps).folder_patterns() for text in (self.lfn, self.lfn_again)]
        return ways[:1] if ways[0] == ways[1] else ways

    @staticmethod
    def naming(text: str, steps: tuple[Step, ...]) -> LfnNaming:
        """The naming of a template of this kind."""
        fields = Template.parse(text, required={"run"}, optional=_LFN_FIELDS | {"release", "iteration"})
        return LfnNaming(fields, steps)


class JobsConfig(Table):
    """`[job]`: one table for each kind of job."""

    reco: JobConfig | None = None
    mc: JobConfig | None = None

    def of(self, kind: BundleKind) -> JobConfig | None:
        """The table of that kind."""
        found: JobConfig | None = getattr(self, kind)
        return found

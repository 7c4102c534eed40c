"""The configuration: TOML read into frozen models; everything that is wrong is said at once, with its key."""

import tomllib
from collections.abc import Iterator
from hashlib import sha256
from ipaddress import ip_address
from os.path import normpath
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from mover.errors import ConfigError, UnsafeNameError
from mover.location import Location
from mover.model import BundleKind, EndpointKind
from mover.naming import LfnNaming, RunNaming, Step, Template, TemplateError
from mover.policy import Policy
from mover.recoconfig import JobsConfig, RecoConfig
from mover.tables import AbsolutePath, CredentialConfig, Name, Seconds, Table, plain_name

_MOST_BYTES = 1 << 20
SCHEMES = ("root", "roots", "davs", "gsiftp", "file")


class RunsConfig(Table):
    """`[runs]`: where the DAQ writes, how its files are named, and when a run has ended."""

    directory: AbsolutePath
    part: str = "{run:05d}.{part:03d}"
    marker: str = "{run:05d}.end"
    format: Literal["date", "opaque"] = "date"
    first_part: int = Field(default=0, ge=0)
    poll_seconds: Seconds = 2.0

    @model_validator(mode="after")
    def _templates_parse(self) -> "RunsConfig":
        self.naming()
        return self

    def naming(self) -> RunNaming:
        """The names of parts and markers."""
        naming = RunNaming(
            Template.parse(self.part, required={"run", "part"}), Template.parse(self.marker, required={"run"})
        )
        prefix = naming.part.text.split("{part", maxsplit=1)[0]
        if "{run" not in prefix or prefix.endswith("}"):
            raise TemplateError(f"{self.part!r}: {{run}} must come first, and a separator between it and {{part}}")
        for name in (naming.part_name(1, 0), naming.marker_name(1)):
            plain_name(name)
        if naming.part_number(1, naming.marker_name(1)) is not None:
            raise TemplateError(f"the marker {self.marker!r} looks like a part {self.part!r}")
        return naming


class StepConfig(Table):
    """`[[bundle.step]]`: a period of the experiment, for the LFN."""

    name: Name
    first_run: int = Field(ge=0)


class BundleConfig(Table):
    """`[bundle]`: what a run is packaged into and under which LFN."""

    lfn: str
    step: tuple[StepConfig, ...] = ()
    digests: tuple[Literal["sha256", "md5"], ...] = ("sha256", "md5")

    @model_validator(mode="after")
    def _is_consistent(self) -> "BundleConfig":
        if "sha256" not in self.digests or len(set(self.digests)) != len(self.digests):
            raise ValueError("digests must list 'sha256' once, and may list 'md5' once")
        naming = self.naming()
        if ("step" in naming.template.fields) != bool(self.step):
            raise ValueError("give [[bundle.step]] tables if, and only if, the lfn has {step}")
        try:
            naming.lfn(min((one.first_run for one in self.step), default=0))
        except UnsafeNameError as error:
            raise ValueError(f"lfn {self.lfn!r}: {error.message}") from error
        return self

    @model_validator(mode="after")
    def _steps_differ(self) -> "BundleConfig":
        if len({one.first_run for one in self.step}) != len(self.step):
            raise ValueError("two [[bundle.step]] begin with the same first_run")
        if len({one.name for one in self.step}) != len(self.step):
            raise ValueError("two [[bundle.step]] have the same name")
        return self

    def naming(self) -> LfnNaming:
        """The LFNs of bundles."""
        template = Template.parse(self.lfn, required={"run"}, optional=frozenset({"century", "step"}))
        return LfnNaming(template, tuple(Step(one.name, one.first_run) for one in self.step))


class EndpointConfig(Table):
    """`[[endpoint]]`: a storage element that bundles go to."""

    name: Name
    site: Name
    kind: EndpointKind
    url: str
    source: Literal["tpc", "local"] = "tpc"
    third_party_copy: bool = True
    checksums: tuple[Literal["adler32"], ...] = ("adler32",)
    streams: int = Field(default=1, ge=1, le=32)
    limit_bytes_per_second: int | None = Field(default=None, ge=1_000_000)
    stall_timeout_seconds: Seconds = 120.0
    checksum_timeout_seconds: Seconds = 1800.0
    archive_poll_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _url_is_usable(self) -> "EndpointConfig":
        parts = urlsplit(self.url)
        # First, so that no other message shows a password.
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"url at {parts.hostname}: no user, password, query or fragment may be in it")
        if parts.scheme not in SCHEMES:
            raise ValueError(f"url {self.url!r}: the scheme must be one of {', '.join(SCHEMES)}")
        if parts.scheme == "file":
            if parts.hostname or self.kind is EndpointKind.TAPE:
                raise ValueError(f"url {self.url!r}: write file:///path, and use it for a disk only")
            return self
        if parts.scheme == "gsiftp" and self.kind is EndpointKind.TAPE:
            raise ValueError(f"url {self.url!r}: gsiftp tells nothing of tapes; use root, roots or davs")
        try:
            Location.parse(self.url, parts.scheme)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.hint}") from error
        if self.checksum_timeout_seconds * 2 < self.stall_timeout_seconds:
            raise ValueError("checksum_timeout_seconds is much shorter than stall_timeout_seconds")
        return self

    @property
    def place(self) -> str:
        """The URL in a form that is equal for every way to write the same place."""
        if self.scheme == "file":
            return f"file://{normpath(urlsplit(self.url).path)}"
        return str(Location.parse(self.url, self.scheme).canonical())

    @property
    def scheme(self) -> str:
        """The URL's scheme."""
        return urlsplit(self.url).scheme


class PolicyConfig(Table):
    """`[policy.raw]`, `[policy.reco]`, `[policy.mc]`: where bundles of that kind go, and what must be proven."""

    tapes: int = Field(default=2, ge=0)
    tape_sites: int = Field(default=2, ge=0)
    disks: int = Field(default=1, ge=0)
    endpoints: tuple[Name, ...] | None = None
    optional: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> "PolicyConfig":
        if self.tapes + self.disks == 0:
            raise ValueError("asks for no replica at all, so that every run would be safe at once")
        if self.tape_sites > self.tapes:
            raise ValueError("tape_sites cannot be more than tapes")
        if self.endpoints is not None and len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError("endpoints names one twice")
        return self

    def faults(self, endpoints: tuple[EndpointConfig, ...]) -> Iterator[str]:
        """What keeps these endpoints from ever satisfying it."""
        names = {one.name for one in endpoints}
        wanted = names if self.endpoints is None else set(self.endpoints)
        if unknown := wanted - names:
            yield f"there is no endpoint {min(unknown)!r}"
        if unknown := set(self.optional) - wanted:
            yield f"{min(unknown)!r} is optional, but not among the endpoints"
        needed = [one for one in endpoints if one.name in wanted - set(self.optional)]
        tapes = [one for one in needed if one.kind is EndpointKind.TAPE]
        have = (len(tapes), len({one.site for one in tapes}), len(needed) - len(tapes))
        want = (self.tapes, self.tape_sites, self.disks)
        for what, there, wants in zip(("tapes", "tape sites", "disks"), have, want, strict=True):
            if there < wants:
                yield f"wants {wants} {what}, but the endpoints (without optional ones) are only {there}"


class PoliciesConfig(Table):
    """`[policy]`: one table for each kind of bundle that is made here."""

    raw: PolicyConfig = PolicyConfig()
    reco: PolicyConfig | None = None
    mc: PolicyConfig | None = None


class ReleaseConfig(Table):
    """`[release]`: when the local files of a safe run go, if it is left to the engine."""

    automatic: bool = False
    retention_hours: float = Field(default=168.0, ge=0, le=10 * 366 * 24)
    hurry_at_percent: float = Field(default=80.0, gt=0, le=100)


class EngineConfig(Table):
    """`[engine]`: patience and limits of the daemon."""

    lease_seconds: Seconds = 3600.0
    first_retry_seconds: Seconds = 10.0
    longest_retry_seconds: Seconds = 1800.0
    rejections_before_quarantine: int = Field(default=3, ge=1, le=100)
    order: Literal["oldest-first", "newest-first"] = "oldest-first"
    failures_before_pause: int = Field(default=3, ge=1, le=100)
    first_probe_seconds: Seconds = 30.0
    longest_probe_seconds: Seconds = 600.0

    @model_validator(mode="after")
    def _longest_is_longest(self) -> "EngineConfig":
        for what in ("retry", "probe"):
            first, longest = getattr(self, f"first_{what}_seconds"), getattr(self, f"longest_{what}_seconds")
            if longest < first:
                raise ValueError(f"longest_{what}_seconds ({longest:g}) is less than first_{what}_seconds ({first:g})")
        return self


Hours = Annotated[float, Field(gt=0, le=366 * 24)]


class AlarmsConfig(Table):
    """`[alarms]`: how long each thing may take before somebody should know of it."""

    move_hours: Hours = 6.0
    tape_hours: Hours = 48.0
    backlog_hours: Hours = 720.0
    release_hours: Hours = 24.0
    job_hours: Hours = 24.0
    endpoint_minutes: float = Field(default=60.0, ge=0, le=7 * 24 * 60)
    full_percent: float = Field(default=95.0, gt=0, le=100)


class MetricsConfig(Table):
    """`[metrics]`: where the engine serves Prometheus metrics; nowhere by default, and only on loopback."""

    listen: str | None = None

    @model_validator(mode="after")
    def _is_on_loopback(self) -> "MetricsConfig":
        if self.listen is not None:
            self.address()
        return self

    def address(self) -> tuple[str, int]:
        """Host and port of `listen`.

        Raises:
            ValueError: it is none, or not on loopback.
        """
        host, _, port = (self.listen or "").rpartition(":")
        try:
            is_loopback = ip_address(host.strip("[]")).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"listen {self.listen!r}: write a loopback address and a port, such as 127.0.0.1:9464")
        return host.strip("[]"), int(port)


class Config(Table):
    """The whole of mover.toml."""

    experiment: Name
    catalogue: AbsolutePath
    runs: RunsConfig
    bundle: BundleConfig
    credential: CredentialConfig = CredentialConfig()
    endpoint: tuple[EndpointConfig, ...]
    policy: PoliciesConfig = PoliciesConfig()
    engine: EngineConfig = EngineConfig()
    release: ReleaseConfig = ReleaseConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    metrics: MetricsConfig = MetricsConfig()
    reco: RecoConfig | None = None
    job: JobsConfig = JobsConfig()

    @model_validator(mode="after")
    def _endpoints_can_satisfy_the_policy(self) -> "Config":
        if self.catalogue.parent == self.runs.directory:
            raise ValueError("catalogue: put it elsewhere than into runs.directory, which is the DAQ's")
        names = [one.name for one in self.endpoint]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two endpoints have the name {min(twice)!r}")
        places = [one.place for one in self.endpoint]
        if twice := {one.url for one in self.endpoint if places.count(one.place) > 1}:
            raise ValueError(f"two endpoints are the same place, {min(twice)!r}: one copy would count as two")
        longest = max((one.checksum_timeout_seconds for one in self.endpoint), default=0)
        if self.engine.lease_seconds <= longest:
            raise ValueError(
                f"engine.lease_seconds must be more than every checksum_timeout_seconds ({longest:.0f}), "
                "or another engine could take over work that is waiting for a checksum"
            )
        for kind in BundleKind:
            policy: PolicyConfig | None = getattr(self.policy, kind)
            for fault in policy.faults(self.endpoint) if policy else ():
                raise ValueError(f"[policy.{kind}] {fault}")
        return self

    @model_validator(mode="after")
    def _jobs_can_be_done(self) -> "Config":
        for fault in self._reco_faults():
            raise ValueError(f"[reco] {fault}")
        return self

    def _reco_faults(self) -> Iterator[str]:
        """What keeps the reco agent from ever proving an output."""
        if self.reco is None:
            return
        for name in (self.reco.endpoint, *self.reco.sources):
            if name not in self.places:
                yield f"there is no endpoint {name!r}"
        if self.reco.scratch.is_relative_to(self.runs.directory):
            yield "scratch: put it elsewhere than into runs.directory, which is the DAQ's"
        for kind in self.reco.kinds:
            job = self.job.of(kind)
            if job is None:
                yield f"kinds has {str(kind)!r}: add the table [job.{kind}]"
            elif self.runs.format == "opaque" and any(tree.entries_from for tree in job.output.tree):
                yield f"[job.{kind}] has entries_from, but nobody can count events of a format that is 'opaque'"
            if self.policy_of(kind) is None:
                yield f"kinds has {str(kind)!r}: add [policy.{kind}], where its output is to go"

    def policy_of(self, kind: BundleKind) -> Policy | None:
        """The replica policy for bundles of that kind; None if none is declared."""
        found: PolicyConfig | None = getattr(self.policy, kind)
        return self._policy(found) if found else None

    def raw_policy(self) -> Policy:
        """The replica policy for raw data, which is always declared."""
        return self._policy(self.policy.raw)

    def _policy(self, found: PolicyConfig) -> Policy:
        names = found.endpoints or tuple(one.name for one in self.endpoint)
        return Policy(found.tapes, found.tape_sites, found.disks, names, frozenset(found.optional))

    @property
    def places(self) -> dict[str, EndpointConfig]:
        """The endpoints by name."""
        return {one.name: one for one in self.endpoint}

    def digest(self) -> str:
        """The sha256 of all values: equal for files that say the same, whatever their layout and comments."""
        return sha256(self.model_dump_json().encode()).hexdigest()


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read or parsed, or values are wrong; the message has a line for each fault.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"{path} is no configuration: it is over 1 MiB", hint="give the right file")
        raw = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="give the configuration with `mover --config FILE`"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="mend the line named; see https://toml.io") from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        faults = [f"{_key(fault['loc'])}: {_say(fault['type'], fault['msg'])}" for fault in error.errors()]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError(
            f"{path} has {count}:\n" + "\n".join(f"  {fault}" for fault in faults),
            hint=f"mend them, then run `mover --config {path} config check`",
        ) from error


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for step in location:
        key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else step
    return key or "the whole file"


def _say(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key; remove it or mend its spelling"
    if kind == "missing":
        return "missing; add it"
    return message.removeprefix("Value error, ")

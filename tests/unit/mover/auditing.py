"""What the tests of audits, adoption and rebuilding share: safe runs in memory, and an audit of them."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from mover.audit.auditor import Auditor, Progress
from mover.audit.choose import Choice, choose
from mover.audit.replica import Limits
from mover.audit.report import Report, make_report, replica_outcome
from mover.catalogue.audits import Audit, Outcome, begin_audit, get_audit
from mover.catalogue.runs import record_run_event
from mover.pace import Pace
from mover.ports import StorageEndpoint
from mover.states import RunEvent
from tests.unit.mover.bench import NOW, Bench, FixedClock
from tests.unit.mover.running import add_run, work


def add_safe_runs(bench: Bench, runs: Iterable[int]) -> None:
    """Take runs all the way, as lanes and engine do."""
    for run in runs:
        add_run(bench, run)
        for endpoint in ("tape", "disk"):
            work(bench, endpoint, FixedClock())
        record_run_event(bench.catalogue, run, RunEvent.POLICY_HOLDS, now=NOW)


def foreign_bundle(parts: dict[str, bytes], run: int = 1234) -> bytes:
    """A bundle as it was made before us: GNU tar, the parts, and their md5 digests."""
    lines = (f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {name}\n" for name, data in parts.items())
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in {**parts, f"{run:05d}.md5": "".join(lines).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def limits(*, pace: Pace | None = None, stage_seconds: float = 0.0) -> Limits:
    """No limits, and no patience."""
    return Limits(pace or Pace(None), threading.Event(), stage_seconds=stage_seconds)


def begin(bench: Bench, choice: Choice, *, now: datetime = NOW) -> Audit:
    """Write an audit down, as `mover audit` does."""
    targets = choose(bench.catalogue, bench.config, choice, now=now)
    whole = not choice.endpoints
    return begin_audit(bench.catalogue, targets, deep=choice.deep, whole=whole, chosen=str(choice), now=now)


def go_on(
    bench: Bench,
    audit: Audit,
    *,
    slowed: Limits | None = None,
    observe: Callable[[Progress], None] = lambda _: None,
    endpoints: Mapping[str, StorageEndpoint] | None = None,
) -> Report:
    """Work an audit off."""
    auditor = Auditor(
        bench.config,
        audit,
        lambda: endpoints or bench.endpoints,
        FixedClock(),
        slowed or limits(),
        observe=observe,
        retry_seconds=(0.0, 0.0),
    )
    auditor.run(bench.catalogue)
    return make_report(bench.catalogue, get_audit(bench.catalogue, audit.id))


def audited(bench: Bench, choice: Choice = Choice(), *, now: datetime = NOW, **options: Limits) -> Report:  # noqa: B008 - frozen
    """The report of a whole audit."""
    return go_on(bench, begin(bench, choice, now=now), slowed=options.get("slowed"))


def found_at(report: Report, endpoint: str) -> tuple[Outcome, str]:
    """What the audit of a single bundle found there: the outcome, and all its sentences."""
    (bundle,) = report.bundles
    one = next(one for one in bundle.replicas if one.endpoint == endpoint)
    return replica_outcome(one), "; ".join(finding.text for finding in one.findings)

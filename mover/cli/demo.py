"""`mover demo`: a whole site on loopback, one run from its last byte to proven outputs, and nothing left behind."""

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console

from mover.catalogue.database import Database
from mover.catalogue.replicas import replicas_of
from mover.catalogue.runs import bundle_of
from mover.cli.demo_packages import need_packages
from mover.cli.demo_reco import DemoReco, reconstructing
from mover.cli.progress import Display
from mover.cli.ranges import Number
from mover.cli.tables import console, size, table
from mover.cli.waiting import wait_until_safe
from mover.config import Config, RunsConfig, load_config
from mover.engine import Engine
from mover.errors import NotSafeError, RunIncompleteError
from mover.lane import OpenEndpoints
from mover.model import EndpointKind
from mover.ports import StorageEndpoint
from mover.sandbox.batches import BatchKind, batch_system, check_jobs_of
from mover.sandbox.reconstruction import Reconstruction
from mover.sandbox.service import RECO, are_separate
from mover.sandbox.site import ControlRoom, Site
from mover.sandbox.software import ReferenceSoftware
from mover.steps.recheck import recheck
from mover.steps.release import release_run
from mover.wiring import SystemClock, endpoint_factory

_DEMO_RUN = 4742
_RELEASE = "reference-1.0"
_Endpoints = dict[str, StorageEndpoint]


@click.command()
@click.option(
    "--run-files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE…",
    help="Move these part files of one run, instead of a generated run; also as arguments after the option.",
)
@click.argument("more_files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, metavar="[FILE…]")
@click.option("--no-reco", is_flag=True, help="End when the run is safe, without its reconstruction.")
@click.option(
    "--batch",
    type=click.Choice([kind.value for kind in BatchKind]),
    default=BatchKind.LOCAL.value,
    show_default=True,
    help="What runs the jobs: processes of our own, or a real cluster, started for the demo.",
)
@click.option("--install", is_flag=True, help="Install the Debian packages that --batch needs, without asking.")
@click.option("--release", is_flag=True, help="Remove the local files of the run once it is safe.")
@click.option("--keep", is_flag=True, help="Leave the site up, and say how to talk to it, until Ctrl-C.")
@click.option("--deadline", type=Number(min=1, max=86400), default=300.0, show_default=True, help="Seconds to wait.")
def demo(
    run_files: tuple[Path, ...],
    more_files: tuple[Path, ...],
    *,
    no_reco: bool,
    batch: str,
    install: bool,
    release: bool,
    keep: bool,
    deadline: float,
) -> None:
    """Bring up a site on loopback and move one run: dongles, proxies, two tapes, a disk, all real; then reconstruct it.

    The reconstruction is done by a reference application, which is not MAUS, but keeps the same contract.

    \b
    Examples:
      mover demo
      mover demo --run-files 06008.000 --release
      mover demo --batch arc
    """
    if more_files and not run_files:
        raise click.UsageError("name files after --run-files")
    files = run_files + more_files
    run = _run_of(files)
    kind = BatchKind(batch)
    if not no_reco:
        check_jobs_of(kind, Path(tempfile.gettempdir()).resolve())
        need_packages(kind, install=install)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C does: end everything and clean up.
        signal.signal(number, signal.default_int_handler)
    base = Path(tempfile.mkdtemp(prefix="mover-demo-"))
    say = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        say.print(f"a site on loopback in {base}: CA, two dongles, agent, two tapes, a disk …")
        with Site(base) as site, ExitStack() as stack:
            for dongle in (site.dongle, site.reco_dongle):
                say.print(f"a dongle has signed a session proxy for {dongle.certificate.subject.rfc4514_string()}")
            reconstruction = None
            if not no_reco:
                settings = stack.enter_context(batch_system(kind, base / "batch", site.ca))
                reconstruction = Reconstruction(_software(base), settings)
            room = site.control_room(base / "control-room", reconstruction=reconstruction)
            config = load_config(room.config_path)
            reco = None
            if not no_reco:
                reco = stack.enter_context(reconstructing(room, config, say))
                say.print(_service(kind))
            if files:
                room.daq.copy_run(files)
            else:
                room.daq.write_run(run)
            say.print(f"the DAQ has written run {run}")
            _move_run(room, config, run, say, reco, deadline_seconds=deadline, release=release)
            if keep:
                _stay_up(site, room, say)
    finally:
        shutil.rmtree(base)


def _run_of(files: Sequence[Path]) -> int:
    """The number of the run whose parts the files are.

    Raises:
        RunIncompleteError: they are not the parts of one run, each given once.
    """
    if not files:
        return _DEMO_RUN
    naming = RunsConfig(directory=Path("/")).naming()
    found = [naming.part.match(file.name) for file in files]
    numbers = {values["run"] for values in found if values}
    plain = all(file.is_file() for file in files)
    if None in found or not plain or len(numbers) != 1 or len({file.name for file in files}) != len(files):
        raise RunIncompleteError(
            "the files given are not the parts of one run, each given once",
            hint=f"parts are plain files, named like {naming.part_name(_DEMO_RUN, 0)}: run, point, part",
        )
    return numbers.pop()


def _software(base: Path) -> ReferenceSoftware:
    software = ReferenceSoftware(base / "software")
    software.install(_RELEASE)
    software.approve(_RELEASE)
    return software


def _service(kind: BatchKind) -> str:
    who = (
        f"in group {RECO.group}, for which the agent has the reco profile and no other" if are_separate() else "as you"
    )
    return f"`mover reco agent` runs {who}; jobs run by {kind}"


def _move_run(
    room: ControlRoom,
    config: Config,
    run: int,
    say: Console,
    reco: DemoReco | None,
    *,
    deadline_seconds: float,
    release: bool,
) -> None:
    open_endpoints = endpoint_factory(config)
    endpoints = open_endpoints()
    database = Database(config.catalogue, create=True)
    try:
        with _engine(config, open_endpoints, say):
            room.daq.end_run(run)
            ended = time.monotonic()
            say.print(f"end of run {run} is signalled")
            wait_until_safe(database, run, deadline_seconds=deadline_seconds)
            seconds = time.monotonic() - ended
        assessment = recheck(database, config, run, endpoints)
        out = console()
        _show_result(out, database, config, run, endpoints)
        out.print(f"{assessment}, asked of the storage itself")
        out.print(f"{seconds:.1f} s from end of run to safe")
        if release:
            release_run(database, config, run, endpoints, clock=SystemClock())
            out.print(f"the local files of run {run} are removed")
        else:
            out.print(f"the local files of run {run} may go")
        if reco is not None:
            reco.wait_until_kept(database, run, deadline_seconds=deadline_seconds)
            seconds = time.monotonic() - ended
            reco.show(out, database, run, endpoints)
            out.print("each output was read back from the storage and holds what its contract asks for")
            out.print(f"{seconds:.1f} s from end of run to reconstructed, proven and on tape")
    finally:
        database.close()
        for endpoint in endpoints.values():
            endpoint.close()


@contextmanager
def _engine(config: Config, open_endpoints: OpenEndpoints, say: Console) -> Iterator[None]:
    """The engine on a thread of its own, with its progress shown."""
    with Display(config, say) as display:
        engine = Engine(config, open_endpoints, SystemClock(), observe=display.observe)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                engine.run()
            except BaseException as error:  # raised again below
                failures.append(error)

        thread = threading.Thread(target=work, name="engine")
        thread.start()
        try:
            yield
        finally:
            engine.stop()
            thread.join()
        if failures:
            raise failures[0]


def _show_result(out: Console, database: Database, config: Config, run: int, endpoints: _Endpoints) -> None:
    """The table of what is where, and the SURLs, which are too long for it."""
    bundle = bundle_of(database, run)
    if bundle is None or bundle.digest is None:
        raise NotSafeError(f"run {run} has no bundle that was read", hint="look at the engine's log")
    lfn, digest = bundle.lfn, bundle.digest
    kinds = {one.name: one.kind for one in config.endpoint}
    rows, surls = [], []
    for replica in replicas_of(database, run):
        endpoint = endpoints[replica.endpoint]
        tape = kinds[endpoint.name] is EndpointKind.TAPE
        on_tape = ("yes" if endpoint.on_tape(lfn) else "no") if tape else "disk"
        since = replica.since.strftime("%H:%M:%SZ")
        rows.append((str(run), lfn, size(digest.size_bytes), digest.adler32, endpoint.name, since, on_tape))
        surls.append(f" {endpoint.name:<14} {endpoint.url(lfn)}")
    out.print(table(("run", "bundle", "size", "adler32", "where", "since", "on tape"), rows))
    out.print("\n".join(surls), soft_wrap=True)
    out.print()


def _stay_up(site: Site, room: ControlRoom, say: Console) -> None:
    say.print(
        f"""
the site stays up until Ctrl-C; talk to it with
  mover --config {room.config_path} status
  mover --config {room.config_path} engine
  mover --config {room.config_path} reco status
  proxyagent --config {site.agent.config} status
  X509_CERT_DIR={site.ca.directory} proxyagent --config {site.agent.config} exec -- \\
    xrdfs {site.tape_ral.root_url} ls -R /tape
take a run: write its parts to {room.run_directory}, then touch NNNNN.end there, with the engine running""",
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        say.print("the site goes down")

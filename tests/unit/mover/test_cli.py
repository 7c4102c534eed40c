"""The command line: bad input gets a clear error and its exit code, and nothing is lost."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mover.cli.main import Commands, cli
from mover.errors import StorageError
from mover.sandbox.daq import DaqWriter, event

RUN = 4742
Mover = Callable[..., Result]


@pytest.fixture
def daq(tmp_path: Path) -> DaqWriter:
    """Where the DAQ writes."""
    directory = tmp_path / "daq"
    directory.mkdir()
    return DaqWriter(directory)


@pytest.fixture
def mover(tmp_path: Path, daq: DaqWriter) -> Mover:
    """The command, with a configuration of one file endpoint."""
    (tmp_path / "disk").mkdir()
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{tmp_path}/catalogue.sqlite"\n'
        f'[runs]\ndirectory = "{daq.directory}"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["--config", str(config), *arguments])
        assert "Traceback" not in result.output
        return result

    return run


def _assert_refused(result: Result, exit_code: int, said: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert f"error: {said}" in result.stderr
    assert "\nhint: " in result.stderr


def _missing_part(daq: DaqWriter) -> None:
    (daq.directory / "04742.001").unlink()


def _cut_short(daq: DaqWriter) -> None:
    with (daq.directory / "04742.002").open("r+b") as file:
        file.truncate(1000)


def _wrong_run(daq: DaqWriter) -> None:
    (daq.directory / "04742.001").write_bytes(event(1, 7, 0, 0))


def _no_end(daq: DaqWriter) -> None:
    (daq.directory / "04742.002").unlink()


def _empty(daq: DaqWriter) -> None:
    (daq.directory / "04742.001").write_bytes(b"")


@pytest.mark.parametrize("spoil", [_missing_part, _cut_short, _wrong_run, _no_end, _empty])
def test_an_incomplete_run_is_quarantined_shown_and_can_be_forced(
    mover: Mover, daq: DaqWriter, spoil: Callable[[DaqWriter], None]
) -> None:
    daq.write_run(RUN, parts=3, part_bytes=10_000)
    spoil(daq)
    before = {path.name: path.read_bytes() for path in daq.directory.iterdir()}
    _assert_refused(mover("run", "close", str(RUN)), 4, "run 4742 is not complete: ")
    assert "quarantined" in mover("status").output
    assert "problem: run 4742 is not complete" in mover("run", "show", str(RUN)).output
    _assert_refused(mover("run", "wait", str(RUN)), 4, "run 4742 is not complete")
    _assert_refused(mover("release", str(RUN)), 9, "run 4742 is quarantined")
    assert {path.name: path.read_bytes() for path in daq.directory.iterdir()} == before
    assert mover("run", "close", str(RUN), "--force").output == "run 4742: planned\n"


def test_what_is_unsafe_cannot_be_forced(mover: Mover, daq: DaqWriter) -> None:
    daq.write_run(RUN, parts=1, part_bytes=10_000)
    (daq.directory / "04742.001").symlink_to("/etc/passwd")
    for force in ((), ("--force",)):
        _assert_refused(mover("run", "close", str(RUN), *force), 4, "04742.001 is a symlink")
    (daq.directory / "04742.001").unlink()
    (daq.directory / "04742.\x1b[2J").touch()
    refused = mover("run", "close", str(RUN), "--force")
    _assert_refused(refused, 4, "unsafe file name")
    assert "\x1b" not in refused.output


def test_a_run_that_never_was(mover: Mover) -> None:
    _assert_refused(mover("run", "close", "7"), 4, "run 7 has no part in ")
    _assert_refused(mover("run", "show", "8"), 5, "run 8 is not in the catalogue")
    _assert_refused(mover("run", "retry", "8"), 5, "run 8 is not in the catalogue")
    _assert_refused(mover("run", "wait", "8", "--deadline", "0"), 9, "run 8 is not safe after 0 s: it is not closed")


def test_looking_at_a_catalogue_that_is_not_there_does_not_make_one(mover: Mover, tmp_path: Path) -> None:
    for arguments in (("status",), ("bundle", "list"), ("run", "show", "7")):
        _assert_refused(mover(*arguments), 5, "cannot open the catalogue")
    assert not (tmp_path / "catalogue.sqlite").exists()


@pytest.mark.parametrize("number", ["-1", "x", "4742x", "99999999999999999999"])
def test_run_numbers_that_are_none_are_refused(mover: Mover, number: str) -> None:
    assert mover("run", "show", "--", number).exit_code == 2


def test_a_run_directory_that_is_gone_quarantines_nothing(mover: Mover, daq: DaqWriter) -> None:
    daq.directory.rmdir()
    _assert_refused(mover("run", "close", str(RUN)), 4, "cannot open the run directory")
    assert str(RUN) not in mover("status").output


def test_bad_configurations_end_with_exit_code_3(tmp_path: Path) -> None:
    for arguments in (("config", "check"), ("status",), ("engine",), ("run", "close", "1")):
        missing = CliRunner().invoke(cli, ["--config", str(tmp_path / "none.toml"), *arguments])
        _assert_refused(missing, 3, "cannot read ")


def test_config_check_says_what_is_missing_on_this_machine_and_is_content_when_it_is_there(
    mover: Mover, tmp_path: Path
) -> None:
    config = tmp_path / "mover.toml"
    with config.open("a") as file:
        file.write(f'[credential]\nagent = "{tmp_path}/agent.sock"\nca_directory = "{tmp_path}/ca"\n')
    (tmp_path / "daq").rmdir()
    refused = mover("config", "check")
    _assert_refused(refused, 3, f"{config} is well-formed, but on this machine")
    for key in ("runs.directory: ", "credential.ca_directory: ", "credential.agent: "):
        assert f"\n  {key}" in refused.stderr
    assert mover("config", "check", "--only-file").exit_code == 0
    (tmp_path / "daq").mkdir()
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "01234567.0").touch()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent.sock"))
        checked = mover("config", "check")
    assert checked.exit_code == 0
    assert "is good: experiment MICE, 1 endpoints" in checked.output


@pytest.mark.parametrize("kind", ["device", "FIFO", "folder", "link to a device"])
def test_a_catalogue_that_can_be_none_is_refused_everywhere(mover: Mover, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "catalogue.sqlite"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
        path = Path("/dev/null") if kind == "device" else path
        config = tmp_path / "mover.toml"
        config.write_text(config.read_text().replace(f"{tmp_path}/catalogue.sqlite", str(path)))
    for command in (("status",), ("run", "close", str(RUN)), ("policy", "plan"), ("catalogue", "check")):
        _assert_refused(mover(*command), 5, f"the catalogue {path} is no plain file\n")
    assert f"\n  catalogue: {path} is no plain file\n" in mover("config", "check").stderr


@pytest.mark.parametrize(
    ("urls", "warned"),
    [
        (("root://SE.example.org//store/mice/", "davs://se.example.org:2880/store/mice"), True),
        (("root://se.example.org:1094//store", "root://se.example.org:1095//store"), True),
        (("root://se.example.org//store", "davs://se2.example.org/store"), False),
        (("root://se.example.org//store", "davs://se.example.org/store2"), False),
    ],
)
def test_endpoints_that_may_be_one_storage_are_warned_of(
    mover: Mover, tmp_path: Path, urls: tuple[str, str], warned: bool
) -> None:
    with (tmp_path / "mover.toml").open("a") as file:
        for number, url in enumerate(urls):
            file.write(f'[[endpoint]]\nname = "e{number}"\nsite = "s{number}"\nkind = "disk"\nurl = "{url}"\n')
    said = mover("config", "check").stderr.splitlines()
    warnings = [line for line in said if line.startswith("warning: ")]
    assert [line.partition(":")[2].partition(" have ")[0] for line in warnings] == [" e0 and e1"] * warned


def test_a_retry_of_a_quarantined_run_says_what_to_do_instead(mover: Mover, daq: DaqWriter) -> None:
    daq.write_run(RUN, parts=2, part_bytes=10_000)[1].unlink()
    mover("run", "close", str(RUN))
    refused = mover("run", "retry", str(RUN))
    _assert_refused(refused, 4, "run 4742 is not complete")
    assert "mover run close 4742" in refused.stderr


def test_orphans_shows_names_as_escapes_and_goes_on_where_there_is_no_proxy(
    mover: Mover, daq: DaqWriter, tmp_path: Path
) -> None:
    daq.write_run(RUN, parts=1, part_bytes=10_000)
    assert mover("run", "close", str(RUN)).exit_code == 0
    assert mover("orphans").stdout == "there is nothing but bundles\n"
    (tmp_path / "disk" / "MICE").mkdir()
    (tmp_path / "disk" / "MICE" / "a\x1b[2J\udcff").write_bytes(b"theirs")
    shown = mover("orphans")
    assert shown.exit_code == 0
    assert " disk       MICE/a\\x1b[2J\\udcff   6 B " in shown.stdout
    with (tmp_path / "mover.toml").open("a") as file:
        file.write('[[endpoint]]\nname = "a"\nsite = "there"\nkind = "disk"\nurl = "davs://localhost:1/x"\n')
        file.write(f'[credential]\nagent = "{tmp_path}/none.sock"\n')
    refused = mover("orphans")
    _assert_refused(refused, 8, "no Grid proxy")
    assert refused.stderr.startswith("not looked at: a: no Grid proxy")
    assert refused.stdout == shown.stdout
    with (tmp_path / "mover.toml").open("a") as file:
        file.write(f'[[endpoint]]\nname = "b"\nsite = "b"\nkind = "disk"\nurl = "file://{tmp_path}/unmounted"\n')
    text = (
        (tmp_path / "mover.toml").read_text().replace('url = "davs://localhost:1/x"', f'url = "file://{tmp_path}/no"')
    )
    (tmp_path / "mover.toml").write_text(text)
    refused = mover("orphans")
    _assert_refused(refused, 6, "not everything could be looked at")
    assert "not looked at: a: there is no " in refused.stderr
    assert "\nnot looked at: b: there is no " in refused.stderr


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(_commands(cli)), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


def test_a_retry_of_several_runs_does_nothing_if_one_of_them_cannot_be(mover: Mover, daq: DaqWriter) -> None:
    daq.write_run(RUN, parts=1, part_bytes=10_000)
    daq.write_run(RUN + 1, parts=2, part_bytes=10_000)[1].unlink()
    assert mover("run", "close", str(RUN)).exit_code == 0
    mover("run", "close", str(RUN + 1))
    refused = mover("run", "retry", str(RUN), str(RUN + 1))
    _assert_refused(refused, 4, "run 4743 is not complete")
    assert "taken up" not in refused.output


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "command",
    [
        ("run", "wait", str(RUN), "--deadline"),
        ("audit", "--limit-mb-per-second"),
        ("audit", "--pause"),
        ("audit", "--not-audited-for"),
        ("audit", "--stage-hours"),
        ("adopt", str(RUN), "--stage-hours"),
        ("catalogue", "rebuild", "--into", "new.sqlite", "--stage-hours"),
        ("demo", "--deadline"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(mover: Mover, command: tuple[str, ...], number: str) -> None:
    refused = mover(*command, number)
    assert refused.exit_code == 2, refused.output
    assert "Invalid value" in refused.stderr


def test_a_release_with_nothing_to_do_says_so_and_a_run_named_twice_is_one(mover: Mover, daq: DaqWriter) -> None:
    daq.write_run(RUN, parts=2, part_bytes=10_000)
    assert mover("run", "close", str(RUN)).exit_code == 0
    nothing = mover("release")
    assert (nothing.exit_code, nothing.stdout) == (0, "no run is due: none is safe, or all of them are still kept\n")
    _assert_refused(mover("release", str(RUN), str(RUN), "--now"), 9, "run 4742 is planned\n")


def test_adopting_a_range_says_how_many_are_stored_nowhere(mover: Mover) -> None:
    found = mover("adopt", "5000-5002")
    assert (found.exit_code, found.stderr) == (0, "3 of 3 runs are stored nowhere\n")


def test_a_run_directory_without_any_run_is_not_believed_by_rebuild(
    mover: Mover, daq: DaqWriter, tmp_path: Path
) -> None:
    """As if its disk were not mounted: all runs would count as released."""
    into = tmp_path / "new.sqlite"
    (daq.directory / "lost+found").mkdir()
    refused = mover("catalogue", "rebuild", "--into", str(into))
    _assert_refused(refused, 4, "no file of any run is in ")
    assert not into.exists()
    assert mover("catalogue", "rebuild", "--into", str(into), "--no-local-files").stdout == f"0 runs are in {into}\n"
    daq.write_run(RUN, parts=1, part_bytes=10_000)
    assert mover("catalogue", "rebuild", "--into", str(tmp_path / "other.sqlite")).exit_code == 0


@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"", "is empty", "restore a backup"),
        (b"something else" * 500, "file is not a database", "it is damaged: stop the engine"),
    ],
)
def test_a_catalogue_that_is_none_is_told_from_a_missing_one_and_left_alone(
    mover: Mover, tmp_path: Path, content: bytes, said: str, hint: str
) -> None:
    (tmp_path / "catalogue.sqlite").write_bytes(content)
    for command in (("status",), ("release",), ("policy", "apply"), ("run", "retry", str(RUN))):
        refused = mover(*command)
        assert refused.exit_code == 5, refused.output
        assert said in refused.stderr
        assert f"hint: {hint}" in refused.stderr
    assert (tmp_path / "catalogue.sqlite").read_bytes() == content


def _invoked(*arguments: str, raising: BaseException) -> Result:
    """What comes of a command that raises this."""

    def call() -> None:
        raise raising

    group = Commands("mover", params=[click.Option(["--verbose"], is_flag=True)])
    group.add_command(click.Command("call", callback=call))
    return CliRunner().invoke(group, [*arguments, "call"])


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_ctrl_c_ends_it_quietly_in_a_call_of_a_c_library_too() -> None:
    chain = _caused(SystemError("import"), KeyboardInterrupt())
    odd = _caused(SystemError("<Boost.Python.function object> returned a result"), chain)
    for error in (KeyboardInterrupt(), odd):
        ended = _invoked(raising=error)
        assert (ended.exit_code, ended.output) == (130, "")


def test_a_foreign_text_in_an_error_does_not_reach_the_terminal() -> None:
    refused = _invoked("--verbose", raising=StorageError("it said \x1b[2J", hint="do not \x9b2J"))
    assert "error: it said \\x1b[2J\nhint: do not \\x9b2J\n" in refused.stderr
    assert "\x1b" not in refused.stderr


def test_an_unexpected_error_shows_where_it_came_from_when_asked() -> None:
    brief = _invoked(raising=ValueError("odd"))
    assert (brief.exit_code, "error: unexpected ValueError: odd\nhint: " in brief.stderr) == (1, True)
    assert "Traceback" not in brief.stderr
    assert "in call\n    raise raising\nValueError: odd\n" in _invoked("--verbose", raising=ValueError("odd")).stderr


def test_runs_that_are_told_to_have_ended_are_closed_or_recorded_for_a_person(
    mover: Mover, daq: DaqWriter, tmp_path: Path
) -> None:
    daq.write_run(RUN)
    told = tmp_path / "ended"
    told.mkdir()
    for run in (RUN, RUN + 1):
        (told / str(run)).touch()
    result = mover("run", "close-told", str(told))
    assert result.exit_code == 0, result.output
    assert f"run {RUN}: planned" in result.stdout
    assert f"run {RUN + 1}: needs a person: " in result.stdout
    assert list(told.iterdir()) == []
    # A file was made for it, so it is no slip of the keyboard: it is not forgotten.
    assert "quarantined" in mover("run", "show", str(RUN + 1)).output


def test_a_run_that_cannot_be_closed_now_stays_told(mover: Mover, daq: DaqWriter, tmp_path: Path) -> None:
    told = tmp_path / "ended"
    told.mkdir()
    (told / str(RUN)).touch()
    daq.directory.rename(tmp_path / "not mounted")
    _assert_refused(mover("run", "close-told", str(told)), 4, "")
    assert [path.name for path in told.iterdir()] == [str(RUN)]

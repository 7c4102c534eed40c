"""`mover custody` and `mover catalogue`: what they say, and their exit codes."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.cli.main import cli
from mover.sandbox.daq import DaqWriter

RUN = 4742
Mover = Callable[..., Result]


@pytest.fixture
def mover(tmp_path: Path) -> Mover:
    """The command, with a run that was closed."""
    (tmp_path / "daq").mkdir()
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{tmp_path}/catalogue.sqlite"\n'
        f'[runs]\ndirectory = "{tmp_path}/daq"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        "[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n"
    )

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["--config", str(config), *arguments])
        assert "Traceback" not in result.output
        return result

    DaqWriter(tmp_path / "daq").write_run(RUN, parts=2, part_bytes=10_000)
    assert run("run", "close", str(RUN)).exit_code == 0
    return run


def _assert_refused(result: Result, exit_code: int, said: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert f"error: {said}" in result.stderr
    assert "\nhint: " in result.stderr


def _head(tmp_path: Path) -> custody.Head:
    database = Database(tmp_path / "catalogue.sqlite", read_only=True)
    try:
        return custody.head(database)
    finally:
        database.close()


def _change(tmp_path: Path, statement: str) -> None:
    raw = sqlite3.connect(tmp_path / "catalogue.sqlite", isolation_level=None)
    raw.execute("DROP TRIGGER IF EXISTS custody_is_not_removed")
    raw.execute(statement)
    raw.close()


def test_verify_tells_how_many_since_when_and_the_head(mover: Mover, tmp_path: Path) -> None:
    head = _head(tmp_path)
    for noted in ((), ("--expect", str(head)), ("--expect", str(head), "--expect", f"0:{'0' * 64}")):
        verified = mover("custody", "verify", *noted)
        assert verified.exit_code == 0, verified.output
        assert "custody: 1 records from 20" in verified.output
        assert f"custody head: {head}\n" in verified.output
        assert "the catalogue's states are what the records say" in verified.output


def test_verify_fails_when_the_end_is_cut_off_or_a_state_has_no_record(mover: Mover, tmp_path: Path) -> None:
    head = _head(tmp_path)
    _change(tmp_path, "UPDATE run SET state = 'safe'")
    _assert_refused(mover("custody", "verify"), 5, "the catalogue does not say what its custody records say")
    assert "run 4742 is safe" in mover("custody", "verify").stderr
    _change(tmp_path, "DELETE FROM custody")
    _assert_refused(mover("custody", "verify", "--expect", str(head)), 5, "the custody chain ends with record 0")
    assert mover("custody", "verify", "--expect", "1:abc").exit_code == 2


def test_show_tells_the_story_and_prints_it_for_programs(mover: Mover, tmp_path: Path) -> None:
    head = _head(tmp_path)
    shown = mover("custody", "show", str(RUN))
    assert shown.exit_code == 0
    for said in ("found complete", head.hash[:12], "lfn MICE/04742.tar", "parts 04742.000, 04742.001"):
        assert said in shown.output
    (record,) = json.loads(mover("custody", "show", str(RUN), "--json").output)
    assert (record["seq"], record["hash"], record["run"]) == (head.seq, head.hash, RUN)
    assert record["facts"]["lfn"] == "MICE/04742.tar"
    _assert_refused(mover("custody", "show", "7"), 5, "run 7 is not in the catalogue")


def test_the_story_keeps_its_facts_on_a_narrow_terminal(mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    shown = mover("custody", "show", str(RUN)).output
    assert "found complete" in shown
    assert "    lfn MICE/04742.tar" in shown


def test_what_a_record_says_does_not_act_on_the_terminal(mover: Mover, tmp_path: Path) -> None:
    database = Database(tmp_path / "catalogue.sqlite")
    with database.transaction() as connection:
        at = custody.records(database, RUN)[0].at
        custody.append(connection, at, RUN, "noted", text="\x1b[2J", many=list(range(9)), these={"a": 1, "b": 2})
    database.close()
    shown = mover("custody", "show", str(RUN)).output
    assert "\x1b" not in shown
    assert "many 0, 1, 2 and 6 more" in shown
    assert "these 2 of them" in shown


def test_check_says_what_is_well_and_what_is_not(mover: Mover, tmp_path: Path) -> None:
    checked = mover("catalogue", "check")
    assert checked.exit_code == 0, checked.output
    assert "custody chain: ok\n" in checked.output
    assert f"custody head: {_head(tmp_path)}\n" in checked.output
    _change(tmp_path, "UPDATE run SET since = '\x1b[2J'")
    _change(tmp_path, "DELETE FROM bundle")
    checked = mover("catalogue", "check")
    _assert_refused(checked, 5, f"the catalogue {tmp_path}/catalogue.sqlite is not whole:")
    assert "\n  states: run 4742 is planned, but has no bundle" in checked.stderr
    assert "times: 1 fault\n" in checked.stdout
    assert "\x1b" not in checked.output


def test_backup_makes_a_catalogue_and_never_overwrites(mover: Mover, tmp_path: Path) -> None:
    target = tmp_path / "backup.sqlite"
    made = mover("catalogue", "backup", str(target))
    assert made.exit_code == 0, made.output
    assert f"{target}: " in made.output
    before = target.read_bytes()
    _assert_refused(mover("catalogue", "backup", str(target)), 12, f"{target} is there already")
    assert target.read_bytes() == before
    (tmp_path / "catalogue.sqlite").unlink()
    target.rename(tmp_path / "catalogue.sqlite")
    assert mover("catalogue", "check").exit_code == 0
    assert str(RUN) in mover("status").output


def test_export_goes_to_a_new_file_or_to_standard_output(mover: Mover, tmp_path: Path) -> None:
    target = tmp_path / "catalogue.jsonl"
    assert mover("catalogue", "export", str(target)).exit_code == 0
    _assert_refused(mover("catalogue", "export", str(target)), 12, f"{target} is there already")
    header, *rows = (json.loads(line) for line in target.read_text().splitlines())
    assert header["rows"]["run"] == 1
    assert len(rows) == sum(header["rows"].values())
    for arguments in ((), ("-",)):
        out = mover("catalogue", "export", *arguments).output.splitlines()
        assert out[1:] == target.read_text().splitlines()[1:]


def test_nothing_of_this_makes_a_catalogue(mover: Mover, tmp_path: Path) -> None:
    (tmp_path / "catalogue.sqlite").unlink()
    for arguments in (
        ("custody", "verify"), ("custody", "show", str(RUN)), ("catalogue", "check"), ("catalogue", "export"),
        ("catalogue", "backup", str(tmp_path / "backup.sqlite")),
    ):  # fmt: skip
        _assert_refused(mover(*arguments), 5, "cannot open the catalogue")
    assert not [path.name for path in tmp_path.iterdir() if "sqlite" in path.name]

"""`catalogue check` and `export`: what is wrong is found, and every fact is written out."""

import json
import sqlite3

import pytest

from mover.catalogue import custody
from mover.catalogue.check import CHECKS, faults
from mover.catalogue.export import export
from mover.steps.release import release_run
from tests.unit.mover.bench import LFN, NOW, RUN, Bench, FixedClock


def _all_faults(bench: Bench) -> dict[str, list[str]]:
    with bench.catalogue.snapshot():
        return {name: found for name, check in CHECKS if (found := faults(bench.catalogue, check))}


def _tamper(bench: Bench, *statements: str) -> None:
    bench.spoiled = True
    raw = sqlite3.connect(bench.catalogue.path, isolation_level=None)
    for statement in statements:
        raw.execute(statement)
    raw.close()


def test_nothing_is_wrong_with_a_catalogue_on_any_step_of_a_run(bench: Bench) -> None:
    assert not _all_faults(bench)
    bench.make_safe()
    assert not _all_faults(bench)
    release_run(bench.catalogue, bench.config, RUN, bench.endpoints, clock=FixedClock())
    assert not _all_faults(bench)


@pytest.mark.parametrize(
    ("check", "change", "said"),
    [
        ("references", "DELETE FROM run", "refers to a row of run that is not there"),
        ("states", "UPDATE run SET state = 'unknown'", f"run {RUN} has the unknown state 'unknown'"),
        ("states", "UPDATE replica SET state = 'lost' WHERE id = 1", "replica 1 has the unknown state 'lost'"),
        ("states", "DELETE FROM bundle", f"run {RUN} is safe, but has no bundle"),
        ("states", "UPDATE replica SET state = 'wanted'", f"run {RUN} is safe, but has no verified replica"),
        ("states", "UPDATE bundle SET adler32 = NULL", f"{LFN} is archived at tape, but its checksum is not known"),
        ("custody and states", "UPDATE replica SET state = 'wanted'", "is wanted, but its custody records"),
        ("custody chain", "DROP TRIGGER custody_is_not_removed; DELETE FROM custody WHERE seq = 2", "2 is missing"),
        ("bundles", "UPDATE bundle SET kind = 'x'", f"{LFN} has the unknown kind 'x'"),
        ("bundles", "DELETE FROM member", f"{LFN} has no members, but the checksum"),
        ("bundles", "UPDATE bundle SET adler32 = NULL", f"{LFN} has members, but no checksum"),
        ("bundles", "UPDATE bundle SET plan = '{}'", f"{LFN} has a plan that cannot be read"),
        ("bundles", "UPDATE bundle SET plan = '['", f"{LFN} has a plan that cannot be read"),
        ("bundles", "UPDATE bundle SET size_bytes = 1", f"{LFN} has the size 1, but its plan says"),
        ("bundles", "UPDATE bundle SET lfn = 'x'", f"x has the LFN x, but its plan says {LFN}"),
        ("bundles", "UPDATE member SET name = 'x' WHERE position = 0", f"{LFN} has other members than its plan"),
        ("times", "UPDATE run SET since = 'yesterday'", f"since of run {RUN} is no time: 'yesterday'"),
        ("times", "UPDATE replica SET next_attempt_at = '2026-01-01'", "next_attempt_at of replica 1 is no time"),
    ],
)
def test_what_is_wrong_is_found(bench: Bench, check: str, change: str, said: str) -> None:
    bench.make_safe()
    _tamper(bench, *change.split("; "))
    found = _all_faults(bench)
    assert any(said in one for one in found[check]), found


def test_damage_to_the_file_is_found_and_ends_no_other_check(bench: Bench) -> None:
    bench.make_safe()
    (row,) = bench.catalogue.query("SELECT rootpage FROM sqlite_schema WHERE name = 'replica_due'")
    bench.catalogue.query("PRAGMA wal_checkpoint(TRUNCATE)")
    with bench.config.catalogue.open("r+b") as file:
        file.seek((row[0] - 1) * 4096)
        file.write(b"\xff" * 4096)
    damaged = type(bench.catalogue)(bench.config.catalogue, read_only=True)
    found = {name: faults(damaged, check) for name, check in CHECKS}
    assert found.pop("file")
    # It wants the index that is damaged.
    (said,) = found.pop("states")
    assert "malformed" in said
    assert not any(found.values())


def test_a_thousand_faults_are_not_all_told(bench: Bench) -> None:
    bench.close_run()
    _tamper(
        bench,
        "INSERT INTO run WITH RECURSIVE count(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM count WHERE n < 499) "
        "SELECT n, 'x', '', '', NULL, NULL, NULL FROM count",
    )
    for name in ("states", "custody and states", "times"):
        found = _all_faults(bench)[name]
        assert len(found) == 101
        assert found[-1] == "and perhaps more"


def _tables(raw: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """Every column of every table with its type, as SQLite itself tells."""
    names = [name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: {one[1]: one[2] for one in raw.execute(f"PRAGMA table_info({name})")} for name in names}


_SAMPLES = {"INTEGER": 2**62, "TEXT": 'a "b"\n\u20ac'}


def test_the_export_has_every_column_of_every_table(bench: Bench) -> None:
    bench.make_safe()
    bench.spoiled = True
    raw = sqlite3.connect(bench.catalogue.path, isolation_level=None)
    tables = _tables(raw)
    assert {"run", "bundle", "member", "replica", "claim", "custody", "endpoint"} <= set(tables)
    for table, columns in tables.items():
        values = [_SAMPLES[kind] for kind in columns.values()]
        raw.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608
    header, *lines = [json.loads(line) for line in export(bench.catalogue, now=NOW)]
    assert header == {
        "format": "mover-catalogue",
        "version": 1,
        "schema": bench.catalogue.schema,
        "exported_at": NOW.isoformat(),
        "custody_head": str(custody.head(bench.catalogue)),
        "rows": {table: raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables},  # noqa: S608
    }
    for table, columns in tables.items():
        exported = [line["row"] for line in lines if line["table"] == table]
        assert all(list(row) == list(columns) for row in exported)
        stored = [dict(zip(columns, row, strict=True)) for row in raw.execute(f"SELECT * FROM {table}")]  # noqa: S608
        assert sorted(exported, key=str) == sorted(stored, key=str)


def test_the_same_facts_are_exported_in_the_same_order(bench: Bench) -> None:
    bench.make_safe()
    first = list(export(bench.catalogue, now=NOW))
    # The same rows, put in the other way round.
    raw = sqlite3.connect(bench.catalogue.path, isolation_level=None)
    for table in ("member", "replica"):
        rows = raw.execute(f"SELECT * FROM {table} ORDER BY rowid DESC").fetchall()  # noqa: S608
        raw.execute(f"DELETE FROM {table}")  # noqa: S608
        raw.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608
    assert list(export(bench.catalogue, now=NOW)) == first
    assert all(line.isascii() and "\n" not in line for line in first)


def test_the_export_is_of_one_moment(bench: Bench) -> None:
    bench.close_run()
    lines = export(bench.catalogue, now=NOW)
    header = json.loads(next(lines))
    writer = type(bench.catalogue)(bench.config.catalogue)
    with writer.transaction() as connection:
        custody.append(connection, NOW, RUN, "noted")
    rows = [json.loads(line) for line in lines]
    assert sum(row["table"] == "custody" for row in rows) == header["rows"]["custody"] == 1
    assert custody.head(bench.catalogue).seq == 2

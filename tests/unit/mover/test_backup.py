"""Backups and reading: never in another file's place, complete or not there, and possible on a read-only disk."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mover.catalogue import custody, migrations
from mover.catalogue.backup import back_up, back_up_before_upgrade
from mover.catalogue.database import Database
from mover.catalogue.runs import note
from mover.durable import new_file
from mover.errors import CatalogueError, OutputError
from tests.unit.mover.bench import NOW, RUN, Bench


@contextmanager
def _mounted(path: Path, *options: str) -> Iterator[None]:
    """A file system of its own in memory, unmounted afterwards."""
    path.mkdir(exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", *options, str(path)], check=False, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_backup_is_a_whole_catalogue_in_one_file(bench: Bench, tmp_path: Path) -> None:
    bench.make_safe()
    target = tmp_path / "backup" / "copy.sqlite"
    target.parent.mkdir()
    back_up(bench.catalogue.copy_to, target)
    assert _names(target.parent) == ["copy.sqlite"]
    copy = Database(target, read_only=True)
    assert custody.verify(copy) == custody.verify(bench.catalogue)
    assert _names(target.parent) == ["copy.sqlite"]
    copy.close()
    # Restored, it is a catalogue like any other.
    restored = Database(target)
    assert restored.query("PRAGMA journal_mode")[0][0] == "wal"
    note(restored, RUN, "noted", now=NOW)


def test_a_backup_while_others_write_is_of_one_moment(bench: Bench, tmp_path: Path) -> None:
    bench.close_run()
    stop = threading.Event()

    def write() -> None:
        other = Database(bench.config.catalogue)
        while not stop.is_set():
            note(other, RUN, "noted", now=NOW, text="x" * 1000)
        other.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(10):
            back_up(bench.catalogue.copy_to, tmp_path / f"{number}.sqlite")
    finally:
        stop.set()
        writer.join()
    heads = []
    for number in range(10):
        copy = Database(tmp_path / f"{number}.sqlite", read_only=True)
        heads.append(custody.verify(copy).head)
        copy.close()
    assert custody.verify(bench.catalogue, noted=heads).records > len(heads)


def test_a_backup_never_takes_the_place_of_a_file(bench: Bench, tmp_path: Path) -> None:
    bench.close_run()
    taken = tmp_path / "taken"
    taken.symlink_to(tmp_path / "nowhere")
    before = _names(tmp_path)
    for name in (taken, bench.config.catalogue):
        with pytest.raises(OutputError, match="is there already"):
            back_up(bench.catalogue.copy_to, name)
    assert _names(tmp_path) == before


def test_a_name_that_is_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def quicker(partial: Path) -> None:
        partial.write_text("ours")
        (tmp_path / "new").write_text("theirs")

    with pytest.raises(OutputError, match="is there already"), new_file(tmp_path / "new") as partial:
        quicker(partial)
    assert _names(tmp_path) == ["new"]
    assert (tmp_path / "new").read_text() == "theirs"


def test_a_file_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "new") as partial:
        fail(partial)
    assert not _names(tmp_path)
    with pytest.raises(OutputError, match="no such file or directory"), new_file(tmp_path / "no" / "new"):
        pass


def test_a_full_disk_leaves_no_backup(bench: Bench, tmp_path: Path) -> None:
    bench.close_run()
    disk = tmp_path / "disk"
    with _mounted(disk, "-t", "tmpfs", "-o", "size=16k", "none"):
        with pytest.raises(OutputError, match=r"cannot write the backup .*full"):
            back_up(bench.catalogue.copy_to, disk / "copy.sqlite")
        assert not _names(disk)


def test_a_damaged_catalogue_makes_no_backup(bench: Bench, tmp_path: Path) -> None:
    bench.make_safe()
    bench.spoiled = True
    bench.catalogue.close()
    (page,) = sqlite3.connect(bench.config.catalogue).execute("SELECT rootpage FROM sqlite_schema WHERE name='member'")
    with bench.config.catalogue.open("r+b") as file:
        file.seek((page[0] - 1) * 4096)
        file.write(b"\xff" * 4096)
    damaged = Database(bench.config.catalogue, read_only=True)
    with pytest.raises(OutputError, match="does not read back"):
        back_up(damaged.copy_to, tmp_path / "copy.sqlite")
    assert not (tmp_path / "copy.sqlite").exists()


class Upgrade:
    """A release with one more schema, in a folder with a catalogue of this one."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.close_run()
        bench.spoiled = True
        bench.catalogue.close()
        self.path = bench.config.catalogue
        self._shipped = migrations.shipped()
        self._patch = monkeypatch

    def ship(self, *statements: str) -> None:
        added = (len(self._shipped) + 1, list(statements))
        self._patch.setattr(migrations, "shipped", lambda: [*self._shipped, added])

    def withdraw(self) -> None:
        self._patch.setattr(migrations, "shipped", lambda: self._shipped)

    @property
    def backups(self) -> list[str]:
        return [name for name in _names(self.path.parent) if ".schema-" in name]

    @property
    def backup_name(self) -> str:
        return f"{self.path.name}.schema-{len(self._shipped)}"


@pytest.fixture
def upgrade(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    return Upgrade(bench, monkeypatch)


_GOOD = "CREATE TABLE added (x INTEGER PRIMARY KEY) STRICT"
_BAD = "CREATE TABLE run (x INTEGER)"


def test_an_upgrade_that_fails_again_and_again_makes_one_backup(upgrade: Upgrade) -> None:
    upgrade.ship(_GOOD, _BAD)
    for _ in range(3):
        with pytest.raises(CatalogueError):
            Database(upgrade.path)
    assert upgrade.backups == [upgrade.backup_name]
    upgrade.withdraw()
    back = Database(upgrade.path)
    note(back, RUN, "noted", now=NOW)
    back.close()
    # Other facts now: they get a backup of their own, and the first one stays.
    first = (upgrade.path.parent / upgrade.backup_name).read_bytes()
    upgrade.ship(_GOOD)
    Database(upgrade.path).close()
    assert upgrade.backups == [upgrade.backup_name, f"{upgrade.backup_name}.2"]
    assert (upgrade.path.parent / upgrade.backup_name).read_bytes() == first
    upgrade.withdraw()
    kept = Database(upgrade.path.parent / f"{upgrade.backup_name}.2", read_only=True)
    assert custody.head(kept).seq == 2


def test_of_two_processes_that_upgrade_at_once_one_makes_the_backup(upgrade: Upgrade) -> None:
    version = len(migrations.shipped())

    class Slower(sqlite3.Connection):
        """While it copies, another process makes its own backup."""

        def backup(self, target: sqlite3.Connection, **_: object) -> None:
            quicker = sqlite3.connect(upgrade.path)
            back_up_before_upgrade(quicker, upgrade.path, version)
            quicker.close()
            super().backup(target)

    slower = sqlite3.connect(upgrade.path, factory=Slower)
    back_up_before_upgrade(slower, upgrade.path, version)
    slower.close()
    assert upgrade.backups == [upgrade.backup_name]


def test_a_new_catalogue_is_made_whole_or_not_at_all(upgrade: Upgrade, tmp_path: Path) -> None:
    """So no other process that starts at the same time finds it half-made, and wants to bring it up to date."""
    upgrade.ship(_BAD)
    with pytest.raises(CatalogueError):
        Database(tmp_path / "new.sqlite", create=True)
    new = sqlite3.connect(tmp_path / "new.sqlite")
    assert new.execute("PRAGMA user_version").fetchone() == (0,)
    assert new.execute("SELECT * FROM sqlite_master").fetchall() == []
    new.close()
    upgrade.withdraw()
    Database(tmp_path / "new.sqlite", create=True).close()


def test_a_file_of_somebody_elses_in_the_backups_place_stays(upgrade: Upgrade) -> None:
    theirs = upgrade.path.parent / upgrade.backup_name
    theirs.write_text("not a database")
    upgrade.ship(_GOOD)
    Database(upgrade.path).close()
    assert theirs.read_text() == "not a database"
    assert upgrade.backups == [upgrade.backup_name, f"{upgrade.backup_name}.2"]


def test_an_upgrade_without_space_for_its_backup_changes_nothing(upgrade: Upgrade, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    size = upgrade.path.stat().st_size * 3 // 2
    with _mounted(disk, "-t", "tmpfs", "-o", f"size={size}", "none"):
        path = disk / upgrade.path.name
        shutil.copy(upgrade.path, path)
        upgrade.ship(_GOOD)
        with pytest.raises(CatalogueError, match=r"not brought up to date, because it cannot be backed up .*full"):
            Database(path)
        upgrade.withdraw()
        assert not [name for name in _names(disk) if "schema" in name or name.endswith(".part")]
        again = Database(path)
        assert custody.verify(again).records == 1
        again.close()


def test_reading_never_upgrades(upgrade: Upgrade) -> None:
    upgrade.ship(_GOOD)
    with pytest.raises(CatalogueError, match="has schema") as caught:
        Database(upgrade.path, read_only=True)
    assert "start the engine" in caught.value.hint
    assert not upgrade.backups


def test_what_is_opened_for_reading_cannot_be_written(bench: Bench) -> None:
    bench.close_run()
    reader = Database(bench.config.catalogue, read_only=True)
    with pytest.raises(CatalogueError, match="cannot be written"):
        note(reader, RUN, "noted", now=NOW)
    # It sees what others write.
    note(bench.catalogue, RUN, "noted", now=NOW)
    assert custody.head(reader).seq == 2


def test_a_catalogue_that_is_none_is_refused_for_reading_too(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="unable to open") as caught:
        Database(tmp_path / "none.sqlite", read_only=True)
    assert "the engine makes it" in caught.value.hint
    raw = sqlite3.connect(tmp_path / "other.sqlite")
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    with pytest.raises(CatalogueError, match="database of something else"):
        Database(tmp_path / "other.sqlite", read_only=True)
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(CatalogueError, match="is empty"):
        Database(tmp_path / "empty.sqlite", read_only=True)
    assert _names(tmp_path) == ["empty.sqlite", "other.sqlite"]


def test_a_catalogue_on_a_read_only_disk_can_be_read(bench: Bench, tmp_path: Path) -> None:
    bench.make_safe()
    expected = custody.head(bench.catalogue)
    bench.catalogue.close()
    disk = tmp_path / "disk"
    with _mounted(disk, "-t", "tmpfs", "-o", "size=4m", "none"):
        path = disk / "catalogue.sqlite"
        shutil.copy(bench.config.catalogue, path)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        reader = Database(path, read_only=True)
        assert custody.verify(reader).head == expected
        reader.close()
        back_up(Database(path, read_only=True).copy_to, tmp_path / "copy.sqlite")
        with pytest.raises(CatalogueError, match="cannot open the catalogue"):
            Database(path)


def _leave_wal(bench: Bench, path: Path) -> int:
    """Copy the catalogue as a power cut leaves it: its newest record in the WAL only. The number of records."""
    note(bench.catalogue, RUN, "noted", now=NOW)
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{bench.config.catalogue}{suffix}", f"{path}{suffix}")
    return custody.head(bench.catalogue).seq


def test_the_newest_facts_on_a_read_only_disk_are_read_or_it_is_said_that_they_cannot_be(
    bench: Bench, tmp_path: Path
) -> None:
    bench.close_run()
    disk = tmp_path / "disk"
    with _mounted(disk, "-t", "tmpfs", "-o", "size=8m", "none"):
        path = disk / "catalogue.sqlite"
        records = _leave_wal(bench, path)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        reader = Database(path, read_only=True)
        assert custody.verify(reader).records == records
        reader.close()
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        Path(f"{path}-shm").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(CatalogueError, match="cannot open the catalogue") as caught:
            Database(path, read_only=True)
        assert "copy it, with its -wal" in caught.value.hint


def test_a_read_only_view_of_a_disk_is_not_taken_for_a_read_only_disk(bench: Bench, tmp_path: Path) -> None:
    bench.close_run()
    bench.catalogue.close()
    folder, view = tmp_path / "folder", tmp_path / "view"
    with _mounted(folder, "-t", "tmpfs", "none"), _mounted(view, "--bind", str(folder)):
        shutil.copy(bench.config.catalogue, folder / "catalogue.sqlite")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        # An engine may start at any moment, and change pages under the reader.
        with pytest.raises(CatalogueError, match="cannot open the catalogue") as caught:
            Database(folder / "catalogue.sqlite", read_only=True)
        assert "while the engine runs" in caught.value.hint
        engine = Database(view / "catalogue.sqlite")
        reader = Database(folder / "catalogue.sqlite", read_only=True)
        note(engine, RUN, "noted", now=NOW)
        assert custody.verify(reader).records == 2
        reader.close()
        engine.close()


_AS_NOBODY = """
import os, sys
from pathlib import Path
from mover.catalogue import custody
from mover.catalogue.database import Database
from mover.errors import CatalogueError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(custody.verify(Database(Path(sys.argv[1]), read_only=True)).records)
except CatalogueError as error:
    print(error.message, error.hint)
"""


def test_another_user_can_read_while_the_engine_runs_and_is_told_so(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    bench.close_run()
    bench.catalogue.close()
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        path = Path(open_to_all) / "catalogue.sqlite"
        shutil.copy(bench.config.catalogue, path)

        def read() -> str:
            command = [sys.executable, "-c", _AS_NOBODY, str(path)]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

        engine = Database(path)
        assert custody.verify(engine).records == 1
        assert read() == "1"
        engine.close()
        assert "while the engine runs" in read()

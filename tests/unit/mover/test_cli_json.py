"""`--json`: every command has it, prints what docs/cli-json.md says, and ends as it does without."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from mover.catalogue.endpoints import record_sick
from mover.cli.main import cli
from mover.errors import EndpointUnavailableError
from mover.sandbox.daq import DaqWriter
from mover.states import JobState
from tests.unit.mover.bench import NOW
from tests.unit.mover.reco.campaignbench import CampaignBench, run_of
from tests.unit.mover.reco.recobench import RELEASE, good, toml, write_output

PAGE = (Path(__file__).parents[3] / "docs" / "cli-json.md").read_text(encoding="utf-8")
#: They log until they are told to stop, show what goes on, or print JSON lines anyway.
WITHOUT = {"mover engine", "mover reco agent", "mover demo", "mover catalogue export"}
RUN = 4742


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for sub, one in command.commands.items():
            yield from _commands(one, f"{name} {sub}")
    else:
        yield name, command


COMMANDS = dict(_commands(cli, "mover"))


def _keys(section: str) -> set[str]:
    """What the page says of a command or of what recurs: the keys in the first column."""
    _, _, rest = PAGE.partition(f"### {section}\n")
    text = rest.partition("\n### ")[0].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)[2:]]
    found = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    for what, recurring in (("a replica", "replicas[]"), ("a job", "jobs[]")):
        for key in [one for one in found if one.endswith(recurring)]:
            found |= {f"{key}.{more}" for more in _keys(what)}
    return found


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """The keys of a document, as the page writes them."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _paths(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield f"{path}[]" if value else path
        for one in value:
            yield from _paths(one, f"{path}[]")
    else:
        yield path


def _is_said(path: str, keys: set[str]) -> bool:
    """Whether the page has it: by itself, under a `.*`, or as the array or object that others are in."""
    return any(
        path == key or (key.endswith("*") and path.startswith(key[:-1])) or key.startswith((f"{path}[]", f"{path}."))
        for key in keys
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_it_and_a_place_on_the_page(name: str) -> None:
    has = any("--json" in option.opts for option in COMMANDS[name].params)
    assert has is (name not in WITHOUT)
    assert has is (f"### `{name}`\n" in PAGE)
    assert has or f"`{name}`" in PAGE.replace("\n", " ")


def test_the_page_has_no_other_commands() -> None:
    assert set(re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)) == COMMANDS.keys() - WITHOUT


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name: str) -> None:
    _, _, example = re.split(r"(Examples?:)", COMMANDS[name].help or "") or ("", "", "")
    assert re.search(rf"\b{name.removeprefix('mover ')}\b", example)


class Room:
    """Runs in every kind of state, on endpoints that are directories, and the command on them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bench = bench = CampaignBench(base)
        self.tables = tables = bench.config.model_dump(mode="json")
        for place in tables["endpoint"]:
            (base / "se" / place["name"]).mkdir(parents=True)
            place |= {"kind": "disk", "url": f"file://{base}/se/{place['name']}"}
        policy = {"tapes": 0, "tape_sites": 0, "disks": 1}
        tables["policy"] = dict.fromkeys(("raw", "reco", "mc"), policy)
        tables["credential"] |= {"agent": f"{base}/none"}
        self.config = base / "mover.toml"
        self.write()

    def write(self) -> None:
        """Write the configuration."""
        self.config.write_text("".join(f"{key} = {toml(value)}\n" for key, value in self.tables.items() if value))

    def run(self, command: str, *, fails: int = 0) -> Result:
        """What it prints; it ends with that code."""
        result = CliRunner().invoke(cli, ["--config", str(self.config), *command.split()])
        assert result.exit_code == fails, result.output
        return result

    def store(self, run: int, endpoint: str) -> None:
        """Have a bundle at an endpoint, as the catalogue says that it is."""
        (row,) = self.bench.catalogue.query("SELECT lfn FROM bundle WHERE run = ? AND kind = 'raw'", run)
        target = self.base / "se" / endpoint / row["lfn"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(self.bench.endpoints["disk"].read(row["lfn"])))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def _nothing(_: Room) -> None:
    """Nothing more is needed."""


def _jobs(room: Room) -> None:
    """A campaign with jobs: one failed, the others proven."""
    bench = room.bench
    bench.what_becomes = lambda job: (
        good(job) if run_of(job) != 4744 else write_output(job, None, exit_code=2, reason="x")
    )
    bench.create()
    bench.turns(4)
    assert JobState.QUARANTINED in bench.states()


def _campaign(room: Room) -> None:
    room.bench.create(start=False)


def _started(room: Room) -> None:
    room.bench.create()


def _paused(room: Room) -> None:
    room.bench.create()
    room.run("campaign pause 1")


def _new_run(room: Room) -> None:
    DaqWriter(room.bench.config.runs.directory).write_run(6000, parts=1, part_bytes=5000)


def _planned(room: Room) -> None:
    _new_run(room)
    room.run("run close 6000")
    error = EndpointUnavailableError("not today", hint="wait")
    record_sick(room.bench.catalogue, "tape", error, failures=3, probe_at=NOW + timedelta(hours=1), now=NOW)


def _held(room: Room) -> None:
    room.run(f"run quarantine {RUN} --reason x")


def _stored(room: Room) -> None:
    room.store(RUN, "tape")
    room.store(RUN, "disk")


def _orphan(room: Room) -> None:
    _stored(room)
    (room.base / "se" / "disk" / "MICE" / "stranger").write_bytes(b"x")


def _told(room: Room) -> None:
    _new_run(room)
    (room.base / "told").mkdir()
    (room.base / "told" / "6000").touch()


def _more_policy(room: Room) -> None:
    room.tables["endpoint"].append(room.tables["endpoint"][0] | {"name": "new", "url": f"file://{room.base}/se/new"})
    room.write()


def _fresh(room: Room) -> None:
    """Bundles that others stored, and a catalogue that knows nothing of them."""
    _stored(room)
    room.bench.catalogue.close()
    for file in room.base.glob("catalogue.sqlite*"):
        file.unlink()
    for file in room.bench.config.runs.directory.iterdir():
        file.unlink()


CASES: dict[str, tuple[Callable[[Room], None], str, int]] = {
    "mover adopt": (_fresh, f"adopt {RUN} 5000-5001", 0),
    "mover audit": (_stored, f"audit {RUN}", 0),
    "mover bundle list": (_jobs, "bundle list", 0),
    "mover campaign create": (_nothing, f"campaign create --release {RELEASE} --runs 4740-4743 --kind reco", 0),
    "mover campaign start": (_campaign, "campaign start 1", 0),
    "mover campaign pause": (_started, "campaign pause 1", 0),
    "mover campaign resume": (_paused, "campaign resume 1", 0),
    "mover campaign cancel": (_started, "campaign cancel 1", 0),
    "mover campaign status": (_jobs, "campaign status", 0),
    "mover campaign report": (_jobs, "campaign report 1", 0),
    "mover catalogue check": (_nothing, "catalogue check", 0),
    "mover catalogue backup": (_nothing, "catalogue backup {base}/copy", 0),
    "mover catalogue rebuild": (_stored, "catalogue rebuild --into {base}/new", 0),
    "mover config check": (_nothing, "config check", 3),
    "mover custody verify": (_nothing, "custody verify", 0),
    "mover custody show": (_nothing, f"custody show {RUN}", 0),
    "mover metrics": (_nothing, "metrics", 0),
    "mover orphans": (_orphan, "orphans", 0),
    "mover policy plan": (_more_policy, "policy plan", 0),
    "mover policy apply": (_more_policy, "policy apply", 0),
    "mover reco status": (_jobs, f"reco status {RUN} 4744", 0),
    "mover reco approve": (_nothing, f"reco approve {RELEASE}", 0),
    "mover reco retry": (_jobs, "reco retry 4744 4743", 0),
    "mover reco cancel": (_started, f"reco cancel {RUN}", 0),
    "mover release": (_stored, f"release {RUN} 4743 --now", 9),
    "mover run close": (_new_run, "run close 6000", 0),
    "mover run close-told": (_told, "run close-told {base}/told", 0),
    "mover run show": (_jobs, f"run show {RUN}", 0),
    "mover run wait": (_nothing, f"run wait {RUN}", 0),
    "mover run retry": (_stored, f"run retry {RUN} 4743 --look", 0),
    "mover run quarantine": (_nothing, f"run quarantine {RUN} --reason x", 0),
    "mover run unquarantine": (_held, f"run unquarantine {RUN} --reason x", 0),
    "mover status": (_planned, "status", 0),
    "mover top": (_started, "top", 0),
    "mover why": (_planned, "why 6000", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_printed_is_what_the_page_says(room: Room, name: str) -> None:
    prepare, command, code = CASES[name]
    prepare(room)
    printed = room.run(f"{command.format(base=room.base)} --json", fails=code).stdout
    assert printed.isascii()
    document = json.loads(printed)
    paths, keys = set(_paths(document)), _keys(f"`{name}`")
    assert not {path for path in paths if not _is_said(path, keys)}
    if isinstance(document, dict):
        # What the page promises is there, empty or not; what is within an array is there if the array has something.
        firsts = {re.split(r"[.\[]", key)[0] for key in keys} - {"*"}
        assert firsts <= document.keys()
    for key in keys:
        parent, _, last = key.rpartition("[].")
        if parent and last and "*" not in key and f"{parent}[]" in {path[: len(parent) + 2] for path in paths}:
            assert any(path.startswith(f"{parent}[].{last.removesuffix('[]')}") for path in paths), key


def test_all_that_can_be_run_without_a_credential_is_tried() -> None:
    # A certificate wants the agent; tests/unit/mover/certificate has it.
    assert COMMANDS.keys() - WITHOUT - CASES.keys() == {"mover custody check"}


def test_an_error_is_said_in_words_and_prints_no_half_document(room: Room) -> None:
    for command, code in (("run show 9 --json", 5), ("run close 9 --json", 4), ("why x --json", 2)):
        ended = room.run(command, fails=code)
        assert ended.stdout == ""
        assert "rror: " in ended.stderr


def test_a_refusal_to_release_is_in_the_document_and_ends_as_without_it(room: Room) -> None:
    ended = room.run("release 4743 --now --json", fails=9)
    (found,) = json.loads(ended.stdout)["runs"]
    assert (found["run"], found["outcome"]) == (4743, "stays")
    assert f"error: {found['message']}\nhint: {found['hint']}\n" in ended.stderr

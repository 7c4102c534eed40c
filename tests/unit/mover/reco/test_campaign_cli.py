"""`mover campaign`, as people give it: what it says, refuses and writes."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from mover.cli.main import cli
from mover.states import CampaignState, JobState
from tests.unit.mover.reco.campaignbench import CampaignBench, run_of
from tests.unit.mover.reco.recobench import RELEASE, good, write_output

Mover = Callable[..., str]


@pytest.fixture
def reco(tmp_path: Path) -> CampaignBench:
    """Five runs that are safe, and an agent whose clock is a little ahead of the command's."""
    made = CampaignBench(tmp_path)
    made.clock.time = datetime.now(UTC) + timedelta(minutes=10)
    return made


@pytest.fixture
def mover(reco: CampaignBench, tmp_path: Path) -> Mover:
    """The command on the bench's catalogue; what it prints, errors too."""
    config = reco.write_config(tmp_path / "mover.toml")

    def run(*arguments: str, fails: int = 0) -> str:
        result = CliRunner().invoke(cli, ["--config", str(config), "campaign", *arguments])
        assert result.exit_code == fails, result.output
        return result.output

    return run


def test_a_campaign_from_its_creation_to_its_report(reco: CampaignBench, mover: Mover, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    reco.what_becomes = lambda job: (
        good(job) if run_of(job) != 4744 else write_output(job, None, exit_code=2, reason=evil)
    )
    assert mover("status") == "no campaign was created yet\n"
    asked = ("create", "--release", RELEASE, "--runs", "4740-4745,4746", "--kind", "reco")
    said = mover(*asked, "--dry-run")
    assert said.startswith(f"runs 4740-4745, 4746: reco with {RELEASE}: 5 new jobs\n")
    assert "left out, 2 runs, not known here" in said
    assert said.endswith(": 4740-4741\n")
    assert not reco.all_jobs()
    assert "campaign 1 is created, at most 6 jobs at a time" in mover(*asked)
    assert mover("start", "1") == "campaign 1 is running\n"
    assert "end: unknown: nothing was proven since it was started" in mover("status", "1")
    reco.turns(4)
    shown = mover("status", "1")
    assert shown.startswith("campaign 1 is finished: 4 proven, 1 quarantined of 5 jobs\n")
    assert f"reco of run 4744 with {RELEASE} is quarantined" in shown
    assert "\x1b" not in shown
    assert "finished" in mover("status")
    mover("report", "1", "--output", str(tmp_path))
    document = json.loads((tmp_path / "campaign-1.json").read_text())
    assert document["jobs"]["proven"] == 4
    assert [job["run"] for job in document["failed"]] == [4744]
    assert [one["event"] for one in document["history"]] == ["created", "started", "nothing left"]
    assert json.loads(mover("report", "1", "--json")).keys() == document.keys()
    assert json.loads(mover("status", "--json"))[0]["jobs"] == document["jobs"]
    page = (tmp_path / "campaign-1.html").read_text()
    HTMLParser().feed(page)
    assert "4 proven, 1 quarantined" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)\s*=", page)
    assert "<code>mover reco retry 4744</code>" in page


def test_a_campaign_is_paused_resumed_and_cancelled(reco: CampaignBench, mover: Mover) -> None:
    reco.what_becomes = lambda _job: None
    mover("create", "--release", RELEASE, "--runs", "4742-4746", "--kind", "reco", "--most-jobs", "1")
    assert "cannot become 'paused': it was not started" in mover("pause", "1", fails=5)
    mover("start", "1")
    reco.turn()
    assert mover("pause", "1") == "campaign 1 is paused\n"
    assert mover("resume", "1") == "campaign 1 is running\n"
    assert mover("cancel", "1") == "campaign 1 is cancelled, with 5 jobs that had no output yet\n"
    assert "create another campaign" in mover("start", "1", fails=5)
    reco.turns(2)
    assert reco.states() == {JobState.CANCELLED}
    assert not reco.batch.jobs
    assert json.loads(mover("status", "1", "--json"))["state"] == CampaignState.CANCELLED


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--release", "9.9", "--runs", "4742"), 15, "there is no release 9.9"),
        (("--release", RELEASE, "--runs", "4800-4900"), 5, "nothing to do for a campaign over runs 4800-4900"),
        (("--release", RELEASE, "--runs", "4742-4741"), 2, "ends before it begins"),
        (("--release", RELEASE, "--runs", "0-2000000000"), 2, "over 1000000 runs"),
        (("--release", RELEASE, "--runs", "4742", "--kind", "raw"), 2, "'raw' is no kind of job"),
    ],
)
def test_what_cannot_be_a_campaign_is_refused(
    reco: CampaignBench, mover: Mover, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert words in mover("create", *arguments, fails=code)
    assert not reco.all_jobs()
    assert "there is no campaign 1" in mover("status", "1", fails=5)

"""An audit's report says what to do about everything that is not good, once and so that it can be read."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mover.audit.choose import Choice
from mover.audit.page import render_page
from mover.catalogue.audits import Outcome
from mover.cli.main import cli
from tests.unit.mover.auditing import audited
from tests.unit.mover.bench import LFN, RUN, Bench


@pytest.fixture
def safe(bench: Bench) -> Bench:
    """The run is safe."""
    bench.make_safe()
    return bench


def test_good_replicas_that_do_not_satisfy_the_policy_have_a_remedy_too(safe: Bench, tmp_path: Path) -> None:
    raw = safe.config.policy.raw.model_copy(update={"endpoints": ("tape",)})
    safe.config = safe.config.model_copy(update={"policy": safe.config.policy.model_copy(update={"raw": raw})})
    report = audited(safe)
    (bundle,) = json.loads(report.to_json())["bundles"]
    assert (bundle["outcome"], bundle["policy"]) == ("wrong", "not safe: lacks 1 disk")
    assert [one["outcome"] for one in bundle["replicas"]] == ["good", "good"]
    assert bundle["remedy"].startswith("`mover policy plan` shows ")
    assert '<p>not safe: lacks 1 disk <span class="remedy">(<code>mover policy plan</code> shows ' in render_page(
        report
    )
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{safe.config.catalogue}"\nruns.directory = "{tmp_path}/daq"\n'
        'bundle.lfn = "{run}.tar"\npolicy.raw = {tapes = 0, tape_sites = 0}\n'
        'endpoint = [{name = "disk", site = "here", kind = "disk", url = "file:///"}]\n'
    )
    shown = CliRunner().invoke(cli, ["--config", str(config), "audit", "--show", "1"])
    assert shown.exit_code == 7, shown.output
    assert f"`mover run show {RUN}`" in shown.stdout.replace("\n", " ")


def test_what_is_good_needs_no_remedy(safe: Bench) -> None:
    report = audited(safe)
    assert report.outcomes == {Outcome.GOOD: 1}
    assert json.loads(report.to_json())["bundles"][0]["remedy"] is None
    assert 'remedy">' not in render_page(report)


def test_the_page_says_a_remedy_once_for_all_that_it_mends(safe: Bench) -> None:
    safe.endpoints["disk"].corrupt(LFN)
    page = render_page(audited(safe, Choice(deep=True)))
    assert page.count("has adler32") == page.count("as read back: ") == 1
    assert page.count(f"<code>mover run retry {RUN} --look</code>") == 1
    assert f"<code>{LFN.replace('/', '/<wbr>')}</code>" in page

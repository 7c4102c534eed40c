"""The files under monitoring/: each alert is tested by promtool, and speaks of metrics that there are."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mover.agentstate import AgentState, IdentityState, Urgency
from mover.metrics.collector import MoverCollector, render
from tests.unit.mover.bench import NOW
from tests.unit.mover.reco.recobench import RecoBench

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
RULES = (MONITORING / "mover.rules.yml").read_text(encoding="utf-8")
TESTS = (MONITORING / "tests" / "mover.test.yml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "mover.dashboard.json").read_text(encoding="utf-8"))
ALERTS = re.findall(r"- alert: (\w+)", RULES)
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def _promtool(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("promtool")
    program = str(beside) if beside.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not there: `make .venv/bin/promtool`, or apt install prometheus")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_well_formed() -> None:
    _promtool("check", "rules", "monitoring/mover.rules.yml")


def test_each_rule_fires_when_it_should_and_not_before() -> None:
    _promtool("test", "rules", "monitoring/tests/mover.test.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_test_of_both_kinds_an_explanation_and_a_remedy(alert: str) -> None:
    assert re.search(rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:", TESTS), "nothing fires it"
    assert f"{{alertname: {alert}, eval_time: " in TESTS, "nothing is not enough"
    assert f"| `{alert}` |" in (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rule = RULES.split(f"- alert: {alert}\n")[1].split("- alert:")[0]
    assert "remedy: " in rule
    assert "severity: " in rule


def test_rules_and_dashboard_speak_of_metrics_that_there_are(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    robot = IdentityState("robot", Urgency.OK, NOW, NOW, ())
    agents = (AgentState(Path("/a"), (robot,)),)
    text = render(MoverCollector(bench.config, now=lambda: NOW, ask_agents=lambda: agents)).decode()
    known = set(re.findall(r"^# TYPE (mover_\w+)", text, re.MULTILINE))
    for used in (RULES, *QUERIES):
        assert not set(re.findall(r"\bmover_\w+", used)) - known


def test_every_metric_is_explained(tmp_path: Path) -> None:
    bench = RecoBench(tmp_path)
    text = render(MoverCollector(bench.config, now=lambda: NOW, ask_agents=tuple)).decode()
    explained = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for name in re.findall(r"^# TYPE (mover_\w+)", text, re.MULTILINE):
        assert f"`{name}`" in explained, name


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["title"] == "Mover"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len(QUERIES) >= 10
    for panel in DASHBOARD["panels"]:
        assert {"title", "type", "gridPos"} <= panel.keys()
        # Whoever imports it says which Prometheus is meant.
        if "targets" in panel:
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}

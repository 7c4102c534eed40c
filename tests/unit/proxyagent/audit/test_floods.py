"""Floods: what anybody may cause as often as they like does not fill the disk, and is counted."""

from datetime import timedelta
from pathlib import Path

from tests.unit.proxyagent.audit.conftest import Now, Opener, events, records


def test_a_flood_of_refusals_is_counted(open_log: Opener, tmp_path: Path, now: Now) -> None:
    log = open_log()
    for _ in range(1000):
        log.record("refused", uid=1000, error="denied")
        log.record("busy", uid=1000)
    for _ in range(3):
        log.record("refused", uid=1001, error="denied")
    log.record("issued", uid=1000)
    now.time += timedelta(minutes=1)
    log.record("refused", uid=1000, error="denied")
    log.close()
    found = records(tmp_path / "audit")
    assert [record["event"] for record in found[:10]] == ["refused", "busy"] * 5
    assert [record["event"] for record in found[10:14]] == ["refused"] * 3 + ["issued"]
    assert [record["fields"] for record in found[14:16]] == [
        {"event": "refused", "uid": 1000, "count": 995},
        {"event": "busy", "uid": 1000, "count": 995},
    ]
    assert [record["event"] for record in found[14:]] == ["log-limited", "log-limited", "refused"]


def test_a_flood_is_summed_up_at_the_end_and_when_the_clock_is_set_back(
    open_log: Opener, tmp_path: Path, now: Now
) -> None:
    log = open_log()
    for _ in range(2):
        for _ in range(7):
            log.record("refused", uid=0)
        now.time -= timedelta(hours=1)
    log.close()
    assert events(tmp_path / "audit") == (["refused"] * 5 + ["log-limited"]) * 2


def test_a_flood_from_ever_other_users_is_bounded_too(open_log: Opener, tmp_path: Path) -> None:
    log = open_log()
    for uid in range(10_000):
        log.record("refused", uid=uid)
    log.close()
    assert len(records(tmp_path / "audit")) == 64 + 5 + 1
    assert records(tmp_path / "audit")[-1]["fields"] == {"event": "refused", "uid": None, "count": 10_000 - 64 - 5}

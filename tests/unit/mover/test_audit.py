"""An audit finds whatever was changed on the storage, changes nothing itself, and never takes silence for good."""

import json
from collections.abc import Callable, Generator
from datetime import timedelta

import pytest

from mover.audit.auditor import Progress
from mover.audit.choose import Choice, choose
from mover.audit.page import render_page
from mover.audit.report import Report
from mover.bundle import tar
from mover.catalogue import custody
from mover.catalogue.audits import Finding, Outcome, ReplicaResult, last_good, record_result, unfinished_audit
from mover.catalogue.replicas import replicas_of
from mover.cli.ranges import each_run, parse_runs
from mover.errors import (
    CatalogueError,
    ConfigError,
    CredentialError,
    EndpointUnavailableError,
)
from mover.pace import Pace
from mover.states import ReplicaState, RunState
from mover.storage.memory import MemoryEndpoint
from tests.unit.mover.auditing import add_safe_runs, audited, begin, found_at, go_on, limits
from tests.unit.mover.bench import LFN, NOW, RUN, Bench
from tests.unit.mover.running import known

DEEP = Choice(deep=True)
OTHERS = (4743, 4744, 4745, 4746)


@pytest.fixture
def safe(bench: Bench) -> Bench:
    """A safe run."""
    bench.make_safe()
    return bench


def replace(endpoint: MemoryEndpoint, data: bytes, lfn: str = LFN) -> None:
    """Put other bytes into the file's place, behind everybody's back."""
    endpoint.remove(lfn)
    endpoint.upload(lfn, [data], len(data))


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_right_is_found_good(safe: Bench, deep: bool) -> None:
    before = replicas_of(safe.catalogue, RUN)
    report = audited(safe, Choice(deep=deep))
    assert report.is_well
    assert report.outcomes == {Outcome.GOOD: 1}
    assert report.bundles[0].policy == "safe: 1 tape at 1 site, 1 disk"
    assert report.read_bytes == (2 * report.bundles[0].size_bytes if deep else 0)
    assert replicas_of(safe.catalogue, RUN) == before
    record = custody.records(safe.catalogue, RUN)[-1]
    assert record.event == "audited"
    assert (record.facts["deep"], record.facts["outcome"]) == (deep, "good")
    assert record.facts["replicas"] == {"tape": ["good"], "disk": ["good"]}


def _flip_a_byte(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def _change_a_header(data: bytes) -> bytes:
    return tar.header("04742.000", 0o7777, 0) + data[512:]


def _swap(data: bytes) -> bytes:
    part = 512 + (len(data) - 10240) // 2 // 512 * 512
    return data[part : 2 * part] + data[:part] + data[2 * part :]


SPOILT: list[tuple[Callable[[bytes], bytes], str]] = [
    (_flip_a_byte, "04742.000: sha256 is"),
    (_change_a_header, "the tar header of 04742.000 differs at byte"),
    (lambda data: data + b"\0", "bytes after its end"),
    (lambda data: data[:-1], "ends after"),
    (_swap, "the tar header of 04742.000 differs"),
]
NAMES = ["flipped byte", "tar header", "extra byte", "cut", "swapped"]


@pytest.mark.parametrize(("spoil", "text"), SPOILT, ids=NAMES)
@pytest.mark.parametrize("endpoint", ["tape", "disk"])
def test_deep_finds_what_was_changed_in_the_bytes_and_says_where(
    safe: Bench, endpoint: str, spoil: Callable[[bytes], bytes], text: str
) -> None:
    spoilt = safe.endpoints[endpoint]
    replace(spoilt, spoil(spoilt.content(LFN)))
    report = audited(safe, DEEP)
    outcome, said = found_at(report, endpoint)
    assert outcome is Outcome.WRONG
    assert f"as read back: {text}" in said.replace("as read back: has bytes", "as read back: bytes")
    assert report.outcomes == {Outcome.WRONG: 1}
    assert found_at(report, "disk" if endpoint == "tape" else "tape") == (Outcome.GOOD, "")


@pytest.mark.parametrize(("spoil", "_"), SPOILT, ids=NAMES)
def test_the_sites_own_size_and_checksum_tell_too(safe: Bench, spoil: Callable[[bytes], bytes], _: str) -> None:
    replace(safe.endpoints["disk"], spoil(safe.endpoints["disk"].content(LFN)))
    outcome, said = found_at(audited(safe), "disk")
    assert outcome is Outcome.WRONG
    assert "adler32" in said


def test_a_site_without_checksums_needs_a_deep_audit(safe: Bench) -> None:
    silent = MemoryEndpoint(name="disk", checksums=frozenset())
    data = safe.endpoints["disk"].content(LFN)
    silent.upload(LFN, [data], len(data))
    safe.endpoints["disk"] = silent
    report = audited(safe)
    assert found_at(report, "disk")[0] is Outcome.NOT_KNOWN
    assert report.bundles[0].replicas[0].findings[0].remedy.startswith("needs --deep")
    assert not report.is_well
    assert audited(safe, DEEP).is_well
    replace(silent, _flip_a_byte(data))
    assert found_at(audited(safe, DEEP), "disk")[0] is Outcome.WRONG


def test_a_missing_replica_is_wrong_and_stays_proven_in_the_catalogue(safe: Bench) -> None:
    safe.endpoints["disk"].remove(LFN)
    report = audited(safe)
    assert found_at(report, "disk") == (Outcome.WRONG, f"memory://here/{LFN} is not there any more")
    assert report.bundles[0].policy == "not safe: lacks 1 disk"
    assert "mover run retry 4742 --look" in report.bundles[0].replicas[0].findings[0].remedy
    assert safe.state("disk") is ReplicaState.VERIFIED
    assert known(safe.catalogue, RUN).state is RunState.SAFE


def test_a_file_that_left_tape_is_wrong(safe: Bench) -> None:
    safe.endpoints["tape"].migrated = lambda _: False
    outcome, said = found_at(audited(safe), "tape")
    assert outcome is Outcome.WRONG
    assert "is not on tape any more" in said


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_was_lost_from_disk_and_tape_is_wrong(safe: Bench, deep: bool) -> None:
    tape = safe.endpoints["tape"]
    tape.migrated = lambda _: False
    tape.evicted.add(LFN)
    outcome, said = found_at(audited(safe, Choice(deep=deep)), "tape")
    assert outcome is Outcome.WRONG
    assert "is LOST" in said


def test_an_evicted_file_is_as_it_should_be(safe: Bench) -> None:
    data = safe.endpoints["tape"].content(LFN)
    tape = safe.endpoints["tape"] = MemoryEndpoint(name="tape", tape=True)
    tape.upload(LFN, [data], len(data))
    tape.evicted.add(LFN)
    report = audited(safe)
    outcome, said = found_at(report, "tape")
    assert (outcome, report.is_well) == (Outcome.GOOD, True)
    assert "on tape only" in said
    assert audited(safe, DEEP).is_well
    assert LFN not in tape.evicted


class SlowTape(MemoryEndpoint):
    """Never brings anything online."""

    def bring_online(self, path: str) -> None:
        """Say yes."""


def test_a_file_that_does_not_come_from_tape_is_not_known(safe: Bench) -> None:
    data = safe.endpoints["tape"].content(LFN)
    tape = safe.endpoints["tape"] = SlowTape(name="tape", tape=True)
    tape.upload(LFN, [data], len(data))
    tape.evicted.add(LFN)
    outcome, said = found_at(audited(safe, DEEP), "tape")
    assert outcome is Outcome.NOT_KNOWN
    assert "did not come from tape within 0 s" in said


def test_what_was_found_wrong_stands_even_if_the_next_question_gets_no_answer(safe: Bench) -> None:
    disk = safe.endpoints["disk"]
    replace(disk, disk.content(LFN) + b"!")
    for _ in range(3):
        disk.fail_next(EndpointUnavailableError("down", hint="wait"), "checksum")
    outcome, said = found_at(audited(safe), "disk")
    assert outcome is Outcome.WRONG
    assert "bytes instead of" in said
    assert "down" in said


def test_a_short_outage_is_waited_for(safe: Bench) -> None:
    for _ in range(2):
        safe.endpoints["disk"].fail_next(EndpointUnavailableError("down", hint="wait"), "stat")
    assert audited(safe).is_well


class Down(MemoryEndpoint):
    """A site that does not answer, and counts how often it was asked."""

    asked = 0

    def stat(self, path: str) -> None:  # noqa: ARG002 - the port's
        """Never answers."""
        self.asked += 1
        raise EndpointUnavailableError(f"{self.name} does not answer", hint="wait")


def test_a_sick_site_is_left_alone_after_a_while_and_holds_up_no_other(safe: Bench) -> None:
    add_safe_runs(safe, OTHERS)
    sick = Down(name="disk")
    safe.endpoints["disk"] = sick
    report = audited(safe)
    assert sick.asked == 9
    assert report.by_endpoint == {"disk": {Outcome.NOT_KNOWN: 5}, "tape": {Outcome.GOOD: 5}}
    assert report.outcomes == {Outcome.NOT_KNOWN: 5}
    assert not report.is_well
    assert "not asked: disk did not answer for 3 bundles" in report.bundles[-1].replicas[0].findings[0].text


def test_an_audit_that_was_cut_short_goes_on_where_it_was(safe: Bench) -> None:
    add_safe_runs(safe, OTHERS)
    audit = begin(safe, Choice())
    seen: list[Progress] = []

    def lose_the_proxy(progress: Progress) -> None:
        if (progress.endpoint, progress.done) == ("disk", 2):
            safe.endpoints["disk"].fail_next(CredentialError("no Grid proxy", hint="run `proxyagent renew`"), "stat")

    with pytest.raises(CredentialError):
        go_on(safe, audit, observe=lose_the_proxy)
    unfinished = unfinished_audit(safe.catalogue)
    assert unfinished == audit
    report = go_on(safe, audit, observe=seen.append)
    assert report.is_well
    assert unfinished_audit(safe.catalogue) is None
    assert min(one.done for one in seen if one.endpoint == "disk") == 2
    for run in (RUN, *OTHERS):
        assert [one.event for one in custody.records(safe.catalogue, run)].count("audited") == 1
    custody.verify(safe.catalogue)


def test_an_audit_that_was_killed_between_its_last_answer_and_its_conclusion_is_concluded(safe: Bench) -> None:
    audit = begin(safe, Choice())
    for endpoint in ("tape", "disk"):
        record_result(safe.catalogue, audit, 1, ReplicaResult(endpoint, NOW), now=NOW)
    report = go_on(safe, audit)
    assert report.is_well
    assert custody.records(safe.catalogue, RUN)[-1].event == "audited"


def test_a_second_answer_to_the_same_question_is_not_written_down(safe: Bench) -> None:
    audit = begin(safe, Choice())
    wrong = Finding(Outcome.WRONG, "gone", "ask")
    record_result(safe.catalogue, audit, 1, ReplicaResult("disk", NOW, (wrong,)), now=NOW)
    record_result(safe.catalogue, audit, 1, ReplicaResult("disk", NOW), now=NOW)
    assert found_at(go_on(safe, audit), "disk")[0] is Outcome.WRONG


class CountingPace(Pace):
    """Counts, and does not wait."""

    def __init__(self) -> None:
        super().__init__(None)
        self.spent = 0

    def spend(self, size_bytes: int, _stop: object) -> None:
        """Count."""
        self.spent += size_bytes


def test_every_byte_that_is_read_goes_through_the_bandwidth_limit(safe: Bench) -> None:
    pace = CountingPace()
    report = audited(safe, DEEP, slowed=limits(pace=pace))
    assert pace.spent == report.read_bytes == 2 * report.bundles[0].size_bytes


class Endless(MemoryEndpoint):
    """Gives more than it has."""

    given = 0

    def read(self, path: str, *, offset: int = 0, size_bytes: int | None = None) -> Generator[bytes, None, None]:
        """For ever, however much is asked for."""
        yield from super().read(path, offset=offset, size_bytes=size_bytes)
        while True:
            self.given += 1
            yield bytes(4096)


def test_a_site_that_gives_without_end_does_not_hold_the_audit(safe: Bench) -> None:
    data = safe.endpoints["disk"].content(LFN)
    endless = safe.endpoints["disk"] = Endless(name="disk")
    endless.upload(LFN, [data], len(data))
    assert found_at(audited(safe, DEEP), "disk")[0] is Outcome.WRONG
    assert endless.given == 1


def test_only_the_named_endpoints_are_asked_and_the_policy_is_not_judged(safe: Bench) -> None:
    safe.endpoints["disk"].remove(LFN)
    report = audited(safe, Choice(endpoints=("tape",)))
    assert report.is_well
    assert report.bundles[0].policy is None
    with pytest.raises(ConfigError, match="no endpoint 'castor'"):
        begin(safe, Choice(endpoints=("castor",)))


def test_what_is_still_being_moved_is_audited_only_if_it_is_named(bench: Bench) -> None:
    bench.close_run()
    assert audited(bench).bundles == ()
    report = audited(bench, Choice(runs=((RUN, RUN),)))
    assert report.outcomes == {Outcome.WRONG: 1}
    assert report.bundles[0].policy == "not safe: lacks 1 tape, 1 tape site, 1 disk"


def _runs(bench: Bench, choice: Choice, *, days: float = 0) -> int:
    return len(choose(bench.catalogue, bench.config, choice, now=NOW + timedelta(days=days)))


def test_bundles_are_chosen_by_number_by_lot_and_by_age(safe: Bench) -> None:
    add_safe_runs(safe, OTHERS)
    assert _runs(safe, Choice()) == 5
    assert _runs(safe, Choice(runs=((4743, 4744), (4746, 4800)))) == 3
    assert _runs(safe, Choice(sample=2)) == 2
    assert _runs(safe, Choice(sample=99)) == 5
    month = timedelta(days=30)
    assert _runs(safe, Choice(not_audited_for=month)) == 5
    audited(safe, Choice(runs=((4743, 4744),)))
    assert _runs(safe, Choice(not_audited_for=month), days=1) == 3
    assert _runs(safe, Choice(not_audited_for=month), days=31) == 5
    assert _runs(safe, Choice(not_audited_for=month, deep=True), days=1) == 5
    audited(safe, Choice(runs=((4745, 4745),), deep=True))
    assert _runs(safe, Choice(not_audited_for=month, deep=True), days=1) == 4
    assert _runs(safe, Choice(not_audited_for=month), days=1) == 2
    with pytest.raises(CatalogueError, match="runs 5000 to 5001 have no bundle"):
        _runs(safe, Choice(runs=((5000, 5001),)))


def test_a_bundle_that_was_not_found_good_at_every_endpoint_does_not_count_as_audited(safe: Bench) -> None:
    audited(safe, Choice(endpoints=("tape",)))
    assert last_good(safe.catalogue, deep=False) == {}
    safe.endpoints["disk"].remove(LFN)
    audited(safe)
    assert last_good(safe.catalogue, deep=False) == {}


@pytest.mark.parametrize(("text", "runs"), [("4742", (4742, 4742)), ("04742-4750", (4742, 4750)), ("0-0", (0, 0))])
def test_runs_are_given_by_number_or_range(text: str, runs: tuple[int, int]) -> None:
    assert parse_runs(text) == runs


@pytest.mark.parametrize("text", ["", "-", "4742-", "-5", "5-4", "x", "4742.000", "٤٧٤٢", "99999999999", "1-2-3"])
def test_what_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|ends before"):
        parse_runs(text)


def test_more_runs_than_anybody_can_mean_are_refused_before_they_are_counted_out() -> None:
    assert list(each_run([(1, 2), (5, 5)])) == [1, 2, 5]
    with pytest.raises(ValueError, match="over 1000000 runs"):
        list(each_run([(0, 2**31 - 1)]))


def test_tapes_that_bring_nothing_online_are_not_waited_for_again_and_again(safe: Bench) -> None:
    add_safe_runs(safe, OTHERS)
    tape = SlowTape(name="tape", tape=True)
    for run in (RUN, *OTHERS):
        lfn = f"MICE/{run:05d}.tar"
        data = safe.endpoints["tape"].content(lfn)
        tape.upload(lfn, [data], len(data))
        tape.evicted.add(lfn)
    safe.endpoints["tape"] = tape
    report = audited(safe, DEEP)
    assert report.by_endpoint["tape"] == {Outcome.NOT_KNOWN: 5}
    assert "not asked: tape did not answer for 3 bundles" in found_at_last(report, "tape")


def found_at_last(report: Report, endpoint: str) -> str:
    """The first sentence on the last bundle there."""
    return next(one for one in report.bundles[-1].replicas if one.endpoint == endpoint).findings[-1].text


def test_the_report_as_json_has_everything(safe: Bench) -> None:
    safe.endpoints["disk"].remove(LFN)
    document = json.loads(audited(safe, DEEP).to_json())
    assert (document["well"], document["deep"], document["outcomes"]["wrong"]) == (False, True, 1)
    (bundle,) = document["bundles"]
    assert (bundle["run"], bundle["lfn"], bundle["outcome"]) == (RUN, LFN, "wrong")
    disk = next(one for one in bundle["replicas"] if one["endpoint"] == "disk")
    assert disk["findings"][0]["outcome"] == "wrong"
    assert disk["findings"][0]["remedy"]


def test_the_page_stands_alone_and_believes_nothing(safe: Bench) -> None:
    audit = begin(safe, Choice())
    hostile = "</style><script src=//evil></script>&\"'"
    finding = Finding(Outcome.WRONG, hostile, hostile)
    for endpoint in ("tape", "disk"):
        record_result(safe.catalogue, audit, 1, ReplicaResult(endpoint, NOW, (finding,)), now=NOW)
    page = render_page(go_on(safe, audit))
    assert "<script" not in page
    assert "&lt;script src=//evil&gt;" in page
    assert "http:" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "prefers-color-scheme: dark" in page
    assert "Of 1 bundles: 1 wrong." in page


def test_nothing_to_audit_is_said_and_is_not_called_well(bench: Bench) -> None:
    report = audited(bench)
    assert "nothing to audit" in str(report)
    assert "nothing to audit" in render_page(report)

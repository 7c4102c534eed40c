"""End-of-run markers: noticed once, looked at again when touched, and never followed."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mover.states import RunEvent, RunState
from tests.unit.mover.bench import RUN, Bench
from tests.unit.mover.running import (
    LATER_RUN,
    News,
    end_later_run,
    events,
    is_in,
    known,
    look_once_more,
    marker_of,
    running,
)

pytestmark = pytest.mark.usefixtures("looks_often")


def _set_mtime(path: Path, ns: int) -> None:
    os.utime(path, ns=(ns, ns))


def test_a_quarantined_run_is_looked_at_again_only_when_its_marker_is_touched(bench: Bench, news: News) -> None:
    bench.files[1].unlink()
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.QUARANTINED))
        look_once_more(bench, news)
        assert events(bench, RUN) == [RunEvent.INCOMPLETE]
        _set_mtime(marker_of(bench), marker_of(bench).stat().st_mtime_ns + 1)
        news.wait_until(lambda: events(bench, RUN) == [RunEvent.INCOMPLETE] * 2)
    assert news.count("needs a person: ") == 2


def test_a_run_that_is_mended_and_marked_again_goes_on(bench: Bench, news: News) -> None:
    hidden = bench.files[1].rename(bench.files[1].with_name("hidden"))
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.QUARANTINED))
        hidden.rename(bench.files[1])
        _set_mtime(marker_of(bench), marker_of(bench).stat().st_mtime_ns - 1)
        news.wait_until(is_in(bench, RUN, RunState.SAFE))


def test_a_second_end_of_run_with_other_files_is_noted_once(bench: Bench, news: News) -> None:
    bench.close_run()
    bench.files[0].write_bytes(b"other")
    with running(bench):
        news.wait_until(lambda: known(bench.catalogue, RUN).problem is not None)
        look_once_more(bench, news)
    assert events(bench, RUN).count("problem found") == 1


def test_a_marker_of_a_far_future_is_remembered_like_any_other(bench: Bench, news: News) -> None:
    """Beyond 2262 the nanoseconds do not fit in 64 bits."""
    far = int(datetime(2300, 1, 1, tzinfo=UTC).timestamp()) * 10**9 + 1
    _set_mtime(marker_of(bench), far)
    if marker_of(bench).stat().st_mtime_ns != far:
        pytest.skip("the file system of the temporary directory keeps no such time; ext4, xfs and tmpfs do")
    with running(bench):
        news.wait_until(is_in(bench, RUN, RunState.SAFE))
        look_once_more(bench, news)
    assert known(bench.catalogue, RUN).marker_ns == far
    assert news.count(f"run {RUN}: end of run noticed") == 1


def test_the_marker_of_a_run_that_was_closed_by_command_is_looked_at_once(bench: Bench, news: News) -> None:
    bench.close_run()
    assert known(bench.catalogue, RUN).marker_ns is None
    with running(bench):
        news.wait_until(lambda: known(bench.catalogue, RUN).marker_ns is not None)
        look_once_more(bench, news)
    assert known(bench.catalogue, RUN).marker_ns == marker_of(bench).stat().st_mtime_ns
    assert news.count(f"run {RUN}: end of run noticed, already closed") == 1
    assert news.count(f"run {RUN}: end of run noticed") == 1


def test_a_marker_that_is_no_plain_file_is_said_and_not_followed(bench: Bench, news: News) -> None:
    marker_of(bench).rename(bench.config.runs.directory / "elsewhere")
    marker_of(bench).symlink_to("elsewhere")
    marker_of(bench, RUN - 1).mkdir()
    with running(bench):
        look_once_more(bench, news)
    for run, kind in ((RUN, "a symlink"), (RUN - 1, "a folder")):
        quarantined = known(bench.catalogue, run)
        assert quarantined.state is RunState.QUARANTINED
        assert f"is {kind}, not a plain file" in (quarantined.problem or "")


def test_a_marker_that_cannot_be_examined_hides_no_other(
    bench: Bench, news: News, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_stat, sick = os.stat, marker_of(bench)

    def stat(path: int | str | Path, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if path == sick:
            raise OSError(errno.EIO, "Input/output error")
        return real_stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    end_later_run(bench)
    monkeypatch.setattr(os, "stat", stat)
    with running(bench):
        news.wait_until(lambda: bool(news.messages))
    assert is_in(bench, LATER_RUN, RunState.PLANNED)()

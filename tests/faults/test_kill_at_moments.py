"""kill -9 at random moments of slow transfers to real servers; the boundaries that nobody thought of."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.evidence import assert_record_is_whole, assert_stored_once
from tests.faults.rooms import RUN, Room
from tests.integration.mover.box import Box

_SLOW = 'url = "{}://'
_LIMIT = 'limit_bytes_per_second = 4_000_000\nurl = "{}://'


@pytest.mark.parametrize(
    "kills", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3600)])], ids=["20", "200"]
)
def test_killed_at_random_moments_every_replica_is_right_and_none_is_double(
    box: Box, kills: int, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)  # noqa: S311 - when to kill is no secret
    print(f"random seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - as above
    room = Room(box)
    for scheme in ("root", "davs"):
        room.configure(_SLOW.format(scheme), _LIMIT.format(scheme))
    runs = range(RUN, RUN + kills)
    for run in runs:
        room.write_run(run, part_bytes=chance.choice([10_000, 1 << 20, 3 << 20]))
        engine = box.start_engine()
        time.sleep(chance.uniform(0.4, 2.5))
        engine.send_signal(signal.SIGKILL)
        engine.wait(timeout=10)
    for scheme in ("root", "davs"):
        room.configure(_LIMIT.format(scheme), _SLOW.format(scheme))
    with box.engine():
        room.wait_until_safe(*runs)
    assert_stored_once(
        room, tmp_path / "unpacked", {f"MICE/Step1/{run // 100 * 100:05d}/{run:05d}.tar": run for run in runs}
    )
    for run in runs:
        assert_record_is_whole(room, run)

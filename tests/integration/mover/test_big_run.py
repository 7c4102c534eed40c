"""A part of 9 GB, too large for octal in a tar header, streams through little memory, is read once, never staged."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.mover.box import Box
from tests.integration.mover.measured_upload import LARGEST_FILE_BYTES

RUN = 4742
GIGABYTE = 10**9
SECONDS = 1800
ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("parts", "part_bytes"),
    [
        # Eleven octal digits end at 8 GiB (POSIX pax, ustar's size field).
        pytest.param(1, 9 * GIGABYTE, id="9 GB"),
        pytest.param(2, 10 * GIGABYTE, id="20 GB", marks=pytest.mark.long),
    ],
)
def test_gigabytes_are_read_once_through_little_memory_and_staged_nowhere(
    box: Box, parts: int, part_bytes: int
) -> None:
    store = box.site.disk_brunel.directory
    needed = parts * part_bytes + 4 * GIGABYTE
    if shutil.disk_usage(store).free < needed:
        pytest.skip(f"less than {needed // GIGABYTE} GB are free at {store}, where the storage element keeps the run")
    files = box.room.daq.write_run(RUN, parts=parts, part_bytes=part_bytes, sparse=True)
    config = box.room.config_path.read_text()
    # The disk endpoint over root://, the protocol for bulk data, and from here.
    config = config.replace(box.site.disk_brunel.davs_url, box.site.disk_brunel.root_url)
    config = config.replace('name = "brunel-disk"', 'name = "brunel-disk"\nsource = "local"')
    box.room.config_path.write_text(config)
    command = [sys.executable, "-P", "-m", "tests.integration.mover.measured_upload"]
    try:
        done = subprocess.run(
            [*command, str(box.room.config_path), str(RUN), "brunel-disk"],
            cwd=ROOT, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        print(figures)
        stored = box.stored()["brunel-disk"]["MICE/Step1/04700/04742.tar"]
        assert figures["state"] == "verified"
        assert stored.stat().st_size == figures["bundle_bytes"] > parts * part_bytes * 0.99
        assert figures["peak_bytes"] < 250e6
        assert figures["bundle_bytes"] <= figures["read_bytes"] < 1.02 * figures["bundle_bytes"]
        for file in files:
            _assert_member_is(stored, file)
    finally:
        shutil.rmtree(store / "disk" / "disk" / box.below, ignore_errors=True)


def _assert_member_is(bundle: Path, file: Path) -> None:
    """GNU tar takes the same bytes out of the bundle."""
    with subprocess.Popen(["tar", "-xOf", str(bundle), file.name], stdout=subprocess.PIPE) as tar:
        same = subprocess.run(["cmp", "-", str(file)], stdin=tar.stdout, timeout=SECONDS, check=False)
        assert tar.stdout is not None
        tar.stdout.close()
    assert (same.returncode, tar.returncode) == (0, 0)


def test_the_limit_on_file_sizes_would_notice_a_staged_bundle(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))

    code = f"with open('staged', 'wb') as file: file.write(bytes({LARGEST_FILE_BYTES} + 1))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "File too large" in done.stderr

"""A real MICE raw file: our DATE walker and our bundle agree with what is known of it."""

import io
import shutil
import tarfile
import zlib
from pathlib import Path

from mover.bundle.plan import plan_bundle
from mover.bundle.scan import scan
from mover.bundle.stream import BundleReader
from mover.config import RunsConfig
from tests.real_data import real_file


def test_run_6008_has_its_22_events_and_comes_out_of_the_bundle_unchanged(tmp_path: Path) -> None:
    real = real_file("06008.000")
    shutil.copy2(real, tmp_path)
    scanned = scan(tmp_path, RunsConfig(directory=tmp_path).naming(), 6008, date_format=True)
    assert scanned.findings == ()
    assert scanned.summary is not None
    assert scanned.summary.as_json()["events"] == {
        "START_OF_RUN": 2,
        "END_OF_RUN": 2,
        "START_OF_BURST": 6,
        "END_OF_BURST": 6,
        "PHYSICS": 6,
    }
    assert scanned.summary.as_json()["events_total"] == 22
    plan = plan_bundle(scanned, experiment="MICE", lfn="06008.tar", digests=("sha256", "md5"), force=False)
    reader = BundleReader(plan, tmp_path)
    bundle = b"".join(reader.chunks())
    assert dict(reader.digest.members[0].digests)["md5"] == "31710a3a2ffe5e31c34555d3171b4987"
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        part = archive.extractfile("06008.000")
        assert part is not None
        data = part.read()
    assert len(data) == 2_397_088
    assert f"{zlib.adler32(data):08x}" == "e7a0bfce"

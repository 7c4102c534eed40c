"""Releases on CVMFS: which there are, which are approved, and what is said where they are not."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mover.errors import ReleaseNotFoundError
from mover.reco.releases import CvmfsMount, Releases, by_version
from mover.reco.releases_process import mount_of
from mover.reco.software import SoftwareConfig

VERSIONS = ["MAUS-v0.9.9", "MAUS-v0.10.0", "MAUS-v1.0.0", "MAUS-v10.0.1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of releases, as on CVMFS, which is a plain one."""
    for name in VERSIONS:
        release = tmp_path / "cvmfs" / "slf6" / name
        release.mkdir(parents=True)
        (release / "env.sh").write_text("export MAUS=1\n")
    return tmp_path / "cvmfs"


def _config(root: Path, **more: Any) -> SoftwareConfig:
    return SoftwareConfig.model_validate({"path": f"{root}/{{platform}}/{{release}}", "platform": "slf6", **more})


def _refused(root: Path, *, release: str | None = None, **more: Any) -> ReleaseNotFoundError:
    releases = Releases(_config(root, **more))
    with pytest.raises(ReleaseNotFoundError) as caught:
        releases.check(release) if release else releases.latest()
    assert not caught.value.permanent
    return caught.value


def test_releases_come_in_the_order_of_their_versions(root: Path) -> None:
    (root / "slf6" / "README").touch()
    (root / "slf6" / ".cvmfscatalog").mkdir()
    (root / "slf6" / "latest").symlink_to("MAUS-v0.9.9")
    assert Releases(_config(root)).names() == ("MAUS-v0.9.9", "MAUS-v0.10.0", "MAUS-v1.0.0", "MAUS-v10.0.1")


@given(st.lists(st.text(max_size=20), min_size=2, max_size=5))
def test_any_names_can_be_put_in_order(names: list[str]) -> None:
    ordered = sorted(names, key=by_version)
    assert sorted(ordered) == sorted(names)


def test_the_latest_that_matches_the_pattern(root: Path) -> None:
    record = Releases(_config(root, approved_pattern="MAUS-v[01].*")).latest()
    assert record.name == "MAUS-v1.0.0"
    assert record.path == f"{root}/slf6/MAUS-v1.0.0"
    assert record.setup == f"{root}/slf6/MAUS-v1.0.0/env.sh"
    assert _refused(root, approved_pattern="G4*").message == f"no release in {root}/slf6 is approved"


def test_the_latest_that_the_file_names(root: Path) -> None:
    (root / "slf6" / "approved").write_text("# by the software board\nMAUS-v0.9.9\n\n  MAUS-v0.10.0  # for 2012\n")
    releases = Releases(_config(root, approved_file="approved"))
    assert releases.latest().name == "MAUS-v0.10.0"
    assert releases.check("MAUS-v0.9.9").name == "MAUS-v0.9.9"


@pytest.mark.parametrize("target", ["MAUS-v0.10.0", "./MAUS-v0.10.0/", "{root}/slf6/MAUS-v0.10.0"])
def test_the_one_that_the_symlink_points_to(target: str, root: Path) -> None:
    (root / "slf6" / "approved").symlink_to(target.format(root=root))
    assert Releases(_config(root, approved_symlink="approved")).latest().name == "MAUS-v0.10.0"


def test_those_approved_by_hand_count_too(root: Path) -> None:
    releases = Releases(_config(root, approved_pattern="MAUS-v0.*"))
    assert releases.latest(also_approved=["MAUS-v1.0.0"]).name == "MAUS-v1.0.0"
    assert Releases(_config(root)).check("MAUS-v1.0.0", also_approved=["MAUS-v1.0.0"]).name == "MAUS-v1.0.0"


def test_a_release_that_is_not_approved_is_refused(root: Path) -> None:
    error = _refused(root, release="MAUS-v1.0.0", approved_pattern="MAUS-v0.*")
    assert error.message == "release MAUS-v1.0.0 is not approved"
    assert "MAUS-v0.9.9, MAUS-v0.10.0" in error.hint


def test_a_release_that_is_not_there_is_refused_and_no_older_one_taken(root: Path) -> None:
    (root / "slf6" / "approved").write_text("MAUS-v99.0\nMAUS-v0.9.9\n")
    error = _refused(root, approved_file="approved")
    assert error.message == f"there is no release MAUS-v99.0 in {root}/slf6: no such file or directory"
    assert "MAUS-v10.0.1" in error.hint
    (root / "slf6" / "MAUS-v99.0").touch()
    assert "it is no directory" in _refused(root, approved_file="approved").message


def test_a_release_without_set_up_script_is_refused(root: Path) -> None:
    setup = root / "slf6" / "MAUS-v1.0.0" / "env.sh"
    for spoil in (setup.unlink, setup.touch, setup.unlink, setup.mkdir):
        spoil()
        error = _refused(root, release="MAUS-v1.0.0", approved_pattern="*")
        assert error.message.startswith(f"release MAUS-v1.0.0 cannot be set up: {setup}: "), spoil


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_set_up_script_that_may_not_be_read_is_refused(root: Path) -> None:
    (root / "slf6" / "MAUS-v1.0.0" / "env.sh").chmod(0)
    assert "permission denied" in _refused(root, release="MAUS-v1.0.0", approved_pattern="*").message


@pytest.mark.parametrize("hostile", ["../../etc", "/etc", "a b", "..", "-rf", ".hidden", "a\x1b[2J", "a/b"])
def test_a_pointer_that_names_no_release_is_refused(hostile: str, root: Path) -> None:
    (root / "slf6" / "approved").write_text(f"{hostile}\n")
    error = _refused(root, approved_file="approved")
    assert "names as approved" in error.message
    assert error.message.isprintable()
    (root / "slf6" / "link").symlink_to(hostile)
    assert "names as approved" in _refused(root, approved_symlink="link").message
    assert "cannot be called that" in _refused(root, release=hostile).message


def test_a_pointer_that_cannot_be_read_is_said(root: Path) -> None:
    error = _refused(root, approved_file="approved")
    assert error.message == f"cannot tell which release is approved: {root}/slf6/approved: no such file or directory"
    assert "invalid argument" in _refused(root, approved_symlink="MAUS-v1.0.0").message
    (root / "slf6" / "approved").write_bytes(b"\xff\xfe\0")
    assert "names as approved" in _refused(root, approved_file="approved").message
    (root / "slf6" / "approved").write_bytes(b"# none yet\n")
    assert _refused(root, approved_file="approved").message == f"no release in {root}/slf6 is approved"


def test_a_path_that_is_not_there_is_said(root: Path) -> None:
    error = _refused(root / "none")
    assert error.message == f"there are no releases in {root}/none/slf6: no such file or directory"


def test_a_file_system_that_hangs_is_given_up(root: Path) -> None:
    os.mkfifo(root / "slf6" / "approved")
    error = _refused(root, approved_file="approved", timeout_seconds=1)
    assert error.message == f"{root}/slf6 did not answer within 1 s"


def test_what_is_no_cvmfs_mount_is_reported_but_not_refused(root: Path) -> None:
    record = Releases(_config(root, approved_pattern="*")).latest()
    assert record.cvmfs is None
    assert record.remark
    assert "is not on a CVMFS mount" in record.remark


def test_the_revision_of_a_cvmfs_mount_is_recorded(root: Path, tmp_path: Path) -> None:
    """No CVMFS client is here: a table of mounts says that there is one, and a directory has its attributes."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\ncvmfs2 {root} fuse ro,nosuid 0 0\n")
    releases = Releases(_config(root, approved_pattern="*"), mounts=mounts)
    assert releases.latest().cvmfs == CvmfsMount(str(root), None, None)
    try:
        os.setxattr(root, "user.revision", b"1742")
        os.setxattr(root, "user.root_hash", b"7be6dea898de757324ee6bbfe14644f8c709cc42")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    record = releases.latest()
    assert record.cvmfs == CvmfsMount(str(root), 1742, "7be6dea898de757324ee6bbfe14644f8c709cc42")
    assert record.remark is None
    os.setxattr(root, "user.revision", b"none")
    assert releases.latest().cvmfs == CvmfsMount(str(root), None, "7be6dea898de757324ee6bbfe14644f8c709cc42")


@pytest.mark.parametrize(
    ("mounts", "point"),
    [
        ("cvmfs2 /cvmfs/mice.egi.eu fuse ro 0 0", "/cvmfs/mice.egi.eu"),
        ("cvmfs2 /cvmfs/mice.egi.eu fuse.cvmfs2 ro 0 0", "/cvmfs/mice.egi.eu"),
        ("/etc/auto.cvmfs /cvmfs autofs rw 0 0\ncvmfs2 /cvmfs/mice.egi.eu fuse ro 0 0", "/cvmfs/mice.egi.eu"),
        ("cvmfs2 /cvmfs/mice.egi.eu fuse ro 0 0\n/dev/sda1 /cvmfs/mice.egi.eu/slf6 ext4 rw 0 0", None),
        ("cvmfs2 /cvmfs/mice.egi.e fuse ro 0 0", None),
        ("sshfs /cvmfs/mice.egi.eu fuse ro 0 0", None),
        ("cvmfs2 /cvmfs/mice.egi.eu ext4 ro 0 0", None),
        ("cvmfs2 /cvmfs/mice.egi.eu fuse ro 0 0\n/dev/sda1 / ext4 rw 0 0", "/cvmfs/mice.egi.eu"),
        ("/dev/sda1 / ext4 rw 0 0", None),
        ("nonsense\n\n", None),
    ],
)
def test_mounts_are_read_as_the_kernel_writes_them(mounts: str, point: str | None) -> None:
    assert mount_of("/cvmfs/mice.egi.eu/slf6", mounts) == point


@given(st.text(alphabet="abc/ \n\\0142.", max_size=200))
def test_any_table_of_mounts_can_be_read(mounts: str) -> None:
    assert mount_of("/a", mounts) is None


@pytest.mark.parametrize(
    "table",
    [
        {"path": "/cvmfs/{platform}"},
        {"path": "cvmfs/{release}"},
        {"path": "/cvmfs/{release}/x"},
        {"path": "/cvmfs/{other}/{release}"},
        {"path": "/cvmfs/../{release}"},
        {"platform": "../x"},
        {"platform": ""},
        {"setup": "../env.sh"},
        {"setup": "/etc/profile"},
        {"approved_file": "a/b"},
        {"approved_file": "a", "approved_pattern": "*"},
        {"timeout_seconds": True},
    ],
)
def test_a_table_that_means_nothing_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SoftwareConfig.model_validate({"platform": "slf6", **table})

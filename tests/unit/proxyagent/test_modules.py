"""Only modules that nobody but root can have put there are loaded."""

import os
from pathlib import Path

import pytest

from proxyagent.errors import ConfigError
from proxyagent.modules import DEFAULT_ALLOWED, check_module

SOMEBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files that are root's and somebody's")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file of root's, in folders of root's."""
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    file = folder / "module.so"
    file.write_bytes(b"")
    file.chmod(0o644)
    return file


def allowed(path: Path) -> tuple[str, ...]:
    return (f"{path.parent.parent}/*",)


@as_root
def test_a_file_of_roots_is_taken(module: Path) -> None:
    assert check_module(module, allowed(module)) == module


@as_root
def test_a_link_is_followed_and_what_it_leads_to_is_judged(module: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.so"
    link.symlink_to(module)
    assert check_module(link, (f"{tmp_path}/lib/*",)) == module
    with pytest.raises(ConfigError, match="is not where modules may lie"):
        check_module(link, (f"{tmp_path}/link*",))


def test_what_no_pattern_allows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "module.so"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="is not where modules may lie") as caught:
        check_module(file)
    assert "/opt/*" in caught.value.hint
    assert "`modules` in [agent]" in caught.value.hint
    # A pattern is matched against the whole path.
    with pytest.raises(ConfigError, match="is not where modules may lie"):
        check_module(file, ("/usr/lib/*", "module.so"))


def test_the_way_up_does_not_lead_out(tmp_path: Path) -> None:
    file = tmp_path / "module.so"
    file.write_bytes(b"")
    sneaky = Path("/usr/lib/../../" + str(file))
    with pytest.raises(ConfigError, match="is not where modules may lie"):
        check_module(sneaky, DEFAULT_ALLOWED)


@as_root
@pytest.mark.parametrize("target", ["lib/module.so", "lib", "."])
def test_what_belongs_to_somebody_else_is_refused(module: Path, tmp_path: Path, target: str) -> None:
    os.chown(tmp_path / target, SOMEBODY, -1)
    with pytest.raises(ConfigError, match=f"belongs to uid {SOMEBODY}"):
        check_module(module, allowed(module))


@as_root
@pytest.mark.parametrize("bits", [0o020, 0o002])
@pytest.mark.parametrize("target", ["lib/module.so", "lib", "."])
def test_what_others_may_write_is_refused(module: Path, tmp_path: Path, target: str, bits: int) -> None:
    path = tmp_path / target
    path.chmod(path.stat().st_mode | bits)
    with pytest.raises(ConfigError, match=r"others than root may write") as caught:
        check_module(module, allowed(module))
    assert caught.value.hint == f"chmod go-w {path}"


@as_root
def test_a_sticky_folder_may_be_everybodys(module: Path) -> None:
    module.parent.chmod(0o1777)
    assert check_module(module, allowed(module)) == module
    module.chmod(0o1646)
    with pytest.raises(ConfigError, match="others than root may write"):
        check_module(module, allowed(module))


@pytest.mark.parametrize("name", ["absent.so", "a\0b.so", "x" * 300, "circle.so"])
def test_what_cannot_be_looked_at_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle.so").symlink_to("circle.so")
    with pytest.raises(ConfigError, match="cannot use the PKCS#11 module") as caught:
        check_module(tmp_path / name, ("*",))
    assert "`module`" in caught.value.hint
    assert "\0" not in caught.value.message


@as_root
def test_a_folder_or_device_is_no_module(module: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        check_module(module.parent, allowed(module))
    with pytest.raises(ConfigError, match="is not a file"):
        check_module(Path("/dev/null"), ("/dev/*",))

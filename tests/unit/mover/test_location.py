"""Base URLs, good and bad."""

import pytest

from mover.errors import ConfigError, UnsafeNameError
from mover.location import Location


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("root://se.example.org//castor/mice", "root://se.example.org//castor/mice/a/b"),
        ("root://se.example.org:1094//store/", "root://se.example.org:1094//store/a/b"),
        ("roots://se.example.org//castor/mice", "roots://se.example.org//castor/mice/a/b"),
        ("gsiftp://se.example.org//dpm/home", "gsiftp://se.example.org/dpm/home/a/b"),
        ("davs://se.example.org:443/dpm/home", "davs://se.example.org:443/dpm/home/a/b"),
        ("davs://[::1]:443/dpm", "davs://[::1]:443/dpm/a/b"),
    ],
)
def test_urls(base_url: str, url: str) -> None:
    location = Location.parse(base_url, base_url.partition(":")[0])
    assert location.url("a/b") == url
    assert location.parent_url("a/b") == url.removesuffix("/b")
    assert f"{location.parent_url('a')}/a/b" == url


@pytest.mark.parametrize(
    "base_url",
    [
        "davs://host/store",
        "root://host",
        "root://host//",
        "root://:1094//store",
        "root://user@host//store",
        "root://host//store?xrd.gsiusrpxy=/tmp/x",
        "root://host//store/../etc",
        "root://host:port//store",
        "root://host//st%6fre",
        "root://ho st//store",
        "",
    ],
)
def test_bad_base_urls(base_url: str) -> None:
    with pytest.raises(ConfigError):
        Location.parse(base_url, "root")


def test_paths_are_checked() -> None:
    with pytest.raises(UnsafeNameError):
        Location.parse("root://host//store", "root").url("../a")


@pytest.mark.parametrize(("scheme", "port"), [("root", 1094), ("roots", 1094), ("davs", 443), ("gsiftp", 2811)])
def test_default_port(scheme: str, port: int) -> None:
    written_out = Location.parse(f"{scheme}://host:{port}/store", scheme)
    assert Location.parse(f"{scheme}://host/store", scheme).canonical() == written_out.canonical()
    assert written_out.canonical() != Location.parse(f"{scheme}://host:4711/store", scheme).canonical()


def test_tls_does_not_make_it_another_place() -> None:
    plain, within_tls = (Location.parse(f"{scheme}://host//store", scheme) for scheme in ("root", "roots"))
    assert plain.canonical() == within_tls.canonical()
    assert plain.canonical() != Location.parse("davs://host:1094//store", "davs").canonical()

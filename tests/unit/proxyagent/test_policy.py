"""The configuration: what is accepted, whom it allows what, and refusals that name the key and the remedy."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxyagent.errors import ConfigError, DeniedError, RequestError
from proxyagent.policy import Config, load

GOOD = """
[agent]
socket = "/run/proxyagent/agent.sock"
socket_mode = "0666"

[voms]
uid = 992

[[identity]]
name = "mover"
module = "/usr/lib/softhsm/libsofthsm2.so"
uri = "pkcs11:serial=1234"

[[identity]]
name = "offline"
module = "/usr/lib/softhsm/libsofthsm2.so"
uri = "pkcs11:serial=5678"
subject = "/C=UK/CN=offline"
pin_credential = "offline-pin"

[[profile]]
name = "mover"
identity = "mover"
fqans = ["/mice/Role=production", "/mice"]
uids = [1000]
units = ["mover.service"]

[[profile]]
name = "reco"
identity = "offline"
limited = true
path_length = 0
max_lifetime_seconds = 600
uids = [1001]
gids = [2000]
"""


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "proxyagent.toml"
    file.write_text(text)
    return load(file)


def test_a_good_file(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.agent.socket == Path("/run/proxyagent/agent.sock")
    assert config.agent.socket_mode == 0o666
    assert config.agent.session_lifetime_seconds == 12 * 3600
    assert [identity.uri.serial for identity in config.identity] == ["1234", "5678"]
    assert config.trust.crls == "require"
    assert config.profile[0].vo == "mice"
    assert config.identity_of(config.profile[1]) == "offline"
    assert config.profile[1].limited
    assert config.profile[1].path_length == 0


def nowhere() -> str | None:
    return None


def test_who_may_have_what(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert [profile.name for profile in config.profiles_of(1000, {100, 2000})] == ["mover", "reco"]
    assert config.profiles_of(1002, {1002}) == ()
    assert config.profiles_of(0, {0}) == ()
    assert config.select("reco", 7, {2000}, nowhere).name == "reco"
    with pytest.raises(DeniedError, match="uid 1000 may not use profile 'reco'"):
        config.select("reco", 1000, {1000}, nowhere)
    with pytest.raises(RequestError, match="no profile 'nothing'"):
        config.select("nothing", 1000, {1000}, nowhere)
    # Those who may have nothing learn nothing.
    with pytest.raises(DeniedError):
        config.select("nothing", 5, {5}, nowhere)


def test_the_unit_only_narrows(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.select("mover", 1000, {1000}, lambda: "mover.service").name == "mover"
    for unit in ("mover@1.service", None):
        with pytest.raises(DeniedError, match="may not use profile 'mover'") as caught:
            config.select("mover", 1000, {1000}, lambda unit=unit: unit)  # type: ignore[misc]  # bound in the loop
        assert "mover.service" in caught.value.hint
    # The right unit is no right.
    with pytest.raises(DeniedError, match="uid 1002"):
        config.select("mover", 1002, {1002}, lambda: "mover.service")


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ('socket_mode = "0666"', "sockte_mode = 1", "unknown key 'agent.sockte_mode'", "socket_mode"),
        ("limited = true", "limitd = true", "unknown key 'profile.1.limitd'", "limited"),
        ("[agent]", "[agnet]", "'agent' is missing", "add"),
        ('module = "/usr/lib/softhsm/libsofthsm2.so"', "", "'identity.0.module' is missing", "add"),
        ("[voms]\nuid = 992\n", "", "has FQANs, but there is no", "correct"),
        ('identity = "offline"', 'identity = "onlin"', "names an identity that does not exist", "correct"),
        ('identity = "offline"', "", "does not say which identity", "correct"),
        ('name = "offline"', 'name = "mover"', "two identities of one name", "correct"),
        ('"/mice"]', '"/t2k.org"]', "FQANs of several VOs", "correct"),
        ('"/mice"]', '"mice"]', "profile.0.fqans.1", "correct"),
        ('"/mice"]', '"/mice/Role=a,/b"]', "profile.0.fqans.1", "correct"),
        ("[voms]", '[trust]\ncrls = "maybe"\n[voms]', "trust.crls", "correct"),
        ('socket_mode = "0666"', 'on_removal = "burn"', "agent.on_removal", "correct"),
        ('socket = "/run', 'socket = "run', "agent.socket: is not an absolute path", "correct"),
        ("agent.sock", "a" * 100, "agent.socket: is longer than 107 bytes", "correct"),
        ('"0666"', '"7777"', "agent.socket_mode: has more than permission bits", "correct"),
        ('"0666"', "666", "agent.socket_mode: is not an octal mode", "correct"),
        ("uids = [1000]", "uids = []", "profile.0: allows nobody", "correct"),
        ("uids = [1000]", "uids = [-1]", "profile.0.uids", "correct"),
        ("uids = [1000]", "uids = [4294967295]", "profile.0.uids", "correct"),
        ('"reco"', '"mover"', "two profiles of one name", "correct"),
        ('"reco"', '"a b"', "profile.1.name", "correct"),
        ("max_lifetime_seconds = 600", "max_lifetime_seconds = 600.0", "max_lifetime_seconds", "correct"),
        ("max_lifetime_seconds = 600", "max_lifetime_seconds = 86401", "max_lifetime_seconds", "correct"),
        ("max_lifetime_seconds = 600", "max_lifetime_seconds = 59", "max_lifetime_seconds", "correct"),
        ("path_length = 0", "path_length = 17", "profile.1.path_length", "correct"),
        ("path_length = 0", "path_length = -1", "profile.1.path_length", "correct"),
        ("[voms]", "session_lifetime_seconds = 604801\n[voms]", "agent.session_lifetime_seconds", "correct"),
        ("[voms]", "module_timeout_seconds = 0\n[voms]", "agent.module_timeout_seconds", "correct"),
        ("[voms]", "module_timeout_seconds = inf\n[voms]", "agent.module_timeout_seconds", "correct"),
        ("[voms]", "max_connections = 257\n[voms]", "agent.max_connections", "correct"),
        ("[voms]", "modules = []\n[voms]", "agent.modules", "correct"),
        ("uid = 992", "uid = 992\nlifetime_seconds = 599", "voms.lifetime_seconds", "correct"),
        ("[agent]", "[agent", "is not TOML", "correct"),
    ],
)
def test_refusals_name_the_key_and_the_remedy(tmp_path: Path, old: str, new: str, message: str, hint: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert hint in caught.value.hint


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="too long for a configuration"):
        load(Path("/dev/zero"))


def test_a_pin_in_the_uri_is_refused_with_its_own_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="carries a PIN") as caught:
        read(tmp_path, GOOD.replace("serial=1234", "serial=1234?pin-value=987654"))
    assert "987654" not in caught.value.message
    assert "new PIN" in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nothing.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rubbish.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load(file)

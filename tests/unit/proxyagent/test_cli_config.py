"""`proxyagent config check`: the file alone, and what it names on this machine."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyagent.cli.config import command
from proxyagent.errors import ConfigError

MODULE = "/usr/bin/env"  # any file of root's in folders of root's


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "proxyagent.toml"
    path.write_text(
        f'[agent]\nsocket = "/run/proxyagent/agent.sock"\nmodules = ["/usr/*"]\n'
        f'[trust]\nca_directory = "{tmp_path}/ca"\n'
        f'[voms]\nuid = 992\nvomses = "{tmp_path}/vomses"\nvomsdir = "{tmp_path}/vomsdir"\n'
        f'[[identity]]\nname = "mover"\nmodule = "{MODULE}"\nuri = "pkcs11:serial=1"\n'
        '[[profile]]\nname = "mover"\nfqans = ["/mice/Role=production"]\nuids = [990]\n'
    )
    return path


def check(config: Path, *options: str) -> str:
    return CliRunner().invoke(command, ["check", *options], obj=config, catch_exceptions=False).stdout


def test_all_that_is_missing_on_this_machine_is_said_at_once(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace(MODULE, "/usr/lib/none.so"))
    with pytest.raises(ConfigError) as refused:
        check(config)
    for said in ("identity mover: cannot use the PKCS#11 module", f"{tmp_path}/ca has no", "vomses is not", "for mice"):
        assert said in refused.value.message


def test_it_is_content_when_all_is_there(config: Path, tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "01234567.0").touch()
    (tmp_path / "vomses").touch()
    (tmp_path / "vomsdir" / "mice").mkdir(parents=True)
    (tmp_path / "vomsdir" / "mice" / "voms.example.org.lsc").touch()
    assert check(config) == f"{config} is good: identities: 1, profiles: 1\n"


def test_the_file_alone_is_good_before_the_machine_is(config: Path) -> None:
    assert check(config, "--only-file").endswith(" is good: identities: 1, profiles: 1\n")
    config.write_text(config.read_text() + "[[unknown]]\n")
    with pytest.raises(ConfigError, match="unknown key 'unknown'"):
        check(config, "--only-file")

"""vomses and .lsc files: what real ones look like is read, anything else is refused with its place."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyagent.errors import ConfigError, VomsError
from proxyagent.voms.lsc import check_lsc
from proxyagent.voms.names import printable, same_name, short_fqan
from proxyagent.voms.vomses import VomsServer, servers_of
from tests.unit.proxyagent.conftest import Credential

LINE = '"mice" "voms.example.org" "15001" "/DC=org/DC=example/CN=host/voms.example.org" "mice"'
SERVER = VomsServer("mice", "voms.example.org", 15001, "/DC=org/DC=example/CN=host/voms.example.org", "mice")


def test_a_file_with_comments_and_other_vos_is_read(tmp_path: Path) -> None:
    file = tmp_path / "vomses"
    other = '"other" "voms2.example.org" "15002" "/CN=voms2" "cms" "24"'
    second = '  "backup" "2001:db8::1" "15003" "/CN=voms3" "mice" "24" "1"  '
    file.write_text(f"# servers\n\n{LINE}\n{other}\n{second}\n{LINE}\n")
    found = servers_of(file, "mice")
    assert found == (SERVER, VomsServer("backup", "2001:db8::1", 15003, "/CN=voms3", "mice"))
    assert [str(server) for server in found] == ["voms.example.org:15001", "[2001:db8::1]:15003"]
    with pytest.raises(ConfigError, match="no server of VO 'atlas'"):
        servers_of(file, "atlas")


def test_the_files_of_a_directory_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").write_text(LINE)
    (tmp_path / "a").write_text(LINE.replace("15001", "15009"))
    (tmp_path / ".hidden").write_text("not a vomses file")
    (tmp_path / "subdirectory").mkdir()
    assert [server.port for server in servers_of(tmp_path, "mice")] == [15009, 15001]


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace('"', ""),
        LINE + ' "24" "1" "more"',
        '"mice" "voms.example.org" "15001" "/CN=voms"',
        LINE.replace("15001", "0"),
        LINE.replace("15001", "65536"),
        LINE.replace("15001", "-1"),
        LINE.replace("voms.example.org", "voms example.org"),
        LINE.replace("voms.example.org", ""),
        LINE.replace("voms.example.org", "fe80::1%eth0"),
        LINE.replace("/DC=org", "DC=org"),
        LINE.replace('"mice"', '"../mice"'),
        LINE + "\x00",
    ],
)
def test_a_malformed_line_is_refused_with_its_place(line: str, tmp_path: Path) -> None:
    file = tmp_path / "vomses"
    file.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(ConfigError, match=r"vomses, line 2 does not describe"):
        servers_of(file, "mice")


def test_absurd_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        servers_of(tmp_path / "missing", "mice")
    (tmp_path / "long").write_text(f"{LINE}\n" * 5000)
    with pytest.raises(ConfigError, match="too long"):
        servers_of(tmp_path / "long", "mice")
    (tmp_path / "many").write_text("".join(f"{LINE.replace('15001', str(15001 + n))}\n" for n in range(17)))
    with pytest.raises(ConfigError, match="17 servers"):
        servers_of(tmp_path / "many", "mice")


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='"#/= \nmice15001\\x00é', max_size=200).map(str.encode)))
def test_any_bytes_are_servers_or_a_configuration_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            servers = servers_of(Path(file.name), "mice")
        except ConfigError:
            return
        assert all(server.vo == "mice" and 0 < server.port < 65536 for server in servers)


def test_names_are_the_same_however_their_types_are_spelt() -> None:
    assert same_name("/C=UK/CN=a/E=x@y", "/C=UK/CN=a/emailAddress=x@y")
    assert same_name("/DC=org/UID=robot", "/dc=org/USERID=robot")
    assert same_name("/CN=host/voms.example.org", "/CN=host/voms.example.org")
    assert not same_name("/CN=a", "/CN=A")
    assert not same_name("/CN=a", "/CN=a/CN=1")
    assert not same_name("/O=a", "/OU=a")


def test_fqans_have_one_shortest_form() -> None:
    same = ("/mice/ROLE=reco", "/mice/Role=reco", "/mice/role=reco/Capability=NULL")
    assert {short_fqan(fqan) for fqan in same} == {"/mice/Role=reco"}
    assert {short_fqan(fqan) for fqan in ("/mice", "/mice/Role=NULL", "/mice/Role=NULL/Capability=NULL")} == {"/mice"}
    assert short_fqan("/mice/Role=reco/Capability=special") == "/mice/Role=reco/Capability=special"


def test_what_others_say_stays_on_one_short_line() -> None:
    assert printable("a\nb\x1b[31m\x00") == "a b [31m"
    assert len(printable("x" * 10_000)) < 400


class TestLsc:
    @staticmethod
    def write(vomsdir: Path, text: str, *, vo: str = "mice") -> Path:
        (vomsdir / vo).mkdir(parents=True, exist_ok=True)
        (vomsdir / vo / "voms.lsc").write_text(text)
        return vomsdir

    # The robot stands for a VOMS server here: only names count.
    HOST, CA = "/C=UK/O=Sandbox/CN=Robot", "/C=UK/O=Sandbox/CN=Sandbox CA"

    @pytest.mark.parametrize(
        "text",
        [
            f"{HOST}\n{CA}\n",
            f"\r\n{HOST}\r\n  {CA}\r\n\r\n",
            f"/CN=old\n/CN=old CA\n------ NEXT CHAIN ------\n{HOST}\n{CA}",
        ],
    )
    def test_a_chain_that_is_named_is_accepted(self, text: str, robot: Credential, tmp_path: Path) -> None:
        check_lsc(self.write(tmp_path, text), "mice", robot.chain)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            HOST,
            f"{CA}\n{HOST}\n",
            f"{HOST}\n/C=UK/O=Sandbox/CN=Other CA\n",
            f"{HOST}\n{CA}\n/C=UK/O=Sandbox/CN=Root\n",
            f"{HOST}\n------ NEXT CHAIN ------\n{CA}\n",
            f"{HOST}/CN=1\n{CA}\n",
        ],
    )
    def test_any_other_is_refused(self, text: str, robot: Credential, tmp_path: Path) -> None:
        with pytest.raises(VomsError, match="no VOMS server of 'mice'"):
            check_lsc(self.write(tmp_path, text), "mice", robot.chain)

    def test_a_server_of_one_vo_is_none_of_another(self, robot: Credential, tmp_path: Path) -> None:
        vomsdir = self.write(tmp_path, f"{self.HOST}\n{self.CA}\n", vo="cms")
        for vo in ("mice", "..", "cms/../cms", ""):
            with pytest.raises(VomsError, match=r"no VOMS server of|no name of a VO"):
                check_lsc(vomsdir, vo, robot.chain)

"""Attribute certificates from real VOMS servers, over REST and in the legacy protocol, judged by real programs."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mover.sandbox.ca import CertificateAuthority
from mover.sandbox.ports import PortLease
from mover.sandbox.process import together
from mover.sandbox.voms import VomsServer
from proxyagent.chain import certificates_to_pem
from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.proxy import ProxyInfo
from proxyagent.verify import verify_chain
from proxyagent.voms import vomses
from proxyagent.voms.ac import AttributeCertificate, check_ac
from proxyagent.voms.answer import legacy_answer
from proxyagent.voms.fetch import FetchedAc, fetch_ac
from proxyagent.voms.tls import Deadline, exchange, tls_context
from tests.integration.voms_robot import FULL, LIMITED, VomsRobot
from tests.integration.voms_server import need_voms_server
from tests.integration.vomsapi import VomsApiError, fqans_by_vomsapi, need_vomsapi
from tests.voms_maker import AcMaker, directory_name, extension

PRODUCTION = "/mice/Role=production"
RECO = "/mice/offline/Role=reco"
NEW = "/mice/Role=new"
HOUR = timedelta(hours=1)


class Site:
    """Two servers of one VO with databases of their own, as while it moves: one role is known to the old one only."""

    def __init__(self, base: Path, stack: ExitStack) -> None:
        self.ca = CertificateAuthority(base / "ca")
        self.robot = VomsRobot(self.ca, "Robot")
        self.nobody = VomsRobot(self.ca, "Nobody")
        held = [PRODUCTION, RECO]
        self.rest = VomsServer(base / "rest", self.ca, members={self.robot.name: held}, longest_seconds=7200)
        stack.callback(self.rest.close)
        members = {self.robot.name: [*held, NEW]}
        self.legacy = VomsServer(base / "legacy", self.ca, members=members, rest=False, longest_seconds=7200)
        stack.callback(self.legacy.close)
        together(self.rest.start, self.legacy.start)
        self.vomsdir = self.rest.vomsdir  # both have the same name

    def fetch(
        self,
        servers: Sequence[vomses.VomsServer],
        fqans: Sequence[str] = (PRODUCTION,),
        *,
        robot: VomsRobot | None = None,
        info: ProxyInfo = LIMITED,
        lifetime_seconds: int = 3600,
    ) -> FetchedAc:
        with (robot or self.robot).proxy(info) as descriptor:
            return fetch_ac(
                servers,
                credential_path=f"/proc/self/fd/{descriptor}",
                ca_directory=self.ca.directory,
                fqans=fqans,
                lifetime_seconds=lifetime_seconds,
                timeout_seconds=60,
            )

    def check(self, der: bytes, fqans: Sequence[str] = (PRODUCTION,)) -> AttributeCertificate:
        return check_ac(
            der,
            holder=self.robot.certificate,
            vo="mice",
            fqans=fqans,
            vomsdir=self.vomsdir,
            ca_directory=self.ca.directory,
            now=datetime.now(UTC),
            check_crls=True,
        )

    def by_vomsapi(self, der: bytes, *, info: ProxyInfo = FULL) -> list[str]:
        with self.robot.proxy(info, [der]) as descriptor:
            return fqans_by_vomsapi(f"/proc/self/fd/{descriptor}", self.vomsdir, self.ca.directory)

    @contextmanager
    def program(self, *command: str, der: bytes, info: ProxyInfo) -> Iterator[subprocess.CompletedProcess[str]]:
        """What a program says about a proxy with this attribute certificate."""
        if shutil.which(command[0]) is None:
            package = "nordugrid-arc-client" if command[0] == "arcproxy" else "voms-clients"
            pytest.skip(f"{command[0]} is not installed: apt install {package}")
        with self.robot.proxy(info, [der]) as descriptor:
            path = f"/proc/self/fd/{descriptor}"
            environment = {
                **os.environ,
                "X509_CERT_DIR": str(self.ca.directory),
                "X509_VOMS_DIR": str(self.vomsdir),
                "X509_USER_PROXY": path,
                "X509_USER_CERT": path,  # voms-verify looks here and nowhere else
            }
            yield subprocess.run(
                command,
                env=environment,
                pass_fds=[descriptor],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need_voms_server()
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("voms"), stack)


@pytest.fixture(params=["rest", "legacy"])
def servers(request: pytest.FixtureRequest, site: Site) -> tuple[vomses.VomsServer, ...]:
    """The one server or the other."""
    return vomses.servers_of(getattr(site, request.param).vomses, "mice")


Servers = tuple[vomses.VomsServer, ...]


@pytest.mark.parametrize("info", [FULL, LIMITED], ids=["full", "limited"])
def test_what_is_asked_for_is_granted_in_that_order(site: Site, servers: Servers, info: ProxyInfo) -> None:
    for fqans in ([PRODUCTION], [RECO, PRODUCTION], ["/mice/offline", PRODUCTION], [PRODUCTION, "/mice"], ["/mice"]):
        found = site.fetch(servers, fqans, info=info)
        assert found.warning is None
        checked = site.check(found.der, fqans)
        assert checked.vo == "mice"
        assert checked.issuer == "/C=UK/O=Sandbox/CN=localhost"
        assert checked.not_after - checked.not_before == HOUR
        assert checked.fqans[: len(fqans)] == tuple(fqans)
        # Groups come along, roles do not.
        assert {fqan for fqan in checked.fqans if "Role" in fqan} == {fqan for fqan in fqans if "Role" in fqan}


def test_roles_may_be_written_in_capitals(site: Site, servers: Servers) -> None:
    assert site.check(site.fetch(servers, ["/mice/ROLE=production"]).der)


def test_a_role_that_is_not_held_is_refused(site: Site, servers: Servers) -> None:
    for fqan in ("/mice/Role=boss", "/mice/offline/Role=production", "/mice/elsewhere"):
        with pytest.raises(VomsRefusedError, match=r"Unable to satisfy [BG]/mice"):
            site.fetch(servers, [fqan])
        with pytest.raises(VomsRefusedError):
            site.fetch(servers, [PRODUCTION, fqan])


def test_who_is_no_member_is_refused(site: Site, servers: Servers) -> None:
    with pytest.raises(VomsRefusedError, match=r"mice: User unknown to this VO"):
        site.fetch(servers, ["/mice"], robot=site.nobody)


def test_a_shorter_life_than_asked_for_is_taken_with_its_warning(site: Site, servers: Servers) -> None:
    found = site.fetch(servers, lifetime_seconds=86400)
    assert found.warning is not None
    assert re.search("is shortened to 7200 seconds", found.warning)
    checked = site.check(found.der)
    assert checked.not_after - checked.not_before == 2 * HOUR


def test_a_dead_server_is_passed_over(site: Site, servers: Servers) -> None:
    lease = PortLease()
    (living,) = servers
    dead = vomses.VomsServer("dead", "localhost", lease.number, living.name, "mice")
    assert site.check(site.fetch([dead, living]).der)
    with pytest.raises(VomsError, match=f"localhost:{lease.number}: cannot be reached: Connection refused"):
        site.fetch([dead])
    lease.close()


def test_a_server_with_another_name_is_passed_over(site: Site, servers: Servers) -> None:
    (right,) = servers
    wrong = vomses.VomsServer("wrong", right.host, right.port, "/C=UK/O=Sandbox/CN=voms.example.org", "mice")
    assert site.check(site.fetch([wrong, right]).der)
    with pytest.raises(VomsError, match=r"it is /C=UK/O=Sandbox/CN=localhost, not /C=UK/O=Sandbox/CN=voms"):
        site.fetch([wrong])


def test_a_role_that_only_one_of_two_databases_has_is_found(site: Site) -> None:
    both = [*vomses.servers_of(site.rest.vomses, "mice"), *vomses.servers_of(site.legacy.vomses, "mice")]
    assert site.check(site.fetch(both, [NEW]).der, [NEW])
    with pytest.raises(VomsRefusedError):
        site.fetch(both[:1], [NEW])
    with pytest.raises(VomsRefusedError) as raised:
        site.fetch(both, ["/mice/Role=boss"])
    assert all(f"{server}: says" in raised.value.message for server in both)


def test_a_role_of_another_case_is_not_what_was_asked_for(site: Site, servers: Servers) -> None:
    """The database does not tell the cases apart, so the server grants a role that it then spells as it knows it."""
    found = site.fetch(servers, ["/mice/Role=Production"])
    with pytest.raises(VomsError, match="without /mice/Role=Production"):
        site.check(found.der, ["/mice/Role=Production"])


def test_the_alphabet_of_old_servers_is_read(site: Site, servers: Servers) -> None:
    with site.robot.proxy(LIMITED) as descriptor:
        context = tls_context(f"/proc/self/fd/{descriptor}", site.ca.directory)
    question = [b"0", b"<voms><command>B/mice:production</command><lifetime>600</lifetime></voms>"]
    answer = exchange(servers[0], context, question, Deadline(60))
    assert b"<ac>mi" in answer
    assert site.check(legacy_answer(answer).der)


@pytest.fixture(scope="module")
def fetched(site: Site) -> bytes:
    return site.fetch(vomses.servers_of(site.rest.vomses, "mice"), [PRODUCTION, "/mice"]).der


def _forged(der: bytes) -> bytes:
    return der[:-1] + bytes([der[-1] ^ 1])


@pytest.mark.parametrize("info", [FULL, LIMITED], ids=["full", "limited"])
class TestJudges:
    """Real programs read the client proxies that carry it, and where they check the signature, they accept it."""

    def test_openssl(self, site: Site, fetched: bytes, info: ProxyInfo) -> None:
        verify_chain(certificates_to_pem(site.robot.chain(info, [fetched])), site.ca.directory)

    def test_the_voms_library(self, site: Site, fetched: bytes, info: ProxyInfo) -> None:
        need_vomsapi()
        fqans = site.by_vomsapi(fetched, info=info)
        assert fqans[:2] == [f"{PRODUCTION}/Capability=NULL", "/mice/Role=NULL/Capability=NULL"]
        with pytest.raises(VomsApiError, match="Failed to verify AC signature"):
            site.by_vomsapi(_forged(fetched), info=info)

    def test_arcproxy(self, site: Site, fetched: bytes, info: ProxyInfo) -> None:
        with site.program("arcproxy", "-I", der=fetched, info=info) as done:
            assert done.returncode == 0, done.stderr
            assert f"attribute : {PRODUCTION}\nattribute : /mice\n" in done.stdout
            assert "ERROR" not in done.stderr
        with site.program("arcproxy", "-I", der=_forged(fetched), info=info) as done:
            assert "AC signature verification failed" in done.stderr

    def test_voms_proxy_info(self, site: Site, fetched: bytes, info: ProxyInfo) -> None:
        with site.program("voms-proxy-info", "-all", der=fetched, info=info) as done:
            assert done.returncode == 0, done.stderr
            assert f"attribute : {PRODUCTION}/Capability=NULL\n" in done.stdout
            assert f"subject   : {site.robot.name}\n" in done.stdout

    def test_voms_verify(self, site: Site, fetched: bytes, info: ProxyInfo) -> None:
        with site.program("voms-verify", der=fetched, info=info) as done:
            assert done.returncode == 0, done.stderr
            assert "verified" in done.stdout


@pytest.fixture(scope="module")
def maker(site: Site) -> AcMaker:
    need_vomsapi()
    maker = AcMaker(site.ca)
    maker.write_lsc(site.vomsdir)
    return maker


class TestAgreement:
    """What the library of VOMS itself refuses, we refuse; and it accepts what the tests' double of a server signs."""

    def make(self, site: Site, maker: AcMaker, **changes: object) -> bytes:
        now = datetime.now(UTC)
        usual = {"holder": site.robot.certificate, "fqans": [PRODUCTION, "/mice"], "not_before": now, "lifetime": HOUR}
        return maker.make(**{**usual, **changes})  # type: ignore[arg-type]  # passed through

    def test_the_double_is_true_to_life(self, site: Site, maker: AcMaker) -> None:
        der = self.make(site, maker)
        assert site.check(der).fqans == (PRODUCTION, "/mice")
        assert len(site.by_vomsapi(der)) == 2

    @pytest.mark.parametrize(
        "kind", ["signature", "server", "holder", "ended", "not yet", "critical extension", "signer"]
    )
    def test_both_refuse(self, kind: str, site: Site, maker: AcMaker) -> None:
        now = datetime.now(UTC)
        impostor = AcMaker(site.ca)
        impostor.certificate = maker.certificate
        base = {"issuer": [directory_name(site.nobody.certificate.subject)], "serial": 1}
        extensions = maker.info(site.robot.certificate, [PRODUCTION], now, now)["extensions"]
        make: dict[str, Callable[[], bytes]] = {
            "signature": lambda: _forged(self.make(site, maker)),
            "server": lambda: self.make(site, AcMaker(site.ca, name="Unknown")),
            "holder": lambda: self.make(site, maker, changes={"holder": {"base_certificate_id": base}}),
            "ended": lambda: self.make(site, maker, not_before=now - 2 * HOUR),
            "not yet": lambda: self.make(site, maker, not_before=now + HOUR),
            "critical extension": lambda: self.make(
                site, maker, changes={"extensions": [*extensions, extension("1.2.3.4", b"\x05\x00", critical=True)]}
            ),
            "signer": lambda: self.make(site, impostor),
        }
        der = make[kind]()
        with pytest.raises(VomsApiError):
            site.by_vomsapi(der)
        with pytest.raises(VomsError):
            site.check(der)

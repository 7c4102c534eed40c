"""Whether the certificate is trusted: what is looked at how often, what is told once, what ends between two looks."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mover.sandbox.ca import CertificateAuthority
from proxyagent.errors import ChainError, CrlError, ProxyAgentError, RevokedError
from proxyagent.policy import TrustSection
from proxyagent.request import new_key
from proxyagent.trust import Trust
from tests.movable_clock import MovableClock

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "certificates")


@pytest.fixture
def certificate(authority: CertificateAuthority) -> x509.Certificate:
    return authority.issue_robot("Robot - trusted", new_key().public_key())


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def reports() -> list[str | None]:
    return []


@pytest.fixture
def trust(authority: CertificateAuthority, clock: MovableClock, reports: list[str | None]) -> Trust:
    section = TrustSection(ca_directory=authority.directory)
    return Trust(section, clock, telling(reports))


def telling(reports: list[str | None]) -> Callable[[ProxyAgentError | None], None]:
    return lambda problem: reports.append(problem.kind if problem is not None else None)


def crl_until(authority: CertificateAuthority, clock: MovableClock, left: timedelta) -> None:
    authority.write_crl(last_update=clock.now() - HOUR, next_update=clock.now() + left)


def test_a_list_that_ends_between_two_looks_is_no_longer_believed(
    authority: CertificateAuthority, certificate: x509.Certificate, clock: MovableClock, trust: Trust
) -> None:
    crl_until(authority, clock, -5 * MINUTE + timedelta(seconds=20))
    trust.check(certificate)
    clock.advance(timedelta(seconds=30))
    with pytest.raises(CrlError, match="ended at"):
        trust.check(certificate)


def test_a_problem_is_reported_once_and_so_is_its_end(
    authority: CertificateAuthority,
    certificate: x509.Certificate,
    clock: MovableClock,
    trust: Trust,
    reports: list[str | None],
) -> None:
    crl_until(authority, clock, 2 * HOUR)
    trust.check(certificate)
    clock.advance(3 * HOUR)
    for _ in range(5):
        with pytest.raises(CrlError):
            trust.check(certificate)
        clock.advance(2 * MINUTE)
    assert reports == ["crl"]
    crl_until(authority, clock, 2 * HOUR)
    for _ in range(3):
        trust.check(certificate)
        clock.advance(2 * MINUTE)
    assert reports == ["crl", None]


def test_another_certificate_is_looked_at_anew(
    authority: CertificateAuthority, certificate: x509.Certificate, trust: Trust
) -> None:
    revoked = authority.issue_robot("Robot - revoked", new_key().public_key())
    authority.revoke(revoked.serial_number)
    trust.check(certificate)
    with pytest.raises(RevokedError):
        trust.check(revoked)
    trust.check(certificate)


def test_the_directory_is_looked_at_once_a_minute(
    authority: CertificateAuthority, certificate: x509.Certificate, clock: MovableClock, trust: Trust
) -> None:
    trust.check(certificate)
    authority.revoke(certificate.serial_number)
    clock.advance(timedelta(seconds=59))
    trust.check(certificate)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(RevokedError):
        trust.check(certificate)


def test_lists_that_are_ignored_leave_the_chain_to_be_checked(
    authority: CertificateAuthority, certificate: x509.Certificate, clock: MovableClock, tmp_path: Path
) -> None:
    authority.revoke(certificate.serial_number)
    reports: list[str | None] = []
    section = TrustSection(ca_directory=authority.directory, crls="ignore")
    assert Trust(section, clock, telling(reports)).check(certificate) is None
    other = CertificateAuthority(tmp_path / "other")
    stranger = other.issue_robot("Robot - of another CA", new_key().public_key())
    with pytest.raises(ChainError):
        Trust(section, clock, telling(reports)).check(stranger)
    assert reports == ["chain"]

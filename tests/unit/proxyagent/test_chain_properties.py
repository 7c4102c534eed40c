"""Random chains: all that we issue is right for OpenSSL, and none that breaks a rule gets past us."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mover.sandbox.ca import CertificateAuthority
from proxyagent.errors import RequestError
from proxyagent.proxy import Language, ProxyInfo, issue_proxy
from proxyagent.proxy import proxy_info as read_info
from tests.unit.proxyagent.forging import (
    INHERIT_ALL,
    LIMITED,
    PROXY_INFO,
    Key,
    Step,
    damaged,
    forge,
    proxy_info,
    rdn,
    usage,
)
from tests.unit.proxyagent.judges import JUDGES, ourselves

Chain = list[x509.Certificate]
MAX_DEPTH = 6
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Pool:
    """Keys made once, and a robot for every kind of key, with and without keyUsage."""

    authority: CertificateAuthority
    proxy_keys: list[rsa.RSAPrivateKey]
    other_key: rsa.RSAPrivateKey
    robots: list[tuple[x509.Certificate, Key]]


@pytest.fixture(scope="module")
def pool(authority: CertificateAuthority) -> Pool:
    robot_keys: list[Key] = [rsa.generate_private_key(public_exponent=65537, key_size=size) for size in (2048, 3072)]
    robot_keys.append(ec.generate_private_key(ec.SECP256R1()))
    robots = [
        (authority.issue_robot("Robot", key.public_key(), key_usage=with_usage), key)
        for key in robot_keys
        for with_usage in (True, False)
    ]
    sizes = [2048] * (MAX_DEPTH - 1) + [3072]
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=size) for size in (*sizes, 2048)]
    return Pool(authority, keys[:-1], keys[-1], robots)


@pytest.fixture(scope="module", autouse=True)
def competent_judges(pool: Pool, authority: CertificateAuthority) -> None:
    """Before any judge is asked: it accepts a right chain, and refuses the same with any signature damaged."""
    robot, key = pool.robots[0]
    right = forge(robot, key, [Step(pool.proxy_keys[0]), Step(pool.proxy_keys[1])])
    for name, judge in JUDGES.items():
        assert judge(right, authority.directory) is None, name
        for depth in range(3):
            wrong = [damaged(each) if at == depth else each for at, each in enumerate(right)]
            assert "signature failure" in str(judge(wrong, authority.directory)), name


# --- what we issue


@dataclass(frozen=True)
class Asked:
    """What somebody asks for."""

    info: ProxyInfo
    seconds: int


ASKED = st.builds(
    Asked,
    st.builds(ProxyInfo, st.sampled_from(Language), st.none() | st.integers(0, MAX_DEPTH)),
    st.integers(60, 10**6),
)


def issued(pool: Pool, robot: int, order: list[int], wanted: list[Asked]) -> tuple[Chain, rsa.RSAPrivateKey]:
    """A chain by our own code, as deep as it gets; it refuses only what it has to."""
    chain, signer = [pool.robots[robot][0]], pool.robots[robot][1]
    key = pool.other_key
    for asked, number in zip(wanted, order, strict=False):
        above = read_info(chain[0])
        limited = above is not None and above.language is Language.LIMITED
        ends = above is not None and above.path_length == 0
        try:
            leaf = issue_proxy(
                chain[0],
                signer,
                pool.proxy_keys[number].public_key(),
                info=asked.info,
                lifetime=timedelta(seconds=asked.seconds),
                now=datetime.now(UTC),
            )
        except RequestError:
            assert ends or (limited and asked.info.language is Language.INDEPENDENT)
            break
        assert not ends
        chain.insert(0, leaf)
        key = signer = pool.proxy_keys[number]
    assume(len(chain) > 1)
    return chain, key


@settings(max_examples=80, deadline=None)
@given(
    robot=st.integers(0, 5),
    order=st.permutations(range(MAX_DEPTH)),
    wanted=st.lists(ASKED, min_size=1, max_size=MAX_DEPTH),
)
def test_every_chain_that_we_issue_is_right(pool: Pool, robot: int, order: list[int], wanted: list[Asked]) -> None:
    chain, key = issued(pool, robot, order, wanted)
    assert ourselves(chain, key.public_key()) is None
    for name, judge in JUDGES.items():
        assert judge(chain, pool.authority.directory) is None, name


@settings(max_examples=80, deadline=None)
@given(
    robot=st.integers(0, 5),
    order=st.permutations(range(MAX_DEPTH)),
    wanted=st.lists(ASKED, min_size=1, max_size=MAX_DEPTH),
)
def test_rights_only_shrink(pool: Pool, robot: int, order: list[int], wanted: list[Asked]) -> None:
    chain, _ = issued(pool, robot, order, wanted)
    for below, above in pairwise(chain):
        assert above.not_valid_before_utc <= below.not_valid_before_utc
        assert below.not_valid_after_utc <= above.not_valid_after_utc
        info, limit = read_info(below), read_info(above)
        assert info is not None
        if limit is not None and limit.path_length is not None:
            assert info.path_length is not None
            assert info.path_length < limit.path_length
        if limit is not None and limit.language is Language.LIMITED:
            assert info.language is Language.LIMITED
    for each, asked in zip(reversed(chain[:-1]), wanted, strict=False):
        got = read_info(each)
        assert got is not None
        assert got.language in {asked.info.language, Language.LIMITED}
        longest = asked.info.path_length
        assert longest is None or (got.path_length is not None and got.path_length <= longest)
        assert each.not_valid_after_utc <= datetime.now(UTC) + timedelta(seconds=asked.seconds)


# --- what others make up


Change = Callable[[list[Step], int, Pool], None]


@dataclass(frozen=True)
class Wrong:
    """One broken rule: how to break it, what we say, and whether OpenSSL sees it."""

    reason: str
    """Part of our message."""
    before: Change | None = None
    """Changes the step of that number before the chain is made."""
    after: Callable[[Chain, int], None] | None = None
    """Changes the finished chain; the number counts from the leaf."""
    openssl_refuses: bool | None = True
    """False where OpenSSL is more lenient than we are: the test sees to it that this stays true. None: it depends."""
    above_another: bool = False
    """Whether the step must have one below it."""


def change(**fields: object) -> Change:
    """Set fields of the step."""

    def apply(steps: list[Step], at: int, pool: Pool) -> None:
        for name, value in fields.items():
            assert hasattr(steps[at], name)
            setattr(steps[at], name, value)

    return apply


def add(value: x509.ExtensionType, *, critical: bool) -> Change:
    """Add an extension to the step."""

    def apply(steps: list[Step], at: int, pool: Pool) -> None:
        steps[at].extensions.append((value, critical))

    return apply


def sign_by_somebody_else(steps: list[Step], at: int, pool: Pool) -> None:
    steps[at].signer = pool.other_key


def use_a_short_key(steps: list[Step], at: int, pool: Pool) -> None:
    steps[at].key = _SHORT_KEY


def allow_too_few_below(steps: list[Step], at: int, pool: Pool) -> None:
    steps[at].path_length = len(steps) - at - 2


def go_back_to_full(steps: list[Step], at: int, pool: Pool) -> None:
    steps[at].language = LIMITED
    steps[at + 1].language = INHERIT_ALL


def forbid_signing(steps: list[Step], at: int, pool: Pool) -> None:
    steps[at].with_usage = False
    steps[at].extensions.append((usage(digital_signature=False), True))


def renamed(*last: tuple[tuple[x509.ObjectIdentifier, str], ...], cut: int = 0) -> Change:
    """A name that is the issuer's without its last `cut` parts, and these more."""

    def name(issuer: x509.Name, serial: int) -> x509.Name:
        kept = issuer.rdns[: max(0, len(issuer.rdns) - cut)]
        return x509.Name([*kept, *(rdn(*part) for part in last)])

    return change(name=name)


def swap(chain: Chain, at: int) -> None:
    chain[at], chain[at + 1] = chain[at + 1], chain[at]


def replace_by_damaged(chain: Chain, at: int) -> None:
    chain[at] = damaged(chain[at])


def drop(chain: Chain, at: int) -> None:
    del chain[at + 1]


_SHORT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
_CN, _OU, _UID = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.USER_ID
_DNS = [x509.DNSName("localhost")]
_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
_DRAFT = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222"), b"\x30\x00")

WRONG = {
    # Signatures.
    "signed by another key": Wrong("not signed by", sign_by_somebody_else),
    "damaged signature": Wrong("not signed by", after=replace_by_damaged),
    # Names (sections 3.2, 3.4, 3.5).
    # OpenSSL lets a proxy pass that has its issuer's name, looks self-issued so, and is not the leaf.
    "no CN more": Wrong("one more", renamed(), openssl_refuses=None),
    "two CNs more": Wrong("one more", renamed(((_CN, "1"),), ((_CN, "2"),))),
    "an OU more": Wrong("one more", renamed(((_OU, "1"),))),
    "a CN and a UID in one RDN": Wrong("one more", renamed(((_CN, "1"), (_UID, "1")))),
    "a CN instead of the last": Wrong("one more", renamed(((_CN, "1"),), cut=1)),
    "nothing but a CN": Wrong("one more", renamed(((_CN, "1"),), cut=99)),
    "subjectAltName": Wrong("alternative name", add(x509.SubjectAlternativeName(_DNS), critical=False)),
    "issuerAltName": Wrong("alternative name", add(x509.IssuerAlternativeName(_DNS), critical=False)),
    # Basic constraints and key usage (sections 3.1, 3.6, 3.7).
    "a CA": Wrong("a CA", add(x509.BasicConstraints(ca=True, path_length=None), critical=True)),
    "an issuer that may not sign": Wrong("not allow digitalSignature", forbid_signing, above_another=True),
    # ProxyCertInfo (section 3.8).
    "proxyCertInfo not critical": Wrong(
        "not critical", change(info=(proxy_info(INHERIT_ALL, None), False)), openssl_refuses=False
    ),
    "proxyCertInfo unreadable": Wrong(
        "unreadable proxyCertInfo", change(info=(x509.UnrecognizedExtension(PROXY_INFO, b"\x30\x03\x02\x01"), True))
    ),
    "no proxyCertInfo": Wrong("not a proxy", change(info=(_UNKNOWN, False))),
    "a proxy of the draft": Wrong("draft before RFC 3820", add(_DRAFT, critical=False), openssl_refuses=False),
    "any language": Wrong("unknown policy language", change(language="1.3.6.1.5.5.7.21.0"), openssl_refuses=False),
    "a policy with inheritAll": Wrong(
        "policy beside", change(info=(proxy_info(INHERIT_ALL, None, b"x"), True)), openssl_refuses=False
    ),
    "a negative path length": Wrong("negative", change(path_length=-1), openssl_refuses=False),
    "path length exceeded": Wrong("below one that allows", allow_too_few_below, above_another=True),
    "full below limited": Wrong("not limited", go_back_to_full, openssl_refuses=False, above_another=True),
    # Times.
    "ended": Wrong("has ended", change(begin=-2 * HOUR, lifetime=timedelta(seconds=-1))),
    "not valid yet": Wrong("not valid yet", change(begin=HOUR / 10, lifetime=HOUR)),
    # Whatever else.
    "unknown critical extension": Wrong("unknown critical extension", add(_UNKNOWN, critical=True)),
    "SHA-224": Wrong("weak key or signature", change(digest=hashes.SHA224()), openssl_refuses=False),
    "a key of 1024 bits": Wrong("weak key or signature", use_a_short_key, openssl_refuses=False),
    # The order of what is presented is not the RFC's matter, nor OpenSSL's; servers read it as it is.
    "swapped": Wrong("", after=swap, openssl_refuses=False, above_another=True),
    "one twice": Wrong("", after=lambda chain, at: chain.insert(at, chain[at]), openssl_refuses=False),
    "one missing": Wrong("", after=drop),
}


STEPS = st.lists(
    st.tuples(st.sampled_from([INHERIT_ALL, LIMITED]), st.booleans(), st.booleans(), st.integers(60, 10**5)),
    min_size=1,
    max_size=MAX_DEPTH,
)


def steps_of(drawn: list[tuple[str, bool, bool, int]], pool: Pool) -> list[Step]:
    """Steps that break no rule, with the shortest path lengths that are allowed, or none."""
    steps: list[Step] = []
    for at, (language, with_length, with_usage, seconds) in enumerate(drawn):
        above = steps[-1] if steps else None
        steps.append(
            Step(
                pool.proxy_keys[at],
                language=LIMITED if above is not None and above.language == LIMITED else language,
                path_length=len(drawn) - at - 1 if with_length else None,
                lifetime=timedelta(seconds=seconds),
                with_usage=with_usage,
            )
        )
    return steps


@settings(max_examples=25, deadline=None)
@given(robot=st.integers(0, 5), drawn=STEPS)
def test_a_chain_made_by_hand_is_right_too(pool: Pool, robot: int, drawn: list[tuple[str, bool, bool, int]]) -> None:
    steps = steps_of(drawn, pool)
    chain = forge(*pool.robots[robot], steps)
    assert ourselves(chain, steps[-1].key.public_key()) is None
    for name, judge in JUDGES.items():
        assert judge(chain, pool.authority.directory) is None, name


@pytest.mark.parametrize("name", WRONG)
@settings(max_examples=6, deadline=None)
@given(robot=st.integers(0, 5), drawn=STEPS, position=st.integers(0, MAX_DEPTH))
def test_one_broken_rule_is_enough(
    pool: Pool, name: str, robot: int, drawn: list[tuple[str, bool, bool, int]], position: int
) -> None:
    wrong = WRONG[name]
    steps = steps_of(drawn if len(drawn) > 1 else 2 * drawn, pool)
    at = position % (len(steps) - wrong.above_another)
    if wrong.before is not None:
        wrong.before(steps, at, pool)
    chain = forge(*pool.robots[robot], steps)
    if wrong.after is not None:
        wrong.after(chain, at)
    refusal = ourselves(chain, steps[-1].key.public_key())
    assert refusal is not None
    assert wrong.reason in refusal
    for judge_name, judge in JUDGES.items():
        verdict = judge(chain, pool.authority.directory)
        if wrong.openssl_refuses is not None:
            assert (verdict is not None) == wrong.openssl_refuses, (judge_name, verdict)

"""The level of the whole agent: what monitoring goes by."""

import pytest

from proxyagent.forecast import Level
from proxyagent.messages import AgentStatus, DongleStatus, IdentityStatus


def identity(level: Level) -> IdentityStatus:
    return IdentityStatus(
        name="robot",
        level=level,
        not_after=None,
        plug_before=None,
        advice=(),
        session=None,
        dongle=DongleStatus(present=False),
        certificate_not_after=None,
        crl_next_update=None,
        attributes=(),
        unattended="no",
        confined=None,
    )


@pytest.mark.parametrize(
    ("levels", "audit_problem", "whole"),
    [
        ([], None, Level.OK),
        ([Level.OK], None, Level.OK),
        ([Level.OK, Level.SOON], None, Level.SOON),
        ([Level.EXPIRED, Level.SOON], None, Level.EXPIRED),
        ([Level.OK], "the disk is full", Level.SOON),
        ([Level.EXPIRED], "the disk is full", Level.EXPIRED),
    ],
)
def test_the_most_urgent_level_counts(levels: list[Level], audit_problem: str | None, whole: Level) -> None:
    identities = tuple(identity(level) for level in levels)
    status = AgentStatus(identities=identities, profiles=(), memory_locked=True, audit_problem=audit_problem)
    assert status.level is whole

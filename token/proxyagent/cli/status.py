"""`proxyagent status`: until when all is well, and what to do by then."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import TIMEOUT_SECONDS, printable
from proxyagent.client import AgentStatus, agent_status
from proxyagent.forecast import Level, moment
from proxyagent.messages import NOT_RENEWED, IdentityStatus
from proxyagent.sealing import WARNINGS

EXIT_CODES = {Level.OK: 0, Level.SOON: 16, Level.EXPIRED: 17}


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def command(config_path: Path, as_json: bool) -> int:
    """Show until when the session lasts, what to do by then, and the profiles for this user.

    For monitoring, the exit code is 0 if all is well, 16 if a person is needed soon, and 17 if proxies are not issued.

    \b
    Example:
      proxyagent status --json
    """
    config = policy.load(config_path)
    # For each, another's turn before ours.
    seconds = 2 * len(config.identity) * config.agent.module_timeout_seconds + TIMEOUT_SECONDS
    found = agent_status(config.agent.socket, timeout_seconds=seconds)
    if as_json:
        click.echo(json.dumps({"level": found.level, **found.model_dump(mode="json")}, indent=2))
    else:
        for line in _lines(found):
            click.echo(printable(line))
    return EXIT_CODES[found.level]


def _lines(found: AgentStatus) -> Iterator[str]:
    now = datetime.now(UTC)
    for identity in found.identities:
        until = identity.not_after if identity.level is not Level.EXPIRED else None
        yield f"{identity.name}: {identity.level}" + (f" until {moment(until, now)}" if until else "")
        yield from (f"  {line}" for line in _identity_lines(identity, now))
    for each in found.strangers:
        yield f"unknown dongle: {each.label} (serial {each.serial}); nothing was asked of it, take it out"
    yield f"profiles: {', '.join(found.profiles) or 'none for this user'}"
    if not found.memory_locked:
        yield "memory: may be swapped out; see MemorySwapMax= and LimitMEMLOCK= in systemd.exec(5)"
    if found.audit_problem:
        yield f"audit log: {found.audit_problem}"


def _identity_lines(identity: IdentityStatus, now: datetime) -> Iterator[str]:
    yield from (f"do: {advice}" for advice in identity.advice)
    session, dongle = identity.session, identity.dongle
    if session is None:
        yield "session: none"
    else:
        renewed = dongle.logged_in or identity.unattended == "ready"
        consequence = "" if renewed else f"; it {NOT_RENEWED}"
        yield f"session: {session.identity} until {session.not_after:%Y-%m-%d %H:%M:%S} UTC{consequence}"
    if dongle.present:
        yield f"dongle: {dongle.label} (serial {dongle.serial}), PIN {dongle.pin_state}" + (
            ", logged in" if dongle.logged_in else ""
        )
    else:
        yield f"dongle: {dongle.problem} ({dongle.hint})"
    if identity.unattended == "waits":
        yield "sealed PIN: failed, and waits for `proxyagent pin retry`"
    if identity.seal in WARNINGS:
        yield f"sealed PIN: {WARNINGS[identity.seal]}"
    for each in identity.attributes:
        until = f"until {moment(each.not_after, now)}" if each.not_after else "none"
        yield f"VOMS {' '.join(each.fqans)}: {until}" + (f"; renewal failed: {each.problem}" if each.problem else "")
    if identity.confined is False:
        yield "PKCS#11 module: runs without a system call filter, which this kernel does not offer"

"""`proxyagent plugged`: what systemd starts for a dongle that was plugged in."""

import os
import time
from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.announcement import announce
from proxyagent.cli.renew import patience_seconds, renew, what_now
from proxyagent.cli.words import printable
from proxyagent.client import agent_status
from proxyagent.clock import SystemClock
from proxyagent.errors import BusyError, NoDongleError, ProxyAgentError, WrongDongleError, from_kind
from proxyagent.messages import AgentStatus, IdentityStatus
from proxyagent.questions import Questions

_DIRECTORY = "/run/proxyagent-renew"  # the unit's RuntimeDirectory=
_PERSON_SECONDS = 600.0
_LONGEST_SECONDS = 3600.0
_POLL_SECONDS = 1.0


@click.command("plugged")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0, 600),
    default=30.0,
    show_default=True,
    help="How many seconds a dongle may take until the agent sees it.",
)
@click.pass_obj
def command(config_path: Path, wait_seconds: float) -> None:
    """Ask for the PIN of a dongle that was plugged in, through systemd's password agents, if it is one of ours.

    For proxyagent-renew@.service. Another dongle is asked for nothing, and is an error; so is none at all.

    \b
    Example:
      proxyagent plugged
    """
    config = policy.load(config_path)
    plugged_boot_seconds = SystemClock().boot_seconds()
    begin_seconds = time.monotonic()
    with Questions.open(Path(os.environ.get("RUNTIME_DIRECTORY", _DIRECTORY))) as questions:
        while True:
            # Whose turn it is must be known before what is to be asked: the one before us may just have asked it.
            ours = questions.take_turn()
            status = agent_status(config.agent.socket, timeout_seconds=patience_seconds(config))
            wanted = [each for each in status.identities if _needs_pin(each, questions, plugged_boot_seconds)]
            if wanted and ours:
                _ask(config, wanted, questions)
                return
            waited_seconds = time.monotonic() - begin_seconds
            if not wanted and waited_seconds >= wait_seconds:
                break
            if waited_seconds >= _LONGEST_SECONDS:
                raise BusyError("other PINs are asked for all the time", hint="enter them, then plug this dongle again")
            time.sleep(_POLL_SECONDS)
    _say_what_it_is(status)


def _needs_pin(identity: IdentityStatus, questions: Questions, plugged_boot_seconds: float) -> bool:
    dongle = identity.dongle
    if not dongle.present or dongle.logged_in or identity.unattended == "ready":
        return False
    return not questions.was_asked_since(str(dongle.serial), plugged_boot_seconds)


def _ask(config: policy.Config, identities: list[IdentityStatus], questions: Questions) -> None:
    """Ask for each dongle's PIN, once; raise what went wrong with the first where something did."""
    failed: ProxyAgentError | None = None
    for identity in identities:
        name = f"dongle {identity.dongle.label} ({identity.dongle.serial}) of {identity.name}"
        announce(f"{name} was recognised; its PIN is wanted")
        try:
            session = renew(config, identity, systemd=True, person_seconds=_PERSON_SECONDS)
        except ProxyAgentError as error:
            announce(f"{name}: no new session: {error.message} ({error.hint})")
            failed = failed or error
        else:
            announce(f"{name}: good until {session.not_after:%Y-%m-%d %H:%M:%S} UTC; {what_now(config)}")
        questions.note(str(identity.dongle.serial))
    if failed is not None:
        raise failed


def _say_what_it_is(status: AgentStatus) -> None:
    """What was plugged, which wants no PIN of us.

    Raises:
        WrongDongleError: there is one that is nobody's, or holds the certificate of another.
        NoDongleError: there is none.
    """
    for identity in status.identities:
        if identity.dongle.kind == WrongDongleError.kind:
            raise from_kind(WrongDongleError.kind, str(identity.dongle.problem), str(identity.dongle.hint))
    if status.strangers:
        names = ", ".join(f"{each.label} (serial {each.serial})" for each in status.strangers)
        raise WrongDongleError(
            f"unknown dongle: {names}; nothing was asked of it",
            hint="take it out, or give its serial number in the agent's configuration",
        )
    present = [each for each in status.identities if each.dongle.present]
    if not present:
        raise NoDongleError(
            "what was plugged in shows no dongle that could be ours",
            hint="put the card in, or see `proxyagent dongles`",
        )
    for each in present:
        click.echo(printable(f"dongle {each.dongle.label} ({each.dongle.serial}) of {each.name} needs no PIN now"))

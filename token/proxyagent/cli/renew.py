"""`proxyagent renew`: a person with a dongle and its PIN."""

from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import TIMEOUT_SECONDS, ask_pin, printable, send_to_pin_pad
from proxyagent.client import agent_status, unlock_agent
from proxyagent.errors import ConfigError, RequestError, from_kind
from proxyagent.messages import AgentStatus, IdentityStatus


@click.command("renew")
@click.option("--identity", "name", help="Whose dongle; needed where there are several identities.")
@click.option("--ask-password", is_flag=True, help="Ask through systemd's password agents, as services do. Needs root.")
@click.pass_obj
def command(config_path: Path, name: str | None, ask_password: bool) -> None:
    """Give the agent a dongle's PIN, once, for a new session.

    The PIN is read from the terminal, is one line on standard input, or is entered at the reader's pin pad.

    \b
    Example:
      proxyagent renew --identity mover
    """
    config = policy.load(config_path)
    # Look, log in, sign; and another's turn before ours.
    seconds = 4 * config.agent.module_timeout_seconds + config.agent.pin_pad_timeout_seconds + TIMEOUT_SECONDS
    identity = _choose(agent_status(config.agent.socket, timeout_seconds=seconds), name)
    dongle = identity.dongle
    if not dongle.present:
        raise from_kind(dongle.kind or "", dongle.problem or "no dongle", dongle.hint or "plug the dongle in")
    serial = str(dongle.serial)
    if dongle.pin_pad:
        send_to_pin_pad(str(dongle.label), serial, dongle.pin_state)
        session = unlock_agent(
            config.agent.socket, None, identity=identity.name, serial=serial, timeout_seconds=seconds
        )
    else:
        with ask_pin(str(dongle.label), serial, dongle.pin_state, systemd=ask_password) as pin:
            session = unlock_agent(
                config.agent.socket, pin, identity=identity.name, serial=serial, timeout_seconds=seconds
            )
    click.echo(f"session for {printable(session.identity)} until {session.not_after:%Y-%m-%d %H:%M:%S} UTC")
    if config.agent.on_removal is policy.OnRemoval.KEEP:
        click.echo("the dongle may be unplugged now; while it stays in, the session is renewed by itself")
    else:
        click.echo("leave the dongle in: the session ends when it is pulled, and is renewed by itself until then")


def _choose(status: AgentStatus, name: str | None) -> IdentityStatus:
    if not status.identities:
        raise ConfigError("the agent has no identity", hint="add one to its configuration")
    names = ", ".join(identity.name for identity in status.identities)
    if name is None and len(status.identities) > 1:
        plugged = [identity for identity in status.identities if identity.dongle.present]
        if len(plugged) == 1:
            return plugged[0]
        raise RequestError(f"there are {len(status.identities)} identities", hint=f"choose with --identity: {names}")
    for identity in status.identities:
        if name is None or identity.name == name:
            return identity
    raise RequestError(f"there is no identity {name!r}", hint=f"use one of {names}")

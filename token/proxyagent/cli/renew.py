"""`proxyagent renew`: a person with a dongle and its PIN."""

from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import PERSON_SECONDS, TIMEOUT_SECONDS, ask_pin, printable, send_to_pin_pad
from proxyagent.client import agent_status, unlock_agent
from proxyagent.errors import ConfigError, RequestError, from_kind
from proxyagent.messages import AgentStatus, IdentityStatus, SessionStatus


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
    status = agent_status(config.agent.socket, timeout_seconds=patience_seconds(config))
    session = renew(config, _choose(status, name), systemd=ask_password)
    click.echo(f"session for {printable(session.identity)} until {session.not_after:%Y-%m-%d %H:%M:%S} UTC")
    click.echo(what_now(config))


def renew(
    config: policy.Config, identity: IdentityStatus, *, systemd: bool, person_seconds: float = PERSON_SECONDS
) -> SessionStatus:
    """Have a person enter the PIN of an identity's dongle, and the agent log in with it, once.

    Args:
        systemd: ask through systemd's password agents, and not on standard input. A pin pad goes before both.
        person_seconds: how long the person may take.

    Raises:
        ProxyAgentError: there is no dongle, nobody entered a PIN, or it did not log in.
    """
    dongle = identity.dongle
    if not dongle.present:
        raise from_kind(dongle.kind or "", dongle.problem or "no dongle", dongle.hint or "plug the dongle in")
    label, serial, socket = str(dongle.label), str(dongle.serial), config.agent.socket
    seconds = patience_seconds(config)
    if dongle.pin_pad:
        send_to_pin_pad(label, serial, dongle.pin_state)
        return unlock_agent(socket, None, identity=identity.name, serial=serial, timeout_seconds=seconds)
    with ask_pin(label, serial, dongle.pin_state, systemd=systemd, person_seconds=person_seconds) as pin:
        return unlock_agent(socket, pin, identity=identity.name, serial=serial, timeout_seconds=seconds)


def what_now(config: policy.Config) -> str:
    """What to do with a dongle that has logged in."""
    if config.agent.on_removal is policy.OnRemoval.KEEP:
        return "the dongle may be unplugged now; while it stays in, the session is renewed by itself"
    return "leave the dongle in: the session ends when it is pulled, and is renewed by itself until then"


def patience_seconds(config: policy.Config) -> float:
    """How long the agent may take to look, log in and sign, and to serve another before."""
    return 4 * config.agent.module_timeout_seconds + config.agent.pin_pad_timeout_seconds + TIMEOUT_SECONDS


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

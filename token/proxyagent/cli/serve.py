"""`proxyagent serve`: the agent itself."""

import contextlib
import logging
import os
from pathlib import Path

import click

from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.audit import AuditLog
from proxyagent.cli.words import log_to_stderr
from proxyagent.clock import SystemClock
from proxyagent.handler import Handler
from proxyagent.hardening import harden_process, lock_memory
from proxyagent.server import Server
from proxyagent.systemd import activated_listener


@click.command("serve")
@click.pass_obj
def command(config_path: Path) -> None:
    """Run the agent in the foreground until SIGTERM.

    \b
    Example:
      proxyagent serve
    """
    config = policy.load(config_path)
    harden_process()
    memory_locked = lock_memory()
    log_to_stderr()
    activated = activated_listener()
    # An agent that a person runs is that person's. A service's user is nobody's, and shared with the PKCS#11 module.
    operators = frozenset({0} if activated is not None else {0, os.geteuid()})
    clock = SystemClock()
    with contextlib.ExitStack() as stack:  # whatever fails at the end, the rest is done
        audit = AuditLog(
            config.agent.state_directory,
            now=clock.now,
            on_head=_tell_head,
            max_bytes=config.agent.audit_max_mib << 20,
        )
        stack.callback(audit.close)
        agent = Agent(config, clock, audit)
        handler = Handler(config, agent, clock, audit, operators=operators, memory_locked=memory_locked)
        stack.callback(audit.record, "stopped")
        stack.callback(agent.close)
        audit.record("started")
        agent.start()
        server = Server(config.agent, handler, audit)
        server.run(
            activated, lambda: click.echo(f"proxyagent listens on {config.agent.socket}"), agent.attributes.close
        )


def _tell_head(sequence: int, digest: str) -> None:
    """The journal keeps what a cut audit log would no longer show."""
    logging.getLogger("proxyagent.audit").info("audit head %d %s", sequence, digest)

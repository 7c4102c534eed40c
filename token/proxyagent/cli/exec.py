"""`proxyagent exec`: any program with a proxy."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from proxyagent import policy
from proxyagent.cli.words import TIMEOUT_SECONDS, printable
from proxyagent.client import obtain_proxy
from proxyagent.errors import RequestError

_NOT_FOUND = 127  # as shells report a command that does not exist


# What stands behind the command's name is the command's, even -h.
@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--profile", help="Needed where this user may use several.")
@click.option(
    "--lifetime",
    "lifetime_seconds",
    type=click.IntRange(60, 86400),
    default=3600,
    show_default=True,
    help="Seconds; the agent's policy may make it shorter.",
)
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def command(config_path: Path, profile: str | None, lifetime_seconds: int, arguments: tuple[str, ...]) -> NoReturn:
    """Run a command with X509_USER_PROXY set to a fresh proxy in memory; its exit code is the command's.

    The command is not protected from other processes of its own user, who can read the proxy while it runs.

    \b
    Example:
      proxyagent exec --lifetime 600 -- xrdfs root://se.example.org ls /
    """
    config = policy.load(config_path)
    if not arguments[0]:
        raise RequestError("the command's name is empty", hint="write the command after --")
    name = profile or _only_profile(config)
    proxy = obtain_proxy(config.agent.socket, name, lifetime_seconds, timeout_seconds=TIMEOUT_SECONDS)
    os.set_inheritable(proxy.fileno(), True)
    environment = {**os.environ, "X509_USER_PROXY": proxy.path}
    for name in ("X509_USER_CERT", "X509_USER_KEY"):
        environment.pop(name, None)  # some clients prefer them
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them; the command expects them
    try:
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606  this is what `exec` is for
    except OSError as error:
        click.echo(f"error: cannot run {printable(arguments[0])}: {error.strerror}", err=True)
        click.echo("hint: write the command after --, and see whether it is in PATH", err=True)
        sys.exit(_NOT_FOUND)


def _only_profile(config: policy.Config) -> str:
    profiles = config.profiles_of(os.geteuid(), {os.getegid(), *os.getgroups()})
    if len(profiles) != 1:
        names = ", ".join(profile.name for profile in profiles)
        raise RequestError(
            f"this user may use {len(profiles)} profiles",
            hint=f"choose one with --profile: {names}" if names else "add this user's uid to a profile",
        )
    return profiles[0].name

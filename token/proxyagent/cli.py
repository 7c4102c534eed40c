"""The command `proxyagent`: the only place of the package that prints and exits."""

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click
from cryptography import x509

from proxyagent import policy
from proxyagent.agent import Agent
from proxyagent.client import AgentStatus, agent_status, obtain_proxy, unlock_agent
from proxyagent.errors import ConfigError, ProxyAgentError, RequestError, from_kind
from proxyagent.handler import Handler
from proxyagent.hardening import harden_process, lock_memory, open_standard_streams
from proxyagent.hsm import Helper
from proxyagent.messages import NOT_RENEWED
from proxyagent.pin import Secret
from proxyagent.pinentry import read_pin
from proxyagent.server import Server

_DEFAULT_CONFIG = Path("/etc/proxyagent.toml")
_TIMEOUT_SECONDS = 10.0
_INTERRUPTED = 130  # as shells report SIGINT
_NOT_FOUND = 127  # as shells report a command that does not exist
_MAX_CERTIFICATE_BYTES = 32 * 1024


class Commands(click.Group):
    """A group that shows where an error came from, for those who asked."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors go on to `main`."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            if ctx.params["verbose"]:
                for line in traceback.format_exc().splitlines():
                    click.echo(_printable(line), err=True)
            raise


@click.group(cls=Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=_DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file, of the agent and of its users alike.",
)
@click.option("--verbose", is_flag=True, help="Show a traceback with an error.")
@click.version_option(package_name="end-of-run-mover", prog_name="proxyagent")
@click.pass_context
def cli(context: click.Context, config_path: Path, verbose: bool) -> None:  # noqa: ARG001 - `Commands` reads it
    """Grid proxies signed by a key that never leaves its dongle.

    \b
    Example:
      proxyagent --config proxyagent.toml status
    """
    harden_process(no_new_privileges=False)
    context.obj = config_path  # the commands load it, so that their --help needs none


@cli.command()
@click.option("--subject", default="CN=robot", show_default=True, help="The request's name, as in RFC 4514.")
@click.option("--label", default="robot", show_default=True, help="The new key's label.")
@click.option("--request", type=click.Path(path_type=Path, dir_okay=False), help="Where the request goes, else stdout.")
@click.option("--certificate", type=click.Path(path_type=Path), help="Import the CA's answer instead.")
@click.pass_obj
def init(config_path: Path, subject: str, label: str, request: Path | None, certificate: Path | None) -> None:
    """Set up a dongle: make a key on it and a request for the CA, or import the CA's certificate.

    Needs the dongle's PIN, on the terminal or as one line on standard input.

    \b
    Example:
      proxyagent init --subject "CN=Robot - mover,O=Site,C=UK" --request robot.csr
      proxyagent init --certificate robot.pem
    """
    config = policy.load(config_path)
    pem = _read_certificate(certificate) if certificate else None
    _check_subject(subject)
    seconds = config.agent.module_timeout_seconds
    helper = Helper(config.dongle.module, config.dongle.uri, timeout_seconds=seconds, setup=True)
    try:
        state = helper.describe()
        with _ask_pin(state.label, state.serial, state.pin_state) as pin:
            helper.login(pin, state.serial)
        if pem is not None:
            helper.call({"verb": "import-certificate", "certificate": pem})
            click.echo("certificate imported")
            return
        created = helper.call({"verb": "generate-key", "label": label})["created"]
        click.echo("made a key on the dongle" if created else "the dongle has a key already", err=True)
        text = str(helper.call({"verb": "make-request", "subject": subject})["request"])
    finally:
        helper.close()
    _write_request(request, text)


@cli.command()
@click.pass_obj
def serve(config_path: Path) -> None:
    """Run the agent in the foreground until SIGTERM.

    \b
    Example:
      proxyagent serve
    """
    config = policy.load(config_path)
    harden_process()
    memory_locked = lock_memory()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    agent = Agent(config)
    server = Server(config.agent, Handler(config, agent, memory_locked=memory_locked), agent.renew_ahead)
    try:
        server.run(lambda: click.echo(f"proxyagent listens on {config.agent.socket}"))
    finally:
        agent.close()


@cli.command()
@click.pass_obj
def renew(config_path: Path) -> None:
    """Give the agent the dongle's PIN, once, for a new session.

    The PIN is read from the terminal or is one line on standard input.

    \b
    Example:
      proxyagent renew
    """
    config = policy.load(config_path)
    # Three calls into the module: look, log in, sign.
    seconds = 3 * config.agent.module_timeout_seconds + _TIMEOUT_SECONDS
    dongle = agent_status(config.agent.socket, timeout_seconds=seconds).dongle
    if not dongle.present:
        raise from_kind(dongle.kind or "", dongle.problem or "no dongle", dongle.hint or "plug the dongle in")
    with _ask_pin(str(dongle.label), str(dongle.serial), dongle.pin_state) as pin:
        session = unlock_agent(config.agent.socket, pin, timeout_seconds=seconds)
    click.echo(f"session for {_printable(session.identity)} until {session.not_after:%Y-%m-%d %H:%M:%S} UTC")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(config_path: Path, as_json: bool) -> None:
    """Show until when the session lasts, whether the dongle is in, and the profiles for this user.

    \b
    Example:
      proxyagent status --json
    """
    config = policy.load(config_path)
    seconds = config.agent.module_timeout_seconds + _TIMEOUT_SECONDS
    found = agent_status(config.agent.socket, timeout_seconds=seconds)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        for line in _status_lines(found):
            click.echo(_printable(line))


# What stands behind the command's name is the command's, even -h.
@cli.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--profile", help="Needed where this user may use several.")
@click.option(
    "--lifetime",
    "lifetime_seconds",
    type=click.IntRange(60, 86400),
    default=3600,
    show_default=True,
    help="Seconds; the agent's policy may make it shorter.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(config_path: Path, profile: str | None, lifetime_seconds: int, command: tuple[str, ...]) -> NoReturn:
    """Run a command with X509_USER_PROXY set to a fresh proxy in memory; its exit code is the command's.

    \b
    Example:
      proxyagent exec --lifetime 600 -- xrdfs root://se.example.org ls /
    """
    config = policy.load(config_path)
    name = profile or _only_profile(config)
    proxy = obtain_proxy(config.agent.socket, name, lifetime_seconds, timeout_seconds=_TIMEOUT_SECONDS)
    os.set_inheritable(proxy.fileno(), True)
    environment = {**os.environ, "X509_USER_PROXY": proxy.path}
    for name in ("X509_USER_CERT", "X509_USER_KEY"):
        environment.pop(name, None)  # some clients prefer them
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  this is what `exec` is for
    except OSError as error:
        click.echo(f"error: cannot run {_printable(command[0])}: {error.strerror}", err=True)
        click.echo("hint: write the command after --, and see whether it is in PATH", err=True)
        sys.exit(_NOT_FOUND)


def main() -> NoReturn:
    """Entry point. Exits with the error's code, see `proxyagent.errors`; 2 is wrong usage."""
    try:
        open_standard_streams()
        cli.main(prog_name="proxyagent", standalone_mode=False)
    except ProxyAgentError as error:
        _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), "see `proxyagent --help`", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    except Exception as error:
        # The last resort: a bug, or a library that behaves unlike its documentation.
        text = f"unexpected {type(error).__name__}: {error}"
        _fail(text, "please report it, with what `proxyagent --verbose` shows", ProxyAgentError.exit_code)
    sys.exit(0)


def _fail(message: str, hint: str, exit_code: int) -> NoReturn:
    click.echo(f"error: {_printable(message)}", err=True)
    click.echo(f"hint: {_printable(hint)}", err=True)
    sys.exit(exit_code)


def _status_lines(found: AgentStatus) -> list[str]:
    session, dongle = found.session, found.dongle
    lines = [
        f"session: {session.identity} until {session.not_after:%Y-%m-%d %H:%M:%S} UTC"
        + ("" if dongle.logged_in else f"; it {NOT_RENEWED}")
        if session
        else "session: none",
        f"dongle: {dongle.label} (serial {dongle.serial}), PIN {dongle.pin_state}"
        + (", logged in" if dongle.logged_in else "")
        if dongle.present
        else f"dongle: {dongle.problem}",
        f"profiles: {', '.join(found.profiles) or 'none for this user'}",
    ]
    return lines + ([f"hint: {dongle.hint}"] if dongle.hint else [])


def _ask_pin(label: str, serial: str, state: str | None) -> Secret:
    if state == "low":
        click.echo("warning: a wrong PIN was entered on this dongle before; few attempts are left", err=True)
    return read_pin(f"PIN of dongle {_printable(label)} ({_printable(serial)}): ")


def _only_profile(config: policy.Config) -> str:
    names = config.profiles_of(os.geteuid(), os.getegid())
    if len(names) != 1:
        raise RequestError(
            f"this user may use {len(names)} profiles",
            hint=f"choose one with --profile: {', '.join(names)}" if names else "add this user's uid to a profile",
        )
    return names[0]


def _read_certificate(path: Path) -> str:
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_CERTIFICATE_BYTES)
        x509.load_pem_x509_certificate(pem)
        return pem.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="give the path of the CA's answer") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a certificate in PEM", hint="convert it with `openssl x509`") from error


def _check_subject(subject: str) -> None:
    try:
        x509.Name.from_rfc4514_string(subject)
    except ValueError as error:
        raise ConfigError(f"{subject!r} is not a name", hint="write it like CN=Robot,O=Site,C=UK") from error


def _write_request(path: Path | None, text: str) -> None:
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="give another --request FILE") from error


def _printable(text: str) -> str:
    """Foreign text without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)

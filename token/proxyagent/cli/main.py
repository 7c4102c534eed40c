"""The group of commands, the options common to all, and the one place where errors become words and exit codes."""

import contextlib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from proxyagent.cli.words import printable
from proxyagent.errors import ProxyAgentError
from proxyagent.hardening import harden_process, open_standard_streams

_DEFAULT_CONFIG = Path("/etc/proxyagent.toml")
_INTERRUPTED = 130  # as shells report SIGINT

_COMMANDS = ("audit", "config", "dongles", "exec", "init", "pin", "plugged", "renew", "serve", "status", "voms")


class Commands(click.Group):
    """A group that loads a command when it is asked for, and shows where an error came from, for those who asked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The command of that name, from its module: `exec` from `exec_`, for it is a builtin's name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"proxyagent.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors go on to `main`."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            if ctx.params["verbose"]:
                for line in traceback.format_exc().splitlines():
                    click.echo(printable(line), err=True)
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


def main() -> NoReturn:
    """Entry point. Exits with the error's code, see `proxyagent.errors`; 2 is wrong usage."""
    code: object = 0
    try:
        open_standard_streams()
        code = cli.main(prog_name="proxyagent", standalone_mode=False)
    except ProxyAgentError as error:
        _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), "see `proxyagent --help`", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _leave(_INTERRUPTED)
    except OSError as error:
        _fail(*_system_error(error), ProxyAgentError.exit_code)
    except Exception as error:
        # The last resort: a bug, or a library that behaves unlike its documentation.
        text = f"unexpected {type(error).__name__}: {error}"
        _fail(text, "please report it, with what `proxyagent --verbose` shows", ProxyAgentError.exit_code)
    _leave(code if isinstance(code, int) else 0)


def _system_error(error: OSError) -> tuple[str, str]:
    if error.filename is None:
        return f"cannot write the output: {error.strerror}", "see where standard output goes"
    return f"{error.filename}: {error.strerror}", "see whether this user may use that file"


def _fail(message: str, hint: str, exit_code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # if nobody reads it, there is still the exit code
        click.echo(f"error: {printable(message)}", err=True)
        click.echo(f"hint: {printable(hint)}", err=True)
    _leave(exit_code)


def _leave(exit_code: int) -> NoReturn:
    """Exit with that code even if what is still to be written cannot be: Python would make it 120."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
    sys.exit(exit_code)

"""The command `mover`: options common to all commands, and the one place where errors become words and exit codes."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

from mover.cli.adopt import adopt
from mover.cli.audit import audit
from mover.cli.bundle import bundle
from mover.cli.catalogue import catalogue
from mover.cli.config import config
from mover.cli.context import Context
from mover.cli.custody import custody
from mover.cli.demo import demo
from mover.cli.engine import engine
from mover.cli.orphans import orphans
from mover.cli.policy import policy
from mover.cli.release import release
from mover.cli.run import run
from mover.cli.status import status
from mover.errors import MoverError, OutputError, UnexpectedError


class Failure(click.ClickException):
    """An error of ours, shown as `error:` and `hint:`."""

    def __init__(self, error: MoverError, *, verbose: bool) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code  # type: ignore[misc] # click reads it from the instance
        self._error = error
        self._verbose = verbose

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to `file`, or to standard error."""
        if self._verbose:
            click.echo("".join(traceback.format_exception(self._error)), file=file, err=True, nl=False)
        click.echo(f"error: {self._error.message}", file=file, err=True)
        click.echo(f"hint: {self._error.hint}", file=file, err=True)


class Commands(click.Group):
    """A group whose commands' errors end in one place."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error but click's own becomes a Failure."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except MoverError as error:
            raise Failure(error, verbose=ctx.params["verbose"]) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Nobody reads on, as with `| head`: click ends quietly.
                raise
            if error.errno != errno.ENOSPC:
                raise Failure(UnexpectedError(error), verbose=ctx.params["verbose"]) from error
            _forget_output()
            unwritten = OutputError(
                "cannot write the output: no space left on device", hint="make space, or write it elsewhere"
            )
            raise Failure(unwritten, verbose=ctx.params["verbose"]) from error
        except Exception as error:
            if _is_ctrl_c(error):
                raise click.Abort from error
            raise Failure(UnexpectedError(error), verbose=ctx.params["verbose"]) from error


def _forget_output() -> None:
    """Let what is still held for standard output go to nobody: at its end, Python would fail over it once more."""
    with suppress(OSError, ValueError):  # it is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _is_ctrl_c(error: BaseException) -> bool:
    """Whether Ctrl-C is at the root of it: in a call of gfal2, Python makes a chain of SystemErrors of it."""
    while isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, KeyboardInterrupt)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/mover/mover.toml"),
    show_default=True,
    help="The configuration file.",
)
@click.option("--verbose", is_flag=True, help="Show a traceback with an error.")
@click.version_option(package_name="end-of-run-mover", prog_name="mover")
@click.pass_context
def cli(ctx: click.Context, config_path: Path, verbose: bool) -> None:  # noqa: ARG001 - click's way
    """Move the data of an experiment's run to Grid storage at end of run, and say when the local files may go.

    \b
    Example:
      mover --config mover.toml engine
    """
    ctx.obj = Context(config_path)


for command in (adopt, audit, bundle, catalogue, config, custody, demo, engine, orphans, policy, release, run, status):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    cli()

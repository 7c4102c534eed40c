"""The command `mover`: options common to all commands, and the one place where errors become words and exit codes."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from mover.cli.adopt import adopt
from mover.cli.audit import audit
from mover.cli.bundle import bundle
from mover.cli.campaign import campaign
from mover.cli.catalogue import catalogue
from mover.cli.config import config
from mover.cli.context import Context
from mover.cli.custody import custody
from mover.cli.demo import demo
from mover.cli.engine import engine
from mover.cli.metrics import metrics
from mover.cli.orphans import orphans
from mover.cli.policy import policy
from mover.cli.reco import reco
from mover.cli.release import release
from mover.cli.run import run
from mover.cli.status import status
from mover.cli.streams import forget_output, open_standard_streams, output_error
from mover.cli.tables import printable
from mover.cli.top import top
from mover.cli.why import why
from mover.errors import MoverError, UnexpectedError

#: How Ctrl-C ends it, as shells report SIGINT.
_INTERRUPTED = 130


class Failure(click.ClickException):
    """An error of ours, shown as `error:` and `hint:`."""

    def __init__(self, error: MoverError, *, verbose: bool) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code  # type: ignore[misc] # click reads it from the instance
        self._error = error
        self._verbose = verbose

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to `file`, or to standard error."""
        trace = "".join(traceback.format_exception(self._error)) if self._verbose else ""
        text = f"{trace}error: {self._error.message}\nhint: {self._error.hint}"
        try:
            click.echo(printable(text), file=file, err=True)
        except OSError:
            # Nobody can be told; there is still the exit code.
            forget_output(sys.stderr)


class Commands(click.Group):
    """A group whose commands' errors end in one place."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Read the command line, which may already print: help, or the version."""
        with _in_words(verbose="--verbose" in args):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error but click's own becomes a Failure."""
        with _in_words(verbose=ctx.params["verbose"]):
            return super().invoke(ctx)


@contextmanager
def _in_words(*, verbose: bool) -> Iterator[None]:
    """The one place where errors become words."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit):
        raise
    except (click.Abort, KeyboardInterrupt):
        raise click.exceptions.Exit(_INTERRUPTED) from None
    except MoverError as error:
        raise Failure(error, verbose=verbose) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            # Nobody reads on, as with `| head`: click ends quietly.
            raise
        unwritten = output_error(error)
        if unwritten is None:
            raise Failure(UnexpectedError(error), verbose=verbose) from error
        forget_output(sys.stdout)
        raise Failure(unwritten, verbose=verbose) from error
    except Exception as error:
        if _is_ctrl_c(error):
            raise click.exceptions.Exit(_INTERRUPTED) from None
        raise Failure(UnexpectedError(error), verbose=verbose) from error


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


_COMMANDS = (
    adopt,
    audit,
    bundle,
    campaign,
    catalogue,
    config,
    custody,
    demo,
    engine,
    metrics,
    orphans,
    policy,
    reco,
    release,
    run,
    status,
    top,
    why,
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """What the console script runs, once it is loaded."""
    open_standard_streams()
    cli(prog_name="mover")

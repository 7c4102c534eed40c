"""`proxyagent audit`: whether the audit log is what was written."""

from pathlib import Path

import click

from proxyagent import policy
from proxyagent.audit import verify_audit


@click.group("audit", no_args_is_help=False)
def command() -> None:
    """The log of everything that was issued, refused and unlocked."""


@command.command()
@click.option("--directory", type=click.Path(path_type=Path), help="The log's directory, if not the configured one.")
@click.option(
    "--head",
    nargs=2,
    type=(int, str),
    metavar="SEQUENCE DIGEST",
    help="The last 'audit head' in the journal, which shows whether the end of the log was cut off.",
)
@click.pass_obj
def verify(config_path: Path, directory: Path | None, head: tuple[int, str] | None) -> None:
    """See that no line of the audit log was changed, removed, inserted or moved.

    \b
    Example:
      proxyagent audit verify --head 1234 9f86d081884c7d65…
    """
    directory = directory or policy.load(config_path).agent.state_directory
    report = verify_audit(directory, head=head)
    files = "one file" if report.files == 1 else f"{report.files} files"
    click.echo(f"{report.records} records in {files} are as they were written")
    if report.removed:
        click.echo(f"{report.removed} before them were removed, as audit_max_mib has it")
    if report.head is not None:
        click.echo(f"head: {report.head[0]} {report.head[1]}")

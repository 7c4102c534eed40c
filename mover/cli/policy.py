"""`mover policy`: what the replica policy of the configuration wants of the runs that are known already."""

from datetime import UTC, datetime

import click

from mover.cli.context import Context, pass_context
from mover.cli.jsonout import json_option, print_json
from mover.cli.tables import console, size, table
from mover.steps.wants import PolicyPlan, apply_policy, plan_policy


@click.group()
def policy() -> None:
    """Hold old runs against the replica policy."""


@policy.command()
@json_option
@pass_context
def plan(context: Context, *, as_json: bool) -> None:
    """Show which replicas the policy wants and nobody has asked for yet. Nothing is changed.

    \b
    Example:
      mover policy plan
    """
    with context.catalogue() as database:
        found = plan_policy(database, context.config)
    if as_json:
        print_json(_document(found))
    else:
        _show(found)


@policy.command()
@json_option
@pass_context
def apply(context: Context, *, as_json: bool) -> None:
    """Want what `mover policy plan` shows; the engine makes it, after the live runs. Stored files are never removed.

    Restart the engine first: it goes by the policy that it was started with.

    \b
    Example:
      mover policy plan && mover policy apply
    """
    with context.catalogue() as database:
        found = plan_policy(database, context.config)
        apply_policy(database, found, now=datetime.now(UTC))
    if as_json:
        print_json(_document(found))
        return
    _show(found)
    click.echo(f"{sum(len(want.endpoints) for want in found.wants)} replicas are wanted now")


def _document(found: PolicyPlan) -> dict[str, object]:
    return {
        "wants": [
            {
                "run": want.bundle.run,
                "kind": want.bundle.kind.value,
                "lfn": want.bundle.lfn,
                "size_bytes": want.bundle.size_bytes,
                "endpoints": list(want.endpoints),
            }
            for want in found.wants
        ],
        "not_safe_any_more": list(found.unsafe),
    }


def _show(found: PolicyPlan) -> None:
    if not found.wants and not found.unsafe:
        click.echo("the policy wants nothing new")
        return
    rows = [
        (
            str(want.bundle.run),
            want.bundle.kind,
            want.bundle.lfn,
            size(want.bundle.size_bytes),
            ", ".join(want.endpoints),
        )
        for want in found.wants
    ]
    out = console()
    out.print(table(("run", "kind", "bundle", "size", "to"), rows))
    per_endpoint: dict[str, list[int]] = {}
    for want in found.wants:
        for name in want.endpoints:
            per_endpoint.setdefault(name, []).append(want.bundle.size_bytes)
    for name, sizes in sorted(per_endpoint.items()):
        out.print(f"{name}: {len(sizes)} replicas, {size(sum(sizes))}")
    if found.unsafe:
        out.print(f"safe by an earlier policy, but not by this one: {', '.join(map(str, found.unsafe))}")

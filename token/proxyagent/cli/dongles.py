"""`proxyagent dongles`: what is plugged in."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from proxyagent import policy
from proxyagent.cli.words import printable
from proxyagent.hsm import Helper, ListedDongle
from proxyagent.modules import DEFAULT_ALLOWED
from proxyagent.uri import Uri

_TIMEOUT_SECONDS = 30.0


@click.command("dongles")
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A PKCS#11 module to ask instead of the configured ones; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def command(config_path: Path, modules: tuple[Path, ...], as_json: bool) -> None:
    """List every dongle that is plugged in, with what it shows without its PIN. No PIN is asked for or sent.

    \b
    Example:
      proxyagent dongles --module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so
    """
    allowed: tuple[str, ...] = DEFAULT_ALLOWED
    seconds = _TIMEOUT_SECONDS
    if not modules:
        config = policy.load(config_path)
        modules = tuple(dict.fromkeys(identity.module for identity in config.identity))
        allowed, seconds = config.agent.modules, config.agent.module_timeout_seconds
    found = {module: _list(module, allowed, seconds) for module in modules}
    if as_json:
        rows = [
            {"module": str(module), "uri": each.uri, **each.to_message()} for module in found for each in found[module]
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for module, dongles in found.items():
        click.echo(printable(f"{module}: {len(dongles) or 'no'} dongle{'s' if len(dongles) != 1 else ''}"))
        for dongle in dongles:
            for line in _lines(dongle):
                click.echo(printable(line))


def _list(module: Path, allowed: tuple[str, ...], timeout_seconds: float) -> tuple[ListedDongle, ...]:
    helper = Helper(module, Uri(), timeout_seconds=timeout_seconds, allowed_modules=allowed)
    try:
        return helper.list_dongles()
    finally:
        helper.close()


def _lines(dongle: ListedDongle) -> Iterator[str]:
    pad = ", with a pin pad" if dongle.pin_pad else ""
    if dongle.initialised:
        maker = f"{dongle.manufacturer} {dongle.model}, serial {dongle.serial}"
        yield f"  {dongle.label}  ({maker}), PIN {dongle.pin_state}{pad}"
        yield f"    uri: {dongle.uri}"
    else:
        yield f"  blank  ({dongle.manufacturer} {dongle.model}, serial {dongle.serial or 'none'}){pad}"
    for key in dongle.keys:
        size = f" {key.size_bits}" if key.size_bits else ""
        yield f"    key {key.label} (id {key.id}): {key.type}{size}"
    for each in dongle.certificates:
        yield f"    certificate {each.label} (id {each.id}, {each.key}) until {each.not_after:%Y-%m-%d}: {each.subject}"
    if dongle.initialised and not dongle.keys:
        yield "    no key; make one with `proxyagent init`"
    if dongle.problem:
        yield f"    problem: {dongle.problem}"

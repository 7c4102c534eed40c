"""What commands share: printing foreign text, and asking for PINs."""

import logging
import sys

import click

from proxyagent.askpassword import ask_pin as ask_systemd
from proxyagent.pin import Secret, check_at_no_risk
from proxyagent.pinentry import read_pin
from proxyagent.systemd import log_formatter

TIMEOUT_SECONDS = 10.0
PERSON_SECONDS = 120.0


def printable(text: str) -> str:
    """Foreign text without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def log_to_stderr() -> None:
    """Log as a service does, with levels that the journal understands."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_formatter())
    handler.addFilter(_make_printable)
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def _make_printable(record: logging.LogRecord) -> bool:
    """A dongle's label or a certificate's name must not begin a line of its own, nor move the cursor."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


def send_to_pin_pad(label: str, serial: str, pin_state: str | None) -> None:
    """Tell the person to enter the PIN at the reader.

    Raises:
        PinAtRiskError: a wrong one would lock the dongle.
    """
    _look_at(pin_state)
    click.echo(f"enter the PIN of dongle {printable(label)} ({printable(serial)}) at the reader's pin pad", err=True)


def ask_pin(
    label: str, serial: str, pin_state: str | None, *, systemd: bool = False, person_seconds: float = PERSON_SECONDS
) -> Secret:
    """The PIN of a dongle, from the terminal, one line on standard input, or systemd's agents.

    Raises:
        PinNotSentError: none was entered.
        PinAtRiskError: none is asked for, because a wrong one would lock the dongle.
    """
    _look_at(pin_state)
    prompt = f"PIN of dongle {printable(label)} ({printable(serial)}): "
    if systemd:
        return ask_systemd(prompt, timeout_seconds=person_seconds, identifier=f"proxyagent:{serial}")
    return read_pin(prompt, timeout_seconds=person_seconds)


def _look_at(pin_state: str | None) -> None:
    check_at_no_risk(pin_state)
    if pin_state == "low":
        click.echo("warning: a wrong PIN was entered on this dongle before; few attempts are left", err=True)

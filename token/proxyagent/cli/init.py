"""`proxyagent init`: setting up a dongle."""

from pathlib import Path

import click
from cryptography import x509

from proxyagent import policy
from proxyagent.cli.words import ask_pin, send_to_pin_pad
from proxyagent.description import KEY_KINDS
from proxyagent.errors import ConfigError, RequestError
from proxyagent.extensions import UNREADABLE
from proxyagent.hsm import Helper

_MAX_CERTIFICATE_BYTES = 32 * 1024


@click.command("init")
@click.option("--identity", "name", help="Whose dongle; needed where there are several identities.")
@click.option("--subject", default="CN=robot", show_default=True, help="The request's name, as in RFC 4514.")
@click.option("--label", default="robot", show_default=True, help="The new key's label.")
@click.option(
    "--key",
    "kind",
    type=click.Choice(KEY_KINDS),
    default=KEY_KINDS[0],
    show_default=True,
    help="The kind of a new key.",
)
@click.option("--request", type=click.Path(path_type=Path, dir_okay=False), help="Where the request goes, else stdout.")
@click.option("--certificate", type=click.Path(path_type=Path), help="Import the CA's answer instead.")
@click.pass_obj
def command(  # noqa: PLR0917 - click gives them by name
    config_path: Path,
    name: str | None,
    subject: str,
    label: str,
    kind: str,
    request: Path | None,
    certificate: Path | None,
) -> None:
    """Set up a dongle: make a key on it and a request for the CA, or import the CA's certificate.

    Needs the dongle's PIN, on the terminal or as one line on standard input.

    \b
    Example:
      proxyagent init --subject "CN=Robot - mover,O=Site,C=UK" --key rsa-3072 --request robot.csr
      proxyagent init --certificate robot.pem
    """
    config = policy.load(config_path)
    pem = _read_certificate(certificate) if certificate else None
    _check_subject(subject)
    if request is not None and request.exists():  # before a PIN is asked for
        raise ConfigError(f"{request} exists already", hint="give another --request FILE, or move that one away")
    section = _choose(config, name)
    seconds = config.agent.module_timeout_seconds
    modules = config.agent.modules
    helper = Helper(section.module, section.uri, timeout_seconds=seconds, allowed_modules=modules, setup=True)
    try:
        _log_in(helper, section, config.agent.pin_pad_timeout_seconds)
        if pem is not None:
            helper.call({"verb": "import-certificate", "certificate": pem})
            click.echo("certificate imported")
            return
        created = helper.call({"verb": "generate-key", "label": label, "kind": kind})["created"]
        click.echo(f"made a key ({kind}) on the dongle" if created else "the dongle has a key already", err=True)
        text = str(helper.call({"verb": "make-request", "subject": subject})["request"])
    finally:
        helper.close()
    _write_request(request, text)


def _choose(config: policy.Config, name: str | None) -> policy.IdentitySection:
    names = ", ".join(section.name for section in config.identity)
    if name is None and len(config.identity) > 1:
        raise RequestError(f"there are {len(config.identity)} identities", hint=f"choose with --identity: {names}")
    for section in config.identity:
        if name is None or section.name == name:
            return section
    raise RequestError(f"there is no identity {name!r}", hint=f"use one of {names}")


def _log_in(helper: Helper, section: policy.IdentitySection, pin_pad_seconds: float) -> None:
    state = helper.describe()
    if state.pin_pad and section.pin_pad:
        send_to_pin_pad(state.label, state.serial, state.pin_state)
        helper.login(None, state.serial, timeout_seconds=pin_pad_seconds)
        return
    with ask_pin(state.label, state.serial, state.pin_state) as pin:
        helper.login(pin, state.serial)


def _read_certificate(path: Path) -> str:
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_CERTIFICATE_BYTES)
        x509.load_pem_x509_certificate(pem)
        return pem.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="give the path of the CA's answer") from error
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not a certificate in PEM", hint="convert it with `openssl x509`") from error


def _check_subject(subject: str) -> None:
    try:
        if not x509.Name.from_rfc4514_string(subject).rdns or not subject.isprintable():
            raise ValueError("nobody's name")
    except ValueError as error:
        raise ConfigError(f"{subject!r} is not a name", hint="write it like CN=Robot,O=Site,C=UK") from error


def _write_request(path: Path | None, text: str) -> None:
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="give another --request FILE") from error

"""Custody certificates on the command line."""

import json
import re
from pathlib import Path

from click.testing import CliRunner

from mover.cli.main import cli
from mover.sandbox.ca import CertificateAuthority
from tests.unit.mover.bench import LFN, RUN, Bench
from tests.unit.mover.certificate.robot import ROBOT, RobotProxy, certificate_of


def test_the_command_says_who_signed_when_and_how_far_that_goes(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.make_safe()
    file = tmp_path / "4742.certificate"
    file.write_bytes(certificate_of(bench, proxy))
    command = ["custody", "check", str(file), "--ca-directory", str(authority.directory)]
    checked = CliRunner().invoke(cli, command)
    assert checked.exit_code == 0, checked.output
    words = re.sub(r"\s+", " ", checked.output)
    for said in (
        f"run {RUN} of MICE is safe",
        f"signed by {ROBOT}",
        "as the signer says",
        "no trusted timestamp",
        "This does not prove",
        bench.endpoints["tape"].url(LFN),
    ):
        assert said in words
    as_json = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert (as_json["signer"], as_json["statement"]["run"]["number"]) == (ROBOT, RUN)
    piped = CliRunner().invoke(cli, ["custody", "check", "-", *command[3:]], input=file.read_bytes())
    assert piped.output == checked.output
    refused = CliRunner().invoke(cli, [*command, "--signer", "/CN=Another"])
    assert refused.exit_code == 7
    assert f"error: the certificate is not to be trusted: it is signed by {ROBOT}\nhint: " in refused.stderr
    file.write_bytes(file.read_bytes().replace(b'"payload": "ey', b'"payload": "ez'))
    refused = CliRunner().invoke(cli, command)
    assert (refused.exit_code, "Traceback" in refused.output) == (7, False)
    assert CliRunner().invoke(cli, ["custody", "check", str(tmp_path / "none")]).exit_code == 2


def test_a_run_that_is_not_safe_is_shown_so(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    bench.close_run()
    file = tmp_path / "4742.certificate"
    file.write_bytes(certificate_of(bench, proxy))
    command = ["custody", "check", str(file), "--ca-directory", str(authority.directory)]
    assert f"run {RUN} of MICE is planned, NOT safe\n" in CliRunner().invoke(cli, command).output


def test_a_certificate_that_was_kept_shows_that_the_chain_was_cut_off_or_made_anew(
    bench: Bench, proxy: RobotProxy, authority: CertificateAuthority, tmp_path: Path
) -> None:
    config = tmp_path / "mover.toml"
    config.write_text(
        f'experiment = "MICE"\ncatalogue = "{bench.config.catalogue}"\n'
        f'[runs]\ndirectory = "{bench.config.runs.directory}"\n[bundle]\nlfn = "MICE/{{run:05d}}.tar"\n'
        f'[[endpoint]]\nname = "disk"\nsite = "here"\nkind = "disk"\nurl = "file://{tmp_path}/disk"\n'
        f'[credential]\nca_directory = "{authority.directory}"\n[policy.raw]\ntapes = 0\ntape_sites = 0\ndisks = 1\n'
    )
    bench.close_run()
    file = tmp_path / "4742.certificate"
    file.write_bytes(certificate_of(bench, proxy))
    command = ["--config", str(config), "custody", "verify", "--certificate", str(file)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    bench.spoiled = True
    with bench.catalogue.transaction() as connection:
        connection.execute("DROP TRIGGER custody_is_not_removed")
        connection.execute("DELETE FROM custody")
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 5
    assert "ends with record 0, but record 1 was noted" in refused.stderr
    file.write_bytes(b"{}")
    assert CliRunner().invoke(cli, command).exit_code == 7

"""The configuration: the example is good, and everything that is wrong is said at once."""

from pathlib import Path

import pytest

from mover.config import load_config
from mover.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "examples" / "mice.toml"
GOOD = EXAMPLE.read_text(encoding="utf-8")


def _load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mover.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path)


def _refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert caught.value.hint
    return caught.value.message


def test_the_mice_example_is_good() -> None:
    config = load_config(EXAMPLE)
    assert config.bundle.naming().lfn(4742) == "MICE/Step1/04700/04742.tar"
    assert config.bundle.naming().lfn(6008) == "MICE/Step4/06000/06008.tar"
    assert config.runs.naming().part_name(4742, 0) == "04742.000"


def test_several_faults_are_said_at_once_with_their_keys(tmp_path: Path) -> None:
    text = GOOD.replace('directory = "/data/daq"', 'directory = "daq"').replace('kind = "disk"', 'kind = "disc"')
    message = _refused(tmp_path, text + "\n[polcy]\ntapes = 1\n")
    assert "3 faults" in message
    assert "runs.directory: must be an absolute path" in message
    assert "endpoint[2].kind" in message
    assert "polcy: unknown key" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('experiment = "MICE"', "", "experiment: missing"),
        ('experiment = "MICE"', 'experiment = "a b"', "may have letters, digits"),
        ("tapes = 2", "tapes = 3", "wants 3 tapes, but the endpoints (without optional ones) are only 2"),
        ("tapes = 2", "tapes = 0", "tape_sites cannot be more than tapes"),
        (
            'site = "Imperial"',
            'site = "RAL"',
            "wants 2 tape sites, but the endpoints",
        ),
        ('name = "imperial-tape"', 'name = "ral-tape"', "two endpoints have the name"),
        ('digests = ["sha256", "md5"]', 'digests = ["md5"]', "sha256"),
        ("{century:05d}", "{decade}", "unknown field {decade}"),
        ("{run:05d}.tar", "bundle.tar", "lacks the field {run}"),
        ("davs://", "ftp://", "the scheme must be one of"),
        ('name = "Step4"\nfirst_run = 5889', 'name = "Step4"\nfirst_run = 0', "the same first_run"),
        ('"/var/lib/mover/catalogue.sqlite"', '"/data/daq/00001.000"', "put it elsewhere than into runs.directory"),
        ('format = "date"', "poll_seconds = 1e-300", "greater than or equal to 0.05"),
        ("davs://", "davs://user:secret@", "no user, password, query"),
        ("davs://se.example.org:443/mice", "davs://se.example.org", "bad endpoint URL"),
        ("davs://se.example.org:443/mice", "roots://tape.example.ac.uk:1094//mice", "are the same place"),
        ("root://tape", "gsiftp://tape", "gsiftp tells nothing of tapes"),
        ("davs://se.example.org:443/mice", "davs://se.example.org/a b", "bad endpoint URL"),
        ("davs://se.example.org:443/mice", "davs://se_x.example.org/mice", "bad endpoint URL"),
        ("davs://se.example.org:443/mice", "root://TAPE.example.ac.uk/mice", "are the same place"),
        ("davs://dc.example.net:443/mice", "davs://se.example.org//mice/", "are the same place"),
        ("[engine]", "[engine]\nlease_seconds = 60", "lease_seconds must be more than"),
        ("optional = []", 'optional = ["brunel-disk"]', "wants 1 disks, but the endpoints (without optional ones)"),
        ("optional = []", 'optional = ["cern"]', "'cern' is optional, but not among the endpoints"),
        ('"imperial-tape", "brunel-disk"]', '"imperial-tape", "cern"]', "there is no endpoint 'cern'"),
        ('"imperial-tape", "brunel-disk"]', '"brunel-disk", "brunel-disk"]', "endpoints names one twice"),
        ("streams = 2", "streams = 0", "greater than or equal to 1"),
        ('source = "tpc"', 'source = "fts"', "'tpc' or 'local'"),
        ('name = "Step4"', 'name = "Step1"', "two [[bundle.step]] have the same name"),
        ("[engine]", "[engine]\nfirst_retry_seconds = 1801", "longest_retry_seconds (1800) is less than first_retry"),
        ("[engine]", "[engine]\nlongest_probe_seconds = 29.5", "longest_probe_seconds (29.5) is less than first_probe"),
        ("streams = 2", "streams = true", "streams must be a number, without quotes"),
        ("streams = 2", 'streams = "2"', "streams must be a number, without quotes"),
        ("streams = 2", "checksum_timeout_seconds = ''", "checksum_timeout_seconds must be a number"),
        ("streams = 2", "stall_timeout_seconds = false", "stall_timeout_seconds must be a number"),
        (
            "limit_bytes_per_second = 100_000_000",
            "limit_bytes_per_second = true",
            "limit_bytes_per_second must be a number, without quotes",
        ),
        ("streams = 2", "third_party_copy = 1", "third_party_copy must be true or false, without quotes"),
        ("streams = 2", 'third_party_copy = "yes"', "third_party_copy must be true or false, without quotes"),
        ('format = "date"', "poll_seconds = true", "runs: poll_seconds must be a number, without quotes"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    message = _refused(tmp_path, GOOD.replace(old, new))
    assert said in message
    assert "secret" not in message


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    assert "line 2" in _refused(tmp_path, 'experiment = "MICE"\ncatalogue = \n')


def test_a_missing_or_binary_file_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="/dev/zero is no configuration: it is over 1 MiB"):
        load_config(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("part", "marker", "said"),
    [
        ("{run:05d}{part:03d}", "{run:05d}.end", "separator"),
        ("{part:03d}.{run:05d}", "{run:05d}.end", "must come first"),
        ("{run:05d}.{part:03d}", "{run:05d}.000", "looks like a part"),
        ("../{run:05d}.{part:03d}", "{run:05d}.end", "may have letters, digits"),
    ],
)
def test_part_and_marker_names_that_could_be_confused_are_refused(
    tmp_path: Path, part: str, marker: str, said: str
) -> None:
    text = GOOD.replace('part = "{run:05d}.{part:03d}"', f'part = "{part}"')
    text = text.replace('marker = "{run:05d}.end"', f'marker = "{marker}"')
    assert said in _refused(tmp_path, text)

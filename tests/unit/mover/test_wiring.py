"""Every scheme that the configuration takes has its adapter."""

import subprocess
import sys
from pathlib import Path

import pytest

from mover.config import SCHEMES

_EXAMPLE = Path(__file__).parents[3] / "examples/mice.toml"
# In a process of its own: it protects its memory, and sets where GSI finds its CAs.
_PROGRAM = """
import sys
from pathlib import Path
from mover.config import load_config
from mover.wiring import build_endpoints
endpoint = build_endpoints(load_config(Path(sys.argv[1])))["brunel-disk"]
print(type(endpoint).__name__, endpoint.url("a"), *endpoint.capabilities.third_party_copy)
"""


def _built(directory: Path, base_url: str, more: str = "") -> list[str]:
    """The adapter's class, a URL of its, and what it copies by."""
    config = directory / "mover.toml"
    old = 'url = "davs://dc.example.net:443/mice"'
    assert _EXAMPLE.read_text().count(old) == 1
    config.write_text(_EXAMPLE.read_text().replace(old, f'url = "{base_url}"\n{more}'))
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adapter_of_each_scheme(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("gfal2", reason="apt install python3-gfal2")
    base_url = f"file://{tmp_path}" if scheme == "file" else f"{scheme}://dc.example.net:4711//mice"
    name, url, *copies_by = _built(tmp_path, base_url)
    assert name.lower() == f"{scheme}endpoint"
    assert url.startswith(f"{scheme}://")
    assert copies_by == ([scheme] if scheme in {"root", "davs", "gsiftp"} else [])


@pytest.mark.parametrize("scheme", ["root", "davs", "gsiftp"])
def test_third_party_copy_is_the_sites_choice(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("gfal2", reason="apt install python3-gfal2")
    _, _, *copies_by = _built(tmp_path, f"{scheme}://dc.example.net:4711//mice", "third_party_copy = false")
    assert copies_by == []

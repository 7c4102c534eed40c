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
print(type(endpoint).__name__, endpoint.url("a"))
"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adapter_of_each_scheme(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("gfal2", reason="apt install python3-gfal2")
    base_url = f"file://{tmp_path}" if scheme == "file" else f"{scheme}://dc.example.net:4711//mice"
    config = tmp_path / "mover.toml"
    old = "davs://dc.example.net:443/mice"
    assert _EXAMPLE.read_text().count(old) == 1
    config.write_text(_EXAMPLE.read_text().replace(old, base_url))
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    name, url = done.stdout.split()
    assert name.lower() == f"{scheme}endpoint"
    assert url.startswith(f"{scheme}://")

"""Whether tests may act as another user at all."""

import subprocess
import sys

import pytest

_NOBODY = 65534


def need_readable_checkout() -> None:
    """Skip the test if other users cannot run the working copy, such as one in root's own home."""
    as_nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--"]
    done = subprocess.run(
        [*as_nobody, sys.executable, "-P", "-c", "import proxyagent.client"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    if done.returncode != 0:
        pytest.skip("needs a working copy that other users may read")

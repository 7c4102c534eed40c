"""A dongle of the site's robot, which can be unplugged."""

from pathlib import Path

import pytest

from mover.sandbox.dongle import Dongle
from mover.sandbox.service import MOVER
from mover.sandbox.site import Site
from tests.integration.proxyagent import conftest as proxyagent

# The PKCS#11 module that misbehaves on demand, for a dongle of ours.
shim_module, shim = proxyagent.shim_module, proxyagent.shim


@pytest.fixture
def dongle(site: Site, tmp_path: Path) -> Dongle:
    """Another dongle of the same robot."""
    return Dongle(tmp_path / "dongle", site.ca, MOVER.robot)

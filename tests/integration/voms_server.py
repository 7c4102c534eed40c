"""What tests need to start the sandbox's VOMS server."""

from pathlib import Path

import pytest

_PACKAGES = {
    "/usr/sbin/voms": "voms-server",
    "/usr/lib/voms/libvomsmysql.so": "voms-mysql-plugin",
    "/usr/sbin/mariadbd": "mariadb-server-core",
    "/usr/include/stdsoap2.h": "libgsoap-dev",
    "/usr/bin/g++": "g++",
}


def need_voms_server() -> None:
    """Skip the test if a package is missing."""
    for path, package in _PACKAGES.items():
        if not Path(path).exists():
            pytest.skip(f"{path} is not installed: apt install {package}")

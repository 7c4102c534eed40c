"""The udev rules, judged by the real udevadm: which devices have systemd look at them, and that nothing is run."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "udev" / "60-proxyagent.rules"
SMART_CARD, VENDOR, HUMAN_INTERFACE, STORAGE = 0x0B, 0xFF, 0x03, 0x08
UNIT = "proxyagent-renew@.service"

pytestmark = [
    pytest.mark.skipif(shutil.which("udevadm") is None, reason="needs the package udev"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a /sys of its own"),
]

#: Mounts a /sys with nothing but the device in it, where nobody else sees it, and asks what udev would make of that.
SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/char
mkdir -p /run/udev/rules.d
cp "$1" /run/udev/rules.d/
mount -t tmpfs tmpfs /sys
cp -a "$2"/. /sys
exec udevadm test --action="$3" /sys/devices/usb1/1-1
"""


def lay_out(root: Path, vendor: str, product: str, classes: list[int], kind: str = "usb_device") -> None:
    """What the kernel would show of a USB device with interfaces of these classes."""
    device = root / "devices/usb1/1-1"
    device.mkdir(parents=True)
    (root / "bus/usb").mkdir(parents=True)
    (device / "subsystem").symlink_to("../../../bus/usb")
    uevent = {
        "MAJOR": 189,
        "MINOR": 1,
        "DEVNAME": "bus/usb/001/002",
        "DEVTYPE": kind,
        "PRODUCT": f"{vendor}/{product}/1",
    }
    (device / "uevent").write_text("".join(f"{name}={value}\n" for name, value in uevent.items()))
    (device / "idVendor").write_text(f"{vendor}\n")
    (device / "idProduct").write_text(f"{product}\n")
    # USB 2.0, 9.6: a device, a configuration, its interfaces, each with an endpoint.
    described = struct.pack(
        "<BBHBBBBHHHBBBB", 18, 1, 0x200, 0, 0, 0, 64, int(vendor, 16), int(product, 16), 1, 1, 2, 3, 1
    )
    described += struct.pack("<BBHBBBBB", 9, 2, 9 + 16 * len(classes), len(classes), 1, 0, 0x80, 50)
    for number, each in enumerate(classes):
        described += struct.pack("<BBBBBBBBB", 9, 4, number, 0, 1, each, 0, 0, 0)
        described += struct.pack("<BBBBHB", 7, 5, 0x81, 2, 64, 0)
    (device / "descriptors").write_bytes(described)


def judge(tmp_path: Path, action: str = "add") -> str:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(RULES), str(tmp_path), action],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0 and "mount" in done.stderr:
        pytest.skip("needs to be allowed to mount")
    assert done.returncode == 0, done.stderr
    assert RULES.name in done.stderr
    complaints = [
        line for line in (done.stderr + done.stdout).splitlines() if line.startswith(f"/run/udev/rules.d/{RULES.name}")
    ]
    assert complaints == []
    return done.stdout


@pytest.mark.parametrize(
    ("vendor", "product", "classes"),
    [
        pytest.param("0529", "0600", [VENDOR], id="eToken of a class of its own"),
        pytest.param("0529", "0620", [SMART_CARD], id="eToken 5110"),
        pytest.param("1050", "0407", [HUMAN_INTERFACE, HUMAN_INTERFACE, SMART_CARD], id="YubiKey 5"),
        pytest.param("20a0", "4230", [SMART_CARD], id="Nitrokey HSM"),
        pytest.param("096e", "0807", [SMART_CARD], id="Feitian ePass2003"),
        pytest.param("08e6", "4433", [SMART_CARD], id="QEMU's"),
        pytest.param("dead", "beef", [SMART_CARD, STORAGE], id="any CCID reader"),
    ],
)
@pytest.mark.parametrize("action", ["add", "change", "bind"])
def test_a_dongle_is_looked_at(tmp_path: Path, vendor: str, product: str, classes: list[int], action: str) -> None:
    lay_out(tmp_path, vendor, product, classes)
    said = judge(tmp_path, action).splitlines()
    found = dict(line.split("=", 1) for line in said if "=" in line)
    assert UNIT in found["SYSTEMD_WANTS"].split()  # systemd's own rules want units for smart cards, too
    assert "systemd" in found["CURRENT_TAGS"].split(":")


@pytest.mark.parametrize(
    ("vendor", "product", "classes", "kind"),
    [
        pytest.param("1050", "0120", [HUMAN_INTERFACE], "usb_device", id="YubiKey without a smart card"),
        pytest.param("0951", "1666", [STORAGE], "usb_device", id="a memory stick"),
        pytest.param("0529", "beef", [VENDOR], "usb_device", id="a vendor's other product"),
        pytest.param("0b0b", "0b0b", [VENDOR], "usb_device", id="0b elsewhere"),
        pytest.param("0529", "0600", [VENDOR], "usb_interface", id="an interface of it"),
    ],
)
def test_others_are_left_alone(tmp_path: Path, vendor: str, product: str, classes: list[int], kind: str) -> None:
    lay_out(tmp_path, vendor, product, classes, kind)
    assert UNIT not in judge(tmp_path)


def test_nothing_is_looked_at_when_it_is_pulled(tmp_path: Path) -> None:
    lay_out(tmp_path, "0529", "0600", [VENDOR])
    assert UNIT not in judge(tmp_path, "remove")


def test_nothing_is_run_or_imported() -> None:
    rules = [line for line in RULES.read_text().splitlines() if line and not line.startswith("#")]
    assert not any(word in line for line in rules for word in ("RUN", "PROGRAM", "IMPORT", "MODE", "OWNER", "GROUP"))

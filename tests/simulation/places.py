"""Where the simulated mover stores: two tapes at two sites and two disks, one of them without checksums or copies."""

from pathlib import Path

from mover.config import Config

LEASE_SECONDS = 3600.0
#: Name, site, kind, whether it takes part in third-party copies, whether it computes checksums.
PLACES = (
    ("tape-a", "site-a", "tape", True, True),
    ("disk-a", "site-a", "disk", True, True),
    ("tape-b", "site-b", "tape", True, True),
    ("disk-b", "site-c", "disk", False, False),
)
#: The endpoints that are wanted before the policy is widened.
FIRST_POLICY = ("tape-a", "disk-a", "tape-b")


def configure(base: Path, runs: Path, endpoints: tuple[str, ...]) -> Config:
    """A configuration with these endpoints, of which the policy wants all."""
    places = [
        {
            "name": name,
            "site": site,
            "kind": kind,
            "url": f"root://{name}.example//store",
            "third_party_copy": copies,
            "streams": 2 if name == "tape-a" else 1,
        }
        for name, site, kind, copies, _ in PLACES
        if name in endpoints
    ]
    return Config.model_validate(
        {
            "experiment": "SIMULATED",
            "catalogue": base / "catalogue.sqlite",
            "runs": {"directory": runs},
            "bundle": {"lfn": "data/{run:05d}.tar"},
            "endpoint": places,
            "policy": {"raw": {"tapes": 2, "tape_sites": 2, "disks": len(endpoints) - 2}},
            "engine": {"lease_seconds": LEASE_SECONDS},
            # How full the real disk is must not matter.
            "release": {"automatic": True, "retention_hours": 12, "hurry_at_percent": 100},
        }
    )

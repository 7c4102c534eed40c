"""What a bundle will hold, fixed when the run is closed: the bundle is a pure function of this plan and the parts.

Members in order: the parts, `manifest.json`, `<bundle>.md5` (if md5 is among the digests). Digests are of fixed width,
so the size of the whole is known before a byte is read.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from mover.bundle import tar
from mover.bundle.scan import ScannedRun
from mover.errors import RunIncompleteError
from mover.model import MemberDigest, Part, check_path

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
HEX_DIGITS = {"sha256": 64, "md5": 32}
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """Everything beside the parts' bytes that determines a bundle's bytes."""

    experiment: str
    run: int
    lfn: str
    parts: tuple[Part, ...]
    digests: tuple[str, ...]
    summary: dict[str, object] | None
    findings: tuple[str, ...]
    format_version: int = FORMAT_VERSION

    @property
    def md5_name(self) -> str:
        """The name of the member that `md5sum -c` reads."""
        return md5_name(self.lfn)

    @property
    def generated_mtime(self) -> int:
        """The mtime of the generated members: the newest part's, in whole seconds since 1970."""
        return max(mtime_seconds(part) for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """The exact size of the bundle."""
        blank = tuple(_blank(part, self.digests) for part in self.parts)
        total = sum(tar.member_bytes(part.name, part.size_bytes, mtime_seconds(part)) for part in self.parts)
        manifest = render_manifest(self, blank)
        total += tar.member_bytes(MANIFEST_NAME, len(manifest), self.generated_mtime)
        if "md5" in self.digests:
            listing = render_md5(blank, "0" * HEX_DIGITS["md5"])
            total += tar.member_bytes(self.md5_name, len(listing), self.generated_mtime)
        return total + len(tar.trailer(total))

    def to_json(self) -> str:
        """For the catalogue."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "BundlePlan":
        """What `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        raw["parts"] = tuple(Part(**part) for part in raw["parts"])
        raw["digests"] = tuple(raw["digests"])
        raw["findings"] = tuple(raw["findings"])
        return cls(**raw)


def md5_name(lfn: str) -> str:
    """The name of the member that lists the md5 digests of the others."""
    return PurePosixPath(lfn).stem + ".md5"


def mtime_seconds(part: Part) -> int:
    """A part's mtime in whole seconds since 1970, rounded down."""
    return part.mtime_ns // _NS


def plan_bundle(scanned: ScannedRun, *, experiment: str, lfn: str, digests: tuple[str, ...], force: bool) -> BundlePlan:
    """Plan the bundle of a scanned run.

    Raises:
        RunIncompleteError: there are findings, and `force` is not given.
    """
    if scanned.findings and not force:
        raise RunIncompleteError(
            f"run {scanned.number} is not complete: " + "; ".join(scanned.findings),
            hint=f"mend it and run `mover run close {scanned.number}`, or take it as it is with --force",
        )
    check_path(lfn)
    summary = scanned.summary.as_json() if scanned.summary else None
    plan = BundlePlan(experiment, scanned.number, lfn, scanned.parts, digests, summary, scanned.findings)
    names = [part.name for part in plan.parts] + [MANIFEST_NAME, plan.md5_name]
    if len(set(names)) != len(names):
        raise RunIncompleteError(
            f"run {plan.run}: a part has the name of a generated member ({MANIFEST_NAME}, {plan.md5_name})",
            hint="choose another `lfn` or `part` template in the configuration",
        )
    return plan


def render_manifest(plan: BundlePlan, members: tuple[MemberDigest, ...]) -> bytes:
    """The manifest: what the run was and what each part's bytes are. Same plan and digests, same bytes."""
    parts = [
        {
            "name": part.name,
            "size_bytes": part.size_bytes,
            "mtime": mtime_seconds(part),
            **dict(member.digests),
        }
        for part, member in zip(plan.parts, members, strict=True)
    ]
    manifest = {
        "bundle_format": plan.format_version,
        "experiment": plan.experiment,
        "run": plan.run,
        "lfn": plan.lfn,
        "digests": plan.digests,
        "complete": not plan.findings,
        "findings": plan.findings,
        "date": plan.summary,
        "parts": parts,
    }
    return json.dumps(manifest, indent=1, ensure_ascii=True).encode("ascii") + b"\n"


def render_md5(members: tuple[MemberDigest, ...], manifest_md5: str) -> bytes:
    """The listing that `md5sum -c` reads: every part, then the manifest."""
    lines = [f"{dict(member.digests)['md5']}  {member.name}\n" for member in members]
    lines.append(f"{manifest_md5}  {MANIFEST_NAME}\n")
    return "".join(lines).encode("ascii")


def _blank(part: Part, digests: tuple[str, ...]) -> MemberDigest:
    return MemberDigest(part.name, part.size_bytes, tuple((name, "0" * HEX_DIGITS[name]) for name in digests))

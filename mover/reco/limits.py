"""How much a job's output may ask of the machine that checks it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one check. What goes beyond them is a finding against the output, not an error of the check."""

    unpacked_bytes: int = 1 << 40
    """Of all members together."""
    ratio: int = 300
    """Of unpacked to packed bytes, once there are 64 MiB of the former."""
    spooled_bytes: int = 64 << 30
    """Of the members that are looked into, together: they are written to the scratch directory."""
    log_line_bytes: int = 16 << 10
    """What a longer line has beyond is not looked at."""
    cpu_seconds: int = 600
    """For each member that is looked into."""
    wall_seconds: float = 3600.0
    """As `cpu_seconds`; beyond it the check is tried again, since a busy machine is not the output's fault."""
    memory_bytes: int = 4 << 30
    """Of the process that looks into a member."""

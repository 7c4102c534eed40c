"""One alarm."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlarmKind(StrEnum):
    """What an alarm is about. There are few, so that they may be a metric's label; docs/monitoring.md explains each."""

    RUN = "run-needs-person"
    REPLICA = "replica-needs-person"
    JOB = "job-needs-person"
    STUCK = "stuck"
    ENDPOINT = "endpoint-silent"
    DISK = "disk-fills-up"
    SERVICE = "service-missing"
    CONFIG = "service-outdated"
    CREDENTIAL = "credential"
    CLAIM = "claim-overlong"


class Severity(StrEnum):
    """How soon somebody must act: in their shift, or now."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is so, since when (None: nobody knows), and what to do; one for each `kind` and `subject` at a time.

    All three may hold foreign text, such as what a storage element answered.
    """

    kind: AlarmKind
    subject: str
    severity: Severity
    says: str
    remedy: str
    since: datetime | None

    @property
    def key(self) -> str:
        """Which alarm it is, as long as it lasts."""
        return f"{self.kind}/{self.subject}"

"""The audit log: what the agent did and for whom, in lines that are chained by their digests."""

from proxyagent.audit.log import AuditLog
from proxyagent.audit.verify import AuditReport, verify_audit

__all__ = ["AuditLog", "AuditReport", "verify_audit"]

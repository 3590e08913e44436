"""Checkpoints that are not what their name says: found by hashes, and by the weights themselves."""

from pythia_fast.auditing.findings import Finding, Severity
from pythia_fast.auditing.report import AuditReport
from pythia_fast.auditing.series import audit, audit_series

__all__ = ["AuditReport", "Finding", "Severity", "audit", "audit_series"]

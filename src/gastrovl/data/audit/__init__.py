"""Images, of a build or of any folders, to an audit: which of them are copies of each other, and which copies leak."""

from gastrovl.data.audit.compare import audit_copies, audit_images
from gastrovl.data.audit.page import write_audit
from gastrovl.data.audit.report import AuditedImage, AuditReport, report_json
from gastrovl.data.audit.run import audit_folders

__all__ = ["AuditReport", "AuditedImage", "audit_copies", "audit_folders", "audit_images", "report_json", "write_audit"]

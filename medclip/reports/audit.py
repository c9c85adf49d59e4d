"""Write the page of an audit: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from pathlib import Path

from medclip.audit.result import AuditResult
from medclip.evaluate.result_files import put
from medclip.reports.audit_card import markdown
from medclip.reports.audit_view import view
from medclip.reports.page import render_page
from medclip.reports.score_report import count

REPORT, CARD = "report.html", "model_card_section.md"
STYLES = ("style.css", "compare.css", "audit.css")


def write_audit_report(result: AuditResult, out: Path) -> Path:
    """Write report.html and model_card_section.md beside the tables.

    Args:
        result: What the audit found; `medclip.audit.result.write_tables` writes its tables.
        out: The folder.

    Returns:
        The path of the page.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where the folder cannot be written.
    """
    put(out / REPORT, render(result).encode(), out)
    put(out / CARD, markdown(result.tidied()).encode(), out)
    return out / REPORT


def render(result: AuditResult) -> str:
    """Render the page. The same results give the same bytes."""
    return render_page("audit.html.j2", STYLES, {"page": view(result.tidied())}, {"count": count})

"""Write the page of an audit: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from pathlib import Path

from medclip.auditing.result import AuditResult
from medclip.files.output import write_file
from medclip.reports.audit.card_section import markdown
from medclip.reports.audit.page import view
from medclip.reports.html_page import render_page
from medclip.wording import count

REPORT, CARD = "report.html", "model_card_section.md"
STYLES = ("style.css", "drawings.css", "few_shot/page.css", "audit/page.css")


def write_audit_report(result: AuditResult, out: Path) -> Path:
    """Write report.html and model_card_section.md beside the tables.

    Args:
        result: What the audit found; `medclip.auditing.result.write_tables` writes its tables.
        out: The folder.

    Returns:
        The path of the page.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where the folder cannot be written.
    """
    write_file(out / REPORT, render(result))
    write_file(out / CARD, markdown(result.tidied()))
    return out / REPORT


def render(result: AuditResult) -> str:
    """Render the page. The same results give the same bytes."""
    return render_page("audit/page.html.j2", STYLES, {"page": view(result.tidied())}, {"count": count})

"""Write the page of an audit: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medclip.auditing.provenance import page_hash
from medclip.auditing.result import AuditResult
from medclip.files.output import write_file
from medclip.reports.audit.annex.provenance import NO_HASH
from medclip.reports.audit.card_section import markdown
from medclip.reports.audit.page import view
from medclip.reports.html_page import render_page
from medclip.wording import count

REPORT, CARD = "report.html", "model_card_section.md"
STYLES = ("style.css", "drawings.css", "few_shot/page.css", "audit/page.css", "audit/stress/stress.css")


def write_audit_report(result: AuditResult, out: Path) -> AuditResult:
    """Write report.html and model_card_section.md beside the tables.

    Args:
        result: Audit; `medclip.auditing.result.write_tables` writes its tables.
        out: The folder.

    Returns:
        The audit with the hash of the page, where the other hashes are known.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where the folder cannot be written.
    """
    page = render(result)
    write_file(out / REPORT, page)
    write_file(out / CARD, markdown(result.tidied()))
    return replace(result, sealed={"page": page_hash(page), **result.sealed}) if result.sealed else result


def render(result: AuditResult) -> str:
    """Render the page. The same results give the same bytes. The hash of its content is put into the line for it."""
    page = render_page("audit/page.html.j2", STYLES, {"page": view(result.tidied())}, {"count": count}) + "\n"
    return page.replace(NO_HASH, page_hash(page)) if result.sealed else page

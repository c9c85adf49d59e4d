"""Write report.html: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.files.output import write_file
from medclip.reports.html_page import render_page
from medclip.reports.model_card import CardView, view_card
from medclip.reports.score.bars import bar, status_bar
from medclip.reports.score.page import MAX_STUDIES, PageData, collect
from medclip.runs.ledger import Ledger
from medclip.wording import count, number, percent

REPORT = "report.html"


def write_score_report(
    ledger: Ledger, card: Any, folder: Path, *, show_paths: bool = False, max_studies: int = MAX_STUDIES
) -> Path:
    """Write the report of a complete run; a report that is there already and asked for alike is left as it is.

    Args:
        ledger: The run's ledger.
        card: The model's card.
        folder: The output folder.
        show_paths: Name files by their relative path; otherwise by row number and format, since paths may carry names.
        max_studies: Studies shown at most.

    Returns:
        The report's path.

    Raises:
        MedclipError: DISK_FULL.
    """
    path, asked = folder / REPORT, {"show_paths": show_paths, "max_studies": max_studies}
    if not (ledger.get("report") == asked and path.exists()):
        view = view_card(card)
        page = collect(ledger, view, show_paths=show_paths, max_studies=max_studies)
        write_file(path, render(page, view))
        ledger.remember({"report": asked})
    return path


def render(page: PageData, card: CardView) -> str:
    """Render the report. All text is escaped by the template engine.

    Returns:
        HTML with its style inline, its images as data, and a policy that lets a browser load nothing else.
    """
    helpers = {"bar": bar, "status_bar": status_bar, "percent": percent, "number": number, "count": count}
    return render_page(
        "score/page.html.j2", ("style.css",), {"page": page, "card": card}, {**helpers, "headline": headline}
    )


def headline(counts: Mapping[str, int]) -> str:
    """Return how the run ended in one line."""
    parts = [
        f"{count(counts['files'], 'file')}: {number(counts['scored'])} scored in {count(counts['studies'], 'study')}"
    ]
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    return ", ".join(parts)

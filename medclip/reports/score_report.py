"""Write report.html: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.reports.card_view import CardView, view_card
from medclip.reports.figures import bar, status_bar
from medclip.reports.page import render_page
from medclip.reports.score_data import MAX_STUDIES, PageData, collect
from medclip.scoring.ledger import Ledger
from medclip.scoring.results import write_bytes

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
        write_bytes(path, render(page, view).encode())
        ledger.put({"report": asked})
    return path


def render(page: PageData, card: CardView) -> str:
    """Render the report. All text is escaped by the template engine.

    Args:
        page: What to show.
        card: The model's card.

    Returns:
        HTML with its style inline, its pictures as data, and a policy that lets a browser load nothing else.
    """
    helpers = {"bar": bar, "status_bar": status_bar, "percent": percent, "number": number, "count": count}
    return render_page("score.html.j2", ("style.css",), {"page": page, "card": card}, {**helpers, "headline": headline})


def percent(probability: float) -> str:
    """Write a probability as whole per cent, without claiming certainty."""
    if probability < 0.005:
        return "< 1 %"
    if probability > 0.995:
        return "> 99 %"
    return f"{100 * probability:.0f} %"


def number(value: int) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def count(value: int, noun: str) -> str:
    """Write a count with its noun: 1 file, 2 files, 3 studies."""
    if value == 1:
        return f"1 {noun}"
    return f"{number(value)} {noun[:-1]}ies" if noun.endswith("y") else f"{number(value)} {noun}s"


def headline(counts: Mapping[str, int]) -> str:
    """Say how the run ended in one line."""
    parts = [
        f"{count(counts['files'], 'file')}: {number(counts['scored'])} scored in {count(counts['studies'], 'study')}"
    ]
    parts += [f"{number(counts[status])} {status}" for status in ("skipped", "failed") if counts[status]]
    return ", ".join(parts)

"""Write report.html: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medclip.files.output import write_file
from medclip.reports.html_page import render_page
from medclip.reports.model_card import CardView, view_card
from medclip.reports.score.page import MAX_STUDIES, PageData, collect
from medclip.runs.ledger import Ledger
from medclip.wording import count, number, percent

REPORT = "report.html"
_WIDTH = 1000
_STATUS_CLASSES = (("scored", "is-good"), ("skipped", "is-wait"), ("failed", "is-bad"))


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


def bar(probability: float) -> Markup:
    """Draw a horizontal bar for a probability. Its number stands beside it as text, so screen readers skip the bar."""
    width = round(_WIDTH * min(1.0, max(0.0, probability)))
    return Markup(  # noqa: S704 - numbers of ours only
        f'<svg class="bar" viewBox="0 0 {_WIDTH} 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="{_WIDTH}" height="8"/><rect class="fill" width="{width}" height="8"/></svg>'
    )


def status_bar(counts: Mapping[str, int]) -> Markup:
    """Draw how the files ended, as shares of one bar; a status that occurs is at least a sliver wide."""
    total = max(1, sum(counts[name] for name, _ in _STATUS_CLASSES))
    label = ", ".join(f"{counts[name]} {name}" for name, _ in _STATUS_CLASSES)
    parts, left = [f'<rect class="track" width="{_WIDTH}" height="10"/>'], 0
    for name, css_class in _STATUS_CLASSES:
        if counts[name]:
            width = max(6, round(_WIDTH * counts[name] / total))
            parts.append(f'<rect class="{css_class}" x="{left}" width="{max(1, width - 2)}" height="10"/>')
            left += width
    return Markup(  # noqa: S704 - numbers and names of ours only
        f'<svg class="status" viewBox="0 0 {max(_WIDTH, left)} 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )

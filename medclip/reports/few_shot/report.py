"""Write the page of a few-shot comparison: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from pathlib import Path

from medclip.adapters.base import source_of
from medclip.errors import MedclipError
from medclip.evaluation.few_shot.compare import Compared
from medclip.files.output import write_file
from medclip.reports.few_shot.page import view
from medclip.reports.few_shot.words import ranked_at, summary
from medclip.reports.html_page import render_page
from medclip.settings import Settings
from medclip.wording import count, number

REPORT = "report.html"


def write_compare_report(compared: Compared, folder: Path, *, show_paths: bool = False) -> Path:
    """Write report.html beside the tables.

    Args:
        compared: Comparison, from `medclip.evaluation.few_shot.compare.compare`.
        folder: Folder of the tables.
        show_paths: Whether images are named by their file; otherwise by their row of the table, since paths may carry
            names.

    Returns:
        Its path.

    Raises:
        MedclipError: DISK_FULL.
    """
    path = folder / REPORT
    write_file(path, render(compared, show_paths=show_paths))
    return path


def render(compared: Compared, *, show_paths: bool = False) -> str:
    """Render the page. The same results give the same bytes."""
    values = {
        "result": compared.result,
        "page": view(compared, show_paths=show_paths, is_burned=lambda row: _burned_in(compared, row)),
        "sentences": tuple(summary(compared.result)),
        "ranked_at": ranked_at(compared.result),
        "show_paths": show_paths,
    }
    styles = ("style.css", "drawings.css", "few_shot/page.css")
    return render_page("few_shot/page.html.j2", styles, values, {"count": count, "thousands": number})


def _burned_in(compared: Compared, row: int) -> bool:
    """Whether the header says that text is burned into the pixels; a file that is gone counts as such."""
    try:
        source = source_of(compared.data.unit(row).path, Settings())
    except MedclipError:
        return True
    return any(facts.header is not None and facts.header.burned_in for facts in source.facts)

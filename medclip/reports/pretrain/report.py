"""Write the page of a training run: one file that loads nothing, runs nothing and names nobody."""

from __future__ import annotations

from pathlib import Path

from medclip.files.output import write_file
from medclip.models.packs.card import Card
from medclip.reports.html_page import render_page
from medclip.reports.pretrain.history import History
from medclip.reports.pretrain.page import view
from medclip.training.recipe.schema import Recipe
from medclip.training.result import FILE_NAME, REPORT, PretrainResult, read_log

_STYLES = ("style.css", "pretrain/page.css")


def write_pretrain_report(recipe: Recipe, result: PretrainResult, card: Card | None) -> Path:
    """Write report.html into the run's folder.

    Args:
        recipe: Recipe of the run.
        result: Result of the run.
        card: Card of the run's pack; None where it was stopped before its end.

    Returns:
        Its path.

    Raises:
        MedclipError: DISK_FULL.
    """
    path = result.out / REPORT
    history = History(read_log(result.out / FILE_NAME))
    page = view(recipe, result, history, card)
    write_file(path, render_page("pretrain/page.html.j2", _STYLES, {"page": page}, {}))
    return path

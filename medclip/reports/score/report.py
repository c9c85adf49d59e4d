"""Write the report of a scoring run: pages that load nothing, run nothing and name nobody.

One page holds 200 studies, and where there are more, pages lead to each other. `report-search.html` lists the studies
of all pages with their images, to be sorted and searched; it is the only file with a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medclip.files.output import disk_errors, write_file
from medclip.reports.html_page import render_page
from medclip.reports.model_card import PrintedCard, view_card
from medclip.reports.score.heat_maps import HeatMaps
from medclip.reports.score.page import (
    LEAST_STUDIES,
    MAX_PAGES,
    STUDIES_A_PAGE,
    ReportData,
    collect,
    histogram,
    studies_of,
)
from medclip.reports.score.study import StudyData, Thumbnail
from medclip.reports.score.worklist import (
    CELL_PX,
    CELLS,
    IMAGES,
    MAX_STUDIES,
    STUDIES_SHOWN,
    Worklist,
    cell_of,
    collect_worklist,
    remove_images,
    write_images,
)
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.results import EXAM_SCORES, FILES, REPORT, SCORES, SEARCH, page_name, report_files
from medclip.runs.rows import Ranking
from medclip.wording import count, number

_STYLES = ("style.css", "drawings.css", "score.css")
_WIDTH = 1000
_STATUS_CLASSES = (("scored", "is-good"), ("skipped", "is-wait"), ("failed", "is-bad"))


def write_score_report(
    ledger: Ledger,
    card: Any,
    folder: Path,
    *,
    show_paths: bool = False,
    sort_by: Ranking | None = None,
    studies_a_page: int = STUDIES_A_PAGE,
    max_pages: int = MAX_PAGES,
    max_listed: int = MAX_STUDIES,
    heat_maps: HeatMaps | None = None,
) -> Path:
    """Write the report of a complete run; a report that is there already and asked for alike is left as it is.

    Each file appears whole, the first page last, and pages of an earlier report that had more of them go.

    Args:
        ledger: The run's ledger.
        card: The model's card.
        folder: The output folder.
        show_paths: Whether files are named by their relative path; otherwise by row number and format, since paths may
            carry names.
        sort_by: Order of the studies, the highest first; None: by their files.
        studies_a_page: Number of studies on one page.
        max_pages: Most pages; further studies are in the list alone.
        max_listed: Most studies in the list that can be sorted and searched; further ones are in the table alone.
        heat_maps: Heat maps, which are drawn beside the images of the first page's studies.

    Returns:
        The path of the first page.

    Raises:
        MedclipError: DISK_FULL.
    """
    path = folder / REPORT
    arguments = {
        "show_paths": show_paths,
        "sort_by": None if sort_by is None else [sort_by.task, *sort_by.classes],
        "pages": [studies_a_page, max_pages, max_listed],
        "heat_maps": None if heat_maps is None else heat_maps.named,
    }
    images_are_gone = ledger.get("report_images") and not (folder / IMAGES).is_dir()
    if ledger.get("report") == arguments and path.exists() and not images_are_gone:
        return path
    ledger.remember({"report": None})
    printed = view_card(card)
    report = collect(
        ledger, printed, show_paths=show_paths, sort_by=sort_by, studies_a_page=studies_a_page, max_pages=max_pages
    )
    drawn = {} if heat_maps is None else heat_maps.draw(ledger, report.keys[:studies_a_page])
    written = {REPORT}
    if report.has_list:
        worklist = collect_worklist(ledger, printed, report, max_studies=max_listed)
        write_images(ledger, worklist, folder)
        write_file(folder / SEARCH, render_search(report, worklist))
        written.add(SEARCH)
    else:
        remove_images(folder)
    for page in range(report.num_pages, 0, -1):
        studies = tuple(_with_map(study, drawn.get(study.key)) for study in studies_of(ledger, printed, report, page))
        write_file(folder / page_name(page), render(report, printed, studies, page))
        written.add(page_name(page))
    if report.counts["studies"] > max_listed:  # nobody will see their images
        ledger.keep_thumbnails(ledger.studies(max_listed, sort_by))
    with disk_errors(folder):
        for name in set(report_files(folder)) - written:
            (folder / name).unlink(missing_ok=True)
    ledger.remember({"report": arguments, "report_images": (folder / IMAGES).is_dir()})
    return path


def _with_map(study: StudyData, heat_map: Thumbnail | None) -> StudyData:
    return study if heat_map is None else replace(study, thumbnails=(*study.thumbnails, heat_map), has_map=True)


def render(report: ReportData, card: PrintedCard, studies: Sequence[StudyData], page: int = 1) -> str:
    """Render one page; the first has what is true of the whole run, too. All text is escaped by the template engine."""
    limited = {task.limited for study in studies for task in study.tasks}
    values = {"report": report, "card": card, "studies": studies, "number_of_page": page, "limited": limited}
    return render_page("score.html.j2", _STYLES, {**_HELPERS, **values})


def render_search(report: ReportData, worklist: Worklist) -> str:
    """Render the page that sorts and searches studies: its first lines, and an index from which a script shows others.

    Images are files beside the page, which a policy can only name by where the page itself lies.
    """
    index = Markup(worklist.index(report))  # noqa: S704 - JSON, its < escaped
    values = {**_HELPERS, "report": report, "worklist": worklist, "index": index}
    return render_page("worklist.html.j2", _STYLES, values, script="worklist.js", images="data: 'self' file:")


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


_HELPERS = {
    "bar": bar,
    "status_bar": status_bar,
    "headline": headline,
    "histogram": histogram,
    "page_name": page_name,
    "EXAM_SCORES": EXAM_SCORES,
    "FILES": FILES,
    "SCORES": SCORES,
    "SEARCH": SEARCH,
    "IMAGES": IMAGES,
    "STUDIES_SHOWN": STUDIES_SHOWN,
    "cell_of": cell_of,
    "CELL_PX": CELL_PX,
    "SHEET_PX": CELLS * CELL_PX,
    "LEAST_STUDIES": LEAST_STUDIES,
}

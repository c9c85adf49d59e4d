"""The page of a dense probe: Dice of each tower by share of labels, what lies between them, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medclip.adaptation.maps.decoders import BATCH, RATE, STEPS
from medclip.evaluation.dense.figures import DenseFigures, share_of
from medclip.evaluation.zero_shot.suite_result import SuiteResult, SuiteStore
from medclip.files.output import write_file
from medclip.reports.html_page import Grid, Td, Tr, image_uri, render_page
from medclip.statistics.estimate import Change, Figure
from medclip.version import __version__
from medclip.wording import figure, interval

REPORT = "report.html"


def write_dense_report(result: SuiteResult, folder: Path) -> Path:
    """Write report.html beside evaluate.json.

    Args:
        result: Result of a suite that has masks.
        folder: Folder of the results, with the examples' drawings.

    Returns:
        Its path.

    Raises:
        MedclipError: DISK_FULL.
    """
    drawn = {
        (one.id, example.what): SuiteStore.example_in(folder, one.id, example.what).read_bytes()
        for one in result.dense
        for example in one.examples
        if example.is_drawn
    }
    path = folder / REPORT
    write_file(path, render_dense(result, drawn))
    return path


def render_dense(result: SuiteResult, drawn: Mapping[tuple[str, str], bytes]) -> str:
    """Render the page. The same results give the same bytes; it names no file and no patient.

    Args:
        result: Result of a suite.
        drawn: PNG of each example, by set and what it is.
    """
    sets = []
    for one in result.dense:
        examples = [
            (e, image_uri(drawn[one.id, e.what], "png") if (one.id, e.what) in drawn else "") for e in one.examples
        ]
        sets.append((one, _dice(one), _apart(one), examples))
    values = {"result": result, "sets": sets, "steps": STEPS, "batch": BATCH, "rate": RATE, "version": __version__}
    return render_page("dense.html.j2", ("style.css", "dense.css"), values)


def _dice(one: DenseFigures) -> Grid:
    """Return Dice and intersection over union of each tower by share of labels."""
    heads = [f"Dice, {share_of(share)}" for share in one.shares]
    rows = []
    for tower, title in one.titles.items():
        cells = [one.cell(tower, share) for share in one.shares]
        rows.append(Tr(title, (*(_cell(c.dice) for c in cells), _cell(cells[-1].iou))))
        if any(c.unseen is not None for c in cells) and tower == next(iter(one.titles)):
            unseen = [Td("–") if c.unseen is None else _cell(c.unseen) for c in cells]
            rows.append(Tr("the same, without images of its training", (*unseen, Td("–"))))
    learned = ", ".join(f"{share_of(s)}: {one.images_learned[f'{s:g}']}" for s in one.shares)
    return Grid(
        f"{one.title}. Images learned from: {learned}",
        ("Tower", *heads, f"IoU, {share_of(one.shares[-1])}"),
        tuple(rows),
    )


def _apart(one: DenseFigures) -> Grid:
    """Return the pack's Dice less that of each other tower."""
    towers = list(one.titles)[1:]
    rows = [Tr(one.titles[t], tuple(_cell(one.apart(t, s), signed=True) for s in one.shares)) for t in towers]
    pack = next(iter(one.titles.values()))
    return Grid(f"Dice of {pack} less that of", ("Tower", *map(share_of, one.shares)), tuple(rows))


def _cell(value: Figure | Change, *, signed: bool = False) -> Td:
    text = figure(value.value, signed=signed)
    return Td(text, (interval(value.low, value.high),) if value.low is not None else ())

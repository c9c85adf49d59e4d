"""The page of a few-shot comparison: what was found in plain sentences made of its numbers, tables and drawings.

Nothing is promised, and doubt is said. The page loads nothing, runs nothing and names nobody.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from medclip.adapters.base import source_of
from medclip.errors import MedclipError, printable
from medclip.evaluation.few_shot.compare import Compared
from medclip.evaluation.few_shot.comparison import AUROC, METRIC_TITLES, Cell, Comparison, Confusion, Mistake, Paired
from medclip.files.output import write_file
from medclip.imaging.ecg.sheet.draw_sheet import png_of
from medclip.models.packs.card_sources import ALL
from medclip.reports.drawings import STYLES, curves
from medclip.reports.forest_plot import Line, Mark, forest
from medclip.reports.html_page import image_uri, render_page, svg_uri
from medclip.settings import Settings
from medclip.wording import capital, figure, interval, list_of, number, p_value

REPORT = "report.html"
ALPHA = 0.05
_STYLES = ("style.css", "drawings.css", "few_shot.css")
Measured = tuple[str, list[tuple[str, str, bool]], bool]
"""A method: its title, its figures with their intervals and whether they are the best, and whether it stands out."""
_MOST = 4
"""Methods that stand out."""
_SIDE = 144
"""Longest side of a thumbnail, px."""
_GALLERIES = 2
_SHADES = 8
_CHOSEN_ON = {
    "val": "validation patients",
    "folds": "folds of the shots",
    "default": "nothing: defaults",
    "given": "nothing: given",
}


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
    result = compared.result
    chosen = highlighted(result)
    other_metrics = [m for m in METRIC_TITLES if m not in result.shown and any(c.metric == m for c in result.cells)]
    several = len(result.shots) > 1
    values = {
        "result": result,
        "sentences": tuple(summary(result)),
        "ranked_at": ranked_at(result),
        "show_paths": show_paths,
        "metric": METRIC_TITLES[result.primary],
        "curves": svg_uri(curves(result, chosen)) if several else "",
        "curves_text": _curves_text(result, chosen) if several else "",
        "forest": Markup() if several else _forest(result),
        "heads": [f"Mean, K ≥ {result.averaged[0]}" if k is None else f"K = {k}" for k in result.columns],
        "shots": lambda head: [head.format(k) for k in result.shots],
        "tables": [(result.title_of(m), tuple(_rows(result, m, chosen))) for m in result.shown],
        "others": [(METRIC_TITLES[m], tuple(_rows(result, m, chosen))) for m in other_metrics],
        "paired": [one for reference in result.references if (one := _paired(result, reference, chosen)) is not None],
        "matrices": [_matrix(result, c) for m in chosen if (c := _confusion(result, m)) is not None],
        "galleries": tuple(_galleries(compared, chosen, show_paths)),
        "has_sheets": compared.data.sampling_hz is not None,  # of ECGs, which have to be wide
        "spreads": tuple(_spreads(result, chosen)),
        "costs": tuple(_costs(result)),
        "budgets": tuple(_budgets(result)),
        "deviations": [(result.titles[m], result.deviations[m]) for m in result.ranked if m in result.deviations],
        "novel": tuple(_novel(result)),
        "failures": tuple(_failures(result)),
        "counts": _counts(result),
    }
    return render_page("few_shot.html.j2", _STYLES, values)


def _burned_in(compared: Compared, row: int) -> bool:
    """Whether the header says that text is burned into the pixels; a file that is gone counts as such."""
    try:
        source = source_of(compared.data.unit(row).path, Settings())
    except MedclipError:
        return True
    return any(facts.header is not None and facts.header.burned_in for facts in source.facts)


def highlighted(result: Comparison) -> tuple[str, ...]:
    """Choose the methods that stand out: the best, CLIP-SVD, the references, then the next best."""
    have = [m for m in result.ranked if any(c.method == m for c in result.cells)]
    wanted = [*have[:1], "svd", *result.references, *have[1:]]
    return tuple(dict.fromkeys(m for m in wanted if m in have))[: min(_MOST, len(STYLES))]


def sheet(image_HWC: NDArray[np.uint8]) -> str:
    """Return the small sheet of an ECG as a data URI, at its size: smaller, no lead is legible."""
    return image_uri(png_of(image_HWC), "png")


def thumbnail(image_HWC: NDArray[np.uint8]) -> str:
    """Make a small JPEG as a data URI."""
    from PIL import Image

    image = Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return image_uri(buffer.getvalue(), "jpeg")


def _forest(result: Comparison) -> Markup:
    """Draw one row a method, best first; methods that failed stand last, without a mark."""
    (shots,) = result.shots
    rows = []
    for method in result.ranked:
        c = result.cell(method, shots)
        mark = () if c is None else (Mark(c.value, c.low, c.high, f"{value_of(c.value)} ({interval_of(c)})"),)
        rows.append(Line(result.titles[method], mark, note="" if mark else "failed"))
    zero_shot = result.cell("zero-shot", shots)
    metric = METRIC_TITLES[result.primary]
    return forest(
        rows,
        identity="forest",
        title=f"{metric} at K = {shots}",
        axis=f"{metric} with 95 % interval" + ("; dashed: zero-shot" if zero_shot is not None else ""),
        reference=None if zero_shot is None else zero_shot.value,
    )


def _curves_text(result: Comparison, chosen: Sequence[str]) -> str:
    parts = []
    for method in chosen:
        cells = [c for k in result.shots if (c := result.cell(method, k)) is not None]
        values = ", ".join(f"{value_of(c.value)} at K = {c.shots}" for c in cells)
        parts.append(f"{result.titles[method]}: {values}")
    return (
        f"{METRIC_TITLES[result.primary]} over shots a class. " + "; ".join(parts) + ". All figures are in the table."
    )


def _rows(result: Comparison, metric: str, chosen: Sequence[str]) -> Iterator[Measured]:
    best = {
        k: max((c.value for m in result.titles if (c := result.cell(m, k, metric)) is not None), default=None)
        for k in result.columns
    }
    for method in result.ranked:
        cells = []
        for k in result.columns:
            c = result.cell(method, k, metric)
            cells.append(
                ("failed", "", False) if c is None else (value_of(c.value), interval_of(c), c.value == best[k])
            )
        yield result.titles[method], cells, method in chosen


def _paired(result: Comparison, reference: str, chosen: Sequence[str]) -> tuple[str, list[Any], int] | None:
    """Return the title of a reference, every method minus it with p and adjusted p, and how many were adjusted for."""
    rows, family = [], 0
    for method in result.ranked:
        differences = [_find(result, reference, method, k) for k in result.columns]
        if method == reference or not any(differences):
            continue
        cells = [
            ("failed", "", False) if d is None else (value_of(d.value, signed=True), interval_of(d), False)
            for d in differences
        ]
        mean = _find(result, reference, method, None)
        p_values = (p_value(mean.p), p_value(mean.p_holm)) if mean is not None else ("–", "–")
        rows.append((result.titles[method], cells, method in chosen, p_values))
        family = max(family, max(d.family for d in differences if d is not None))
    return (result.titles[reference], rows, family) if rows else None


def _find(result: Comparison, reference: str, method: str, shots: int | None) -> Paired | None:
    return next((d for d in result.differences_of(reference, shots) if d.method == method), None)


def _confusion(result: Comparison, method: str) -> Confusion | None:
    return next((c for c in result.confusions if c.method == method), None)


def _matrix(result: Comparison, confusion: Confusion) -> tuple[str, tuple[str, ...], list[Any]]:
    """Return title and heads of a confusion matrix, and of each class its counts with their shades, 0 to 7."""
    if result.rules.independent:
        head = ("found", "missed", "false alarms", "rightly not said")
    else:
        head = tuple(_words(c) for c in result.classes)
    rows = []
    for name, counts in zip(result.classes, confusion.counts, strict=True):
        total = sum(counts) or 1.0
        shaded = [(f"{c:g}", min(_SHADES - 1, int(_SHADES * c / total))) for c in counts]
        rows.append((_words(name), shaded))
    return result.titles[confusion.method], head, rows


def _galleries(
    compared: Compared, chosen: Sequence[str], show_paths: bool
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield methods with the images that they get wrong."""
    learned = [m for m in chosen if m != "zero-shot"] or list(chosen)
    for method in learned[:_GALLERIES]:
        confusion = _confusion(compared.result, method)
        if confusion is not None:
            yield compared.result.titles[method], [_wrong(compared, m, show_paths) for m in confusion.mistakes]


def _wrong(compared: Compared, m: Mistake, show_paths: bool) -> dict[str, str]:
    """Return what the page shows of an image that is often wrong; its `data` is blank where it is withheld."""
    path, image = printable(compared.data.unit(m.example).file), compared.data.image(m.example)
    draw = thumbnail if compared.data.sampling_hz is None else sheet
    return {
        "data": "" if image is None or _burned_in(compared, m.example) else draw(image),
        "label": path if show_paths else f"row {m.row}",
        "true": _words(m.true),
        "predicted": _words(m.predicted),
        "often": f"{m.num_wrong} of {m.num_runs} runs" if m.num_runs > 1 else "",
    }


def _spreads(result: Comparison, chosen: Sequence[str]) -> Iterator[Measured]:
    for method in result.ranked:
        cells = [result.cell(method, k) for k in result.shots]
        if any(c is not None and (c.sd_shots is not None or c.sd_inits is not None) for c in cells):
            spreads = [
                ("failed", "", False)
                if c is None
                else (
                    value_of(c.sd_shots),
                    f"initialisations {value_of(c.sd_inits)}" if len(result.inits) > 1 else "",
                    False,
                )
                for c in cells
            ]
            yield result.titles[method], spreads, method in chosen


def _costs(result: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield methods with: whether towers are trained, seconds of learning by K, of scoring, and numbers learned."""
    for method in result.ranked:
        cost_of = {c.shots: c for c in result.costs if c.method == method}
        if not cost_of:
            continue
        seconds = tuple(_seconds(cost_of[k].fit_seconds) if k in cost_of else "–" for k in result.shots)
        if 0 in cost_of:
            seconds = tuple("0" for _ in result.shots)
        last = cost_of[max(cost_of)]
        trained = {c.num_trainable for c in cost_of.values()}
        span = number(min(trained)) if len(trained) == 1 else f"{number(min(trained))} to {number(max(trained))}"
        towers = "yes" if last.needs_towers else "no"
        yield result.titles[method], [towers, *seconds, _seconds(last.predict_seconds), span]


def _budgets(result: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Yield methods with: images that training sees at each rate by K, rates tried, and what settings are chosen on."""
    for method in result.ranked:
        cost_of = {c.shots: c for c in result.costs if c.method == method and c.chosen_on}
        if cost_of:
            at = [cost_of.get(k) for k in result.shots]
            images = tuple("–" if c is None or c.images is None else number(c.images) for c in at)
            rates = {c.rates for c in cost_of.values() if c.rates is not None}
            ways = dict.fromkeys(way for c in cost_of.values() for way in c.chosen_on.split(" or "))
            chosen_on = [_CHOSEN_ON.get(way, way) for way in ways]
            spans = " to ".join(str(r) for r in sorted({min(rates), max(rates)})) if rates else "–"
            yield result.titles[method], [*images, spans, " or ".join(chosen_on)]


def _seconds(value: float) -> str:
    return "< 0.1" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _novel(result: Comparison) -> Iterator[Measured]:
    for n in result.novel:
        if n.metric == result.primary:
            parts = (n.base, n.novel, n.hm_of_means, n.mean_of_hms)
            cells = [(value_of(p["value"] or 0.0), interval(p["low"], p["high"], decimals=3), False) for p in parts]
            yield result.titles[n.method], cells, False


def _failures(result: Comparison) -> Iterator[tuple[str, tuple[str, str]]]:
    seen: dict[tuple[str, str, str], list[str]] = {}
    for f in result.failures:
        where = f"K = {f.shots}, draw {f.seed}, initialisation {f.init}" if f.shots else "all"
        place = f"{where}, base to novel" if f.part == "novel" else where
        seen.setdefault((f.method, f.reason, f.message), []).append(place)
    for (method, _, message), runs in seen.items():
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        yield result.titles[method], ("; ".join(runs[:3]) + more, message)


def _counts(result: Comparison) -> tuple[tuple[str, tuple[str, ...]], ...]:
    rows = [("Images", "images"), ("Patients", "patients"), *((_words(c), f"class:{c}") for c in result.classes)]
    return tuple((title, tuple(str(result.counts[s][key]) for s in ("train", "val", "test"))) for title, key in rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def value_of(value: float | None, *, signed: bool = False) -> str:
    """Write a figure with three decimals, as all of a comparison are."""
    return figure(value, signed=signed, decimals=3)


def interval_of(cell: Cell | Paired) -> str:
    """Write the interval of a figure: 0.750 to 0.860."""
    return interval(cell.low, cell.high, decimals=3)


def excludes_zero(d: Paired) -> bool:
    """Whether the interval lies on one side of zero."""
    return d.low is not None and d.high is not None and (d.low > 0 or d.high < 0)


def ranked_at(result: Comparison) -> str:
    """Name the shots that methods are ranked by: "in the mean over K = 4 and 8", or "at K = 4" where it is one."""
    shots = f"K = {list_of([str(k) for k in result.averaged])}"
    return f"in the mean over {shots}" if len(result.averaged) > 1 else f"at {shots}"


def summary(result: Comparison) -> Iterator[str]:
    """Yield who was best and how sure that is."""
    metric = METRIC_TITLES[result.primary]
    metric = metric if metric.isupper() else metric.lower()
    test = result.counts["test"]
    best = next((m for m in result.ranked if result.cell(m, None) is not None), None)
    if best is None:
        yield f"No method gave predictions {ranked_at(result)}. The list of failures says why."
        return
    cell = result.cell(best, None)
    assert cell is not None
    figures = sum(result.cell(m, None) is not None for m in result.titles)
    beside = None if result.primary == AUROC else result.cell(best, None, AUROC)
    area = "" if beside is None else f"; AUROC {value_of(beside.value)}, {interval_of(beside)}"
    yield (
        f"{capital(ranked_at(result))}, {result.titles[best]} had the highest {metric} of {figures} methods: "
        f"{value_of(cell.value)} (95 % interval {interval_of(cell)}{area}) on {test['images']} test images of "
        f"{test['patients']} patients."
    )
    for reference in result.references:
        yield from _against(result, reference, best)
    for name, control in result.word_control.items():
        of = "" if name == ALL else f" for {name}"
        yield f"Would other words do as well{of} in zero-shot? {control.in_words}"
    if "svd" in result.titles and best != "svd":
        for reference in result.references:
            d = next((d for d in result.differences_of(reference, None) if d.method == "svd"), None)
            if d is not None:
                yield f"CLIP-SVD minus {result.titles[reference]}: {_difference(d)}."
    if figures > 2:
        yield (
            "The best of several is chosen with hindsight, so its figure flatters it; measure it again on patients "
            "that took no part here."
        )
    if len(result.seeds) == 1:
        yield "There was one draw of shots: intervals are over test patients only; other shots may give other figures."
    if result.num_in_training:
        yield (
            f"The base was trained on {result.num_in_training} of the {test['images']} test images, so figures are "
            "likely too high."
        )


def _against(result: Comparison, reference: str, best: str) -> Iterator[str]:
    differences = result.differences_of(reference, None)
    if not differences:
        return
    title = result.titles[reference]
    d = next((d for d in differences if d.method == best), None)
    if d is not None:
        yield f"{result.titles[best]} minus {title}: {_difference(d)}."
    above = sum(d.value > 0 and _sure(d) for d in differences)
    below = sum(d.value < 0 and _sure(d) for d in differences)
    if len(differences) > 1 and not above + below:
        yield f"After adjusting for their number, none of {len(differences)} methods surely differs from {title}."
    elif len(differences) > 1:
        rest = len(differences) - above - below
        others = f"; for the other {rest} this comparison cannot say which is better" if rest else ""
        sides = f"{above} of {len(differences)} methods are above {title} and {below} below"
        yield f"After adjusting for their number, {sides}{others}."


def _difference(d: Paired) -> str:
    text = f"{value_of(d.value, signed=True)} ({interval_of(d)}; adjusted p {p_value(d.p_holm)})"
    if d.low is None:
        why = ", of too few test patients for" if d.p is None else " in every resample, so without"
        return f"{value_of(d.value, signed=True)}{why} an interval"
    if not excludes_zero(d):
        return f"{text}; the interval includes zero, so this comparison cannot say which is better"
    if not _sure(d):
        return f"{text}; the interval leaves zero out, but not after adjusting for the number of methods"
    return text


def _sure(d: Paired) -> bool:
    return excludes_zero(d) and d.p_holm is not None and d.p_holm <= ALPHA

"""What the page of a few-shot comparison shows, as plain data: picked from the results, nothing computed anew."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from medclip.errors import printable
from medclip.evaluation.few_shot.compare import Compared
from medclip.evaluation.few_shot.comparison import METRIC_TITLES, Comparison, Confusion, Mistake, Paired
from medclip.imaging.ecg.sheet.draw_sheet import png_of
from medclip.reports.few_shot.curves import STYLES, curves
from medclip.reports.few_shot.words import interval_of, value_of
from medclip.reports.forest_plot import Line, Mark, forest
from medclip.reports.html_page import svg_uri
from medclip.wording import interval, number, p_value

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


@dataclass(frozen=True)
class FigureCell:
    """A figure and its interval, as text."""

    value: str
    interval: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One method in a table of figures."""

    title: str
    cells: tuple[FigureCell, ...]
    highlighted: bool


@dataclass(frozen=True)
class PairedTable:
    """Every method minus one reference."""

    reference: str
    rows: tuple[Row, ...]
    p_values: tuple[tuple[str, str], ...]
    """Of the mean: p, and p adjusted."""
    family: int


@dataclass(frozen=True)
class Shaded:
    """A count of a confusion matrix and how dark it is, 0 to 7."""

    count: str
    shade: int


@dataclass(frozen=True)
class Matrix:
    """One method's confusion matrix, or counts by class for multi-label tasks."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shaded, ...]], ...]


@dataclass(frozen=True)
class ThumbnailView:
    """A test image that is often wrong."""

    data: str
    """data URI of a JPEG; empty where it is withheld."""
    label: str
    true: str
    predicted: str
    often: str


@dataclass(frozen=True)
class Gallery:
    """Images that one method gets wrong."""

    title: str
    thumbnails: tuple[ThumbnailView, ...]
    has_sheets: bool
    """They are sheets of ECGs, which have to be wide."""


@dataclass(frozen=True)
class PageView:
    """The whole page."""

    curves: str
    """data URI of an SVG; empty where there is one K, which has no curve."""
    curves_text: str
    forest: Markup
    """The same of one K: a method a row."""
    heads: tuple[str, ...]
    """Of `Comparison.columns`."""
    metric: str
    rows: tuple[Row, ...]
    others: tuple[tuple[str, tuple[Row, ...]], ...]
    """The same by the other metrics."""
    paired: tuple[PairedTable, ...]
    matrices: tuple[Matrix, ...]
    galleries: tuple[Gallery, ...]
    spreads: tuple[Row, ...]
    costs: tuple[tuple[str, str, tuple[str, ...], str, str], ...]
    """Title, towers, fit seconds by K, prediction seconds, numbers trained."""
    budgets: tuple[tuple[str, tuple[str, ...], str, str], ...]
    """Title, images that training sees at each rate by K, rates tried, what was chosen on."""
    deviations: tuple[tuple[str, tuple[str, ...]], ...]
    """Title, where it differs from its published code."""
    novel: tuple[Row, ...]
    failures: tuple[tuple[str, str, str], ...]
    """Title, runs, reason."""
    counts: tuple[tuple[str, tuple[str, ...]], ...]


def view(compared: Compared, *, show_paths: bool, is_burned: Callable[[int], bool]) -> PageView:
    """Pick what the page shows.

    Args:
        compared: The comparison and its data.
        show_paths: Whether images are named by their file; otherwise by their row of the table, since names may
            identify patients.
        is_burned: Whether the header of an example's file says that text is burned into its pixels: it is withheld.
    """
    result = compared.result
    chosen = highlighted(result)
    heads = tuple(f"Mean, K ≥ {result.averaged[0]}" if k is None else f"K = {k}" for k in result.columns)
    others = [m for m in METRIC_TITLES if m != result.primary and any(c.metric == m for c in result.cells)]
    several = len(result.shots) > 1
    return PageView(
        curves=svg_uri(curves(result, chosen)) if several else "",
        curves_text=_curves_text(result, chosen) if several else "",
        forest=Markup() if several else _forest(result),
        heads=heads,
        metric=METRIC_TITLES[result.primary],
        rows=tuple(_rows(result, result.primary, chosen)),
        others=tuple((METRIC_TITLES[m], tuple(_rows(result, m, chosen))) for m in others),
        paired=tuple(t for r in result.references if (t := _paired(result, r, chosen)) is not None),
        matrices=tuple(_matrix(result, c) for m in chosen if (c := _confusion(result, m)) is not None),
        galleries=tuple(_galleries(compared, chosen, show_paths, is_burned)),
        spreads=tuple(_spreads(result, chosen)),
        costs=tuple(_costs(result)),
        budgets=tuple(_budgets(result)),
        deviations=tuple((result.titles[m], result.deviations[m]) for m in result.ranked if m in result.deviations),
        novel=tuple(_novel(result)),
        failures=tuple(_failures(result)),
        counts=_counts(result),
    )


def highlighted(result: Comparison) -> tuple[str, ...]:
    """Choose the methods that stand out: the best, CLIP-SVD, the references, then the next best."""
    have = [m for m in result.ranked if any(c.method == m for c in result.cells)]
    wanted = [*have[:1], "svd", *result.references, *have[1:]]
    return tuple(dict.fromkeys(m for m in wanted if m in have))[: min(_MOST, len(STYLES))]


def sheet(image_HWC: NDArray[np.uint8]) -> str:
    """Return the small sheet of an ECG as a data URI, at its size: smaller, no lead is legible."""
    return "data:image/png;base64," + base64.b64encode(png_of(image_HWC)).decode()


def thumbnail(image_HWC: NDArray[np.uint8]) -> str:
    """Make a small JPEG as a data URI."""
    from PIL import Image

    image = Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


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


def _rows(result: Comparison, metric: str, chosen: Sequence[str]) -> Iterator[Row]:
    best = {
        k: max((c.value for m in result.titles if (c := result.cell(m, k, metric)) is not None), default=None)
        for k in result.columns
    }
    for method in result.ranked:
        cells = []
        for k in result.columns:
            c = result.cell(method, k, metric)
            cells.append(
                FigureCell("failed", "")
                if c is None
                else FigureCell(value_of(c.value), interval_of(c), c.value == best[k])
            )
        yield Row(result.titles[method], tuple(cells), method in chosen)


def _paired(result: Comparison, reference: str, chosen: Sequence[str]) -> PairedTable | None:
    rows, p_values, family = [], [], 0
    for method in result.ranked:
        differences = [_find(result, reference, method, k) for k in result.columns]
        if method == reference or not any(differences):
            continue
        cells = [
            FigureCell("failed", "") if d is None else FigureCell(value_of(d.value, signed=True), interval_of(d))
            for d in differences
        ]
        rows.append(Row(result.titles[method], tuple(cells), method in chosen))
        mean = _find(result, reference, method, None)
        p_values.append((p_value(mean.p), p_value(mean.p_holm)) if mean is not None else ("–", "–"))
        family = max(family, max(d.family for d in differences if d is not None))
    return PairedTable(result.titles[reference], tuple(rows), tuple(p_values), family) if rows else None


def _find(result: Comparison, reference: str, method: str, shots: int | None) -> Paired | None:
    return next((d for d in result.differences_of(reference, shots) if d.method == method), None)


def _confusion(result: Comparison, method: str) -> Confusion | None:
    return next((c for c in result.confusions if c.method == method), None)


def _matrix(result: Comparison, confusion: Confusion) -> Matrix:
    if result.rules.independent:
        head = ("found", "missed", "false alarms", "rightly not said")
    else:
        head = tuple(_words(c) for c in result.classes)
    rows = []
    for name, counts in zip(result.classes, confusion.counts, strict=True):
        total = sum(counts) or 1.0
        shaded = tuple(Shaded(f"{c:g}", min(_SHADES - 1, int(_SHADES * c / total))) for c in counts)
        rows.append((_words(name), shaded))
    return Matrix(result.titles[confusion.method], head, tuple(rows))


def _galleries(
    compared: Compared, chosen: Sequence[str], show_paths: bool, is_burned: Callable[[int], bool]
) -> Iterator[Gallery]:
    result = compared.result
    learned = [m for m in chosen if m != "zero-shot"] or list(chosen)
    for method in learned[:_GALLERIES]:
        confusion = _confusion(result, method)
        if confusion is not None:
            thumbnails = [_thumbnail_view(compared, m, show_paths, is_burned) for m in confusion.mistakes]
            yield Gallery(result.titles[method], tuple(thumbnails), compared.data.sampling_hz is not None)


def _thumbnail_view(
    compared: Compared, m: Mistake, show_paths: bool, is_burned: Callable[[int], bool]
) -> ThumbnailView:
    path, image = printable(compared.data.unit(m.example).file), compared.data.image(m.example)
    draw = thumbnail if compared.data.sampling_hz is None else sheet
    return ThumbnailView(
        data="" if image is None or is_burned(m.example) else draw(image),
        label=path if show_paths else f"row {m.row}",
        true=_words(m.true),
        predicted=_words(m.predicted),
        often=f"{m.num_wrong} of {m.num_runs} runs" if m.num_runs > 1 else "",
    )


def _spreads(result: Comparison, chosen: Sequence[str]) -> Iterator[Row]:
    for method in result.ranked:
        cells = [result.cell(method, k) for k in result.shots]
        if any(c is not None and (c.sd_shots is not None or c.sd_inits is not None) for c in cells):
            sentences = [
                FigureCell("failed", "")
                if c is None
                else FigureCell(
                    value_of(c.sd_shots), f"initialisations {value_of(c.sd_inits)}" if len(result.inits) > 1 else ""
                )
                for c in cells
            ]
            yield Row(result.titles[method], tuple(sentences), method in chosen)


def _costs(result: Comparison) -> Iterator[tuple[str, str, tuple[str, ...], str, str]]:
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
        yield result.titles[method], towers, seconds, _seconds(last.predict_seconds), span


def _budgets(result: Comparison) -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    for method in result.ranked:
        cost_of = {c.shots: c for c in result.costs if c.method == method and c.chosen_on}
        if cost_of:
            at = [cost_of.get(k) for k in result.shots]
            images = tuple("–" if c is None or c.images is None else number(c.images) for c in at)
            rates = {c.rates for c in cost_of.values() if c.rates is not None}
            ways = dict.fromkeys(way for c in cost_of.values() for way in c.chosen_on.split(" or "))
            chosen_on = [_CHOSEN_ON.get(way, way) for way in ways]
            spans = " to ".join(str(r) for r in sorted({min(rates), max(rates)})) if rates else "–"
            yield result.titles[method], images, spans, " or ".join(chosen_on)


def _seconds(value: float) -> str:
    return "< 0.1" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _novel(result: Comparison) -> Iterator[Row]:
    for n in result.novel:
        if n.metric == result.primary:
            parts = (n.base, n.novel, n.hm_of_means, n.mean_of_hms)
            cells = [FigureCell(value_of(p["value"] or 0.0), interval(p["low"], p["high"], decimals=3)) for p in parts]
            yield Row(result.titles[n.method], tuple(cells), False)


def _failures(result: Comparison) -> Iterator[tuple[str, str, str]]:
    seen: dict[tuple[str, str, str], list[str]] = {}
    for f in result.failures:
        where = f"K = {f.shots}, draw {f.seed}, initialisation {f.init}" if f.shots else "all"
        place = f"{where}, base to novel" if f.part == "novel" else where
        seen.setdefault((f.method, f.reason, f.message), []).append(place)
    for (method, _, message), runs in seen.items():
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        yield result.titles[method], "; ".join(runs[:3]) + more, message


def _counts(result: Comparison) -> tuple[tuple[str, tuple[str, ...]], ...]:
    rows = [("Images", "images"), ("Patients", "patients"), *((_words(c), f"class:{c}") for c in result.classes)]
    return tuple((title, tuple(str(result.counts[s][key]) for s in ("train", "val", "test"))) for title, key in rows)


def _words(name: str) -> str:
    return name.replace("_", " ")

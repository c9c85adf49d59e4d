"""The part of the page that is about one label: a drawing of its measures by group, and tables that stay folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import (
    EVERYBODY,
    by_cell,
    gap_head,
    group_name,
    is_all,
    metric_head,
    parts,
    plain,
    survives,
    with_interval,
)
from medclip.reports.audit.summary.words import MAIN_GAPS, tested
from medclip.reports.audit.table import Grid, Td, Tr, said
from medclip.reports.forest_panels import Panel, panels
from medclip.reports.forest_plot import NUM_SERIES, Line, Mark
from medclip.statistics.metrics.catalogue import METRICS, names_of
from medclip.wording import NONE, capital, figure, number, p_value, real

_SHADES = (0.03, 0.06, 0.1, 0.2)
"""Where a gap becomes one shade darker."""


@dataclass(frozen=True)
class LabelView:
    """One label."""

    title: str
    worst: str
    """The gap that stands in the folded line."""
    drawing: Markup | None
    """Its main measures by group."""
    tables: tuple[Grid, ...]
    """Tables that stay folded, and are not printed."""


def drawn_measures() -> tuple[str, ...]:
    """Name the measures that are drawn and come first in tables.

    Under- and overdiagnosis are these by other names; a page of their own has them (`matrices`).
    """
    return names_of(lambda m: m.main)


def calibration_measures() -> tuple[str, ...]:
    """Name the measures of calibration, which have tables of their own."""
    return tuple(name for name, metric in METRICS.items() if metric.what == "calibration")


def label_view(result: AuditResult, label: str, number: int) -> LabelView:
    """Pick what is shown of a label.

    Args:
        result: The audit.
        label: Name of the label.
        number: Number of the label on the page.
    """
    rows = [row for row in result.metrics if row.get("label") == label]
    gaps = [row for row in result.gaps if row.get("label") == label and not row.get("same_as")]
    differences = [row for row in result.differences if row.get("label") == label]
    present = list(dict.fromkeys(str(row.get("metric")) for row in rows))
    main = [m for m in drawn_measures() if m in present]
    elsewhere = (*main, *calibration_measures(), *names_of(lambda m: m.repeats))
    rest = [m for m in present if m not in elsewhere]
    tables = []
    for model in result.model_names:
        of = f" · {plain(model)}" if len(result.model_names) > 1 else ""
        own = [row for row in rows if row.get("model") == model]
        title = plain(label)
        tables.append(groups_grid(own, main, f"{title}: measures by group{of}"))
        tables.append(_gap_grid(result, _of(gaps, model), f"{title}: gaps{of}"))
        tables.append(_difference_grid(_of(differences, model), f"{title}: each group against the others{of}"))
        tables.append(groups_grid(own, rest, f"{title}: further measures by group{of}", counts=False))
    return LabelView(
        title=plain(label),
        worst=_worst(result, gaps),
        drawing=by_group_panels(result, rows, main, f"label-{number}", f"{plain(label)} by group"),
        tables=tuple(table for table in tables if table),
    )


def overview(result: AuditResult) -> tuple[Grid, ...]:
    """Make the tables of labels × attributes, one for each main gap, coloured by size."""
    present = list(dict.fromkeys(str(row.get("gap")) for row in result.gaps))
    names = [name for name in MAIN_GAPS if name in present] or present[:3]
    return tuple(grid for name in names if (grid := _heat(result, name)))


def groups_grid(rows: Sequence[Row], metrics: Sequence[str], caption: str, *, counts: bool = True) -> Grid:
    """Make a table of groups (rows) × measures (columns), a heading for each attribute."""
    names = [m for m in metrics if any(row.get("metric") == m for row in rows)]
    heads = (
        "Group",
        *(("Rows", "Positives", "Patients") if counts else ()),
        *(capital(metric_head(name)) for name in names),
    )
    lines: list[Tr] = []
    for attribute, cells in by_cell(rows) if names else ():
        if attribute != EVERYBODY:
            lines.append(Tr(capital(attribute)))
        lines += [_group_row(name, own, names, counts) for name, own in cells]
    return Grid(caption, heads, tuple(lines), dense=len(heads) > 8)


def _of(rows: Sequence[Row], model: str) -> list[Row]:
    return [row for row in rows if row.get("model") == model]


def _group_row(name: str, rows: Sequence[Row], metrics: Sequence[str], counts: bool) -> Tr:
    hidden = next((row for row in rows if row.get("flag") == "suppressed"), None)
    by_metric = {row.get("metric"): row for row in rows}
    few = any(row.get("flag") == "underpowered" for row in rows)
    cells = [Td(number(rows[0].get(k))) for k in ("n", "n_pos", "n_patients")] if counts else []
    for metric in metrics:
        row = by_metric.get(metric)
        if hidden is not None or row is None or real(row.get("value")) is None:
            cells.append(Td("not shown" if hidden is not None else NONE, css="quiet"))
        else:
            value, around = parts(row)
            cells.append(Td(value, (around,)))
    return Tr(f"{name} †" if few else name, tuple(cells))


def by_group_panels(
    result: AuditResult, rows: Sequence[Row], metrics: Sequence[str], identity: str, title: str, *, paired: bool = False
) -> Markup | None:
    """Draw measures by group beside each other; None where there is nothing to draw.

    Args:
        result: The audit.
        rows: Rows of the tables `metrics` or `models`.
        metrics: Names of the metrics, one panel each.
        identity: Identity of the drawing, unique on the page.
        title: Title of the drawing.
        paired: Whether the rows are differences of two models: the dashed line is 0.
    """
    named = [m for m in metrics if any(r.get("metric") == m and real(r.get("value")) is not None for r in rows)]
    models = [""] if paired else list(result.model_names)[:NUM_SERIES]
    cells = [(attribute, [name for name, _ in groups]) for attribute, groups in by_cell(rows)]
    columns = []
    for metric in named:
        own = {name: dict(groups) for name, groups in by_cell([r for r in rows if r.get("metric") == metric])}
        lines: list[Line] = []
        for attribute, names in cells:
            if attribute != EVERYBODY:
                lines.append(Line(capital(attribute), head=True))
            lines += [_line(name, own.get(attribute, {}).get(name, []), models, not columns) for name in names]
        first = next((r for r in rows if is_all(r) and r.get("metric") == metric), {})
        reference = 0.0 if paired else real(first.get("value"))
        columns.append(Panel(metric_head(metric), tuple(lines), reference))
    return panels(columns, identity=identity, title=title, series=[plain(m) for m in models]) if columns else None


def _line(name: str, rows: Sequence[Row], models: Sequence[str], is_first: bool) -> Line:
    marks = [
        Mark(
            value,
            real(row.get("low")),
            real(row.get("high")),
            with_interval(row),
            models.index(row["model"]) if len(models) > 1 else 0,
            row.get("flag") == "underpowered",
        )
        for row in rows
        if (len(models) == 1 or row.get("model") in models) and (value := real(row.get("value"))) is not None
    ]
    if marks:
        return Line(name, tuple(sorted(marks, key=lambda mark: mark.series)))
    reason = next((str(row["reason"]) for row in rows if row.get("reason")), "")
    first, comma, _ = reason.partition(",")  # a panel is narrow; the table of groups that are not shown has all
    note = f"not shown: {first}{' and more' if comma else ''}" if reason else "not shown"
    return Line(name, note=note if is_first else "")


def _heat(result: AuditResult, name: str) -> Grid | None:
    rows = [row for row in result.gaps if row.get("gap") == name]
    attributes = list(dict.fromkeys(str(row.get("attribute")) for row in rows))
    lines: list[Tr] = []
    for model in result.model_names:
        by_place = {(row.get("label"), row.get("attribute")): row for row in _of(rows, model)}
        if len(result.model_names) > 1:
            lines.append(Tr(f"Model: {plain(model)}"))
        lines += [
            Tr(plain(label), tuple(_heat_cell(result, by_place.get((label, a))) for a in attributes))
            for label in result.labels
        ]
    tests = [row for row in rows if real(row.get("p")) is not None]
    above = sum(survives(result, row) for row in tests)
    return Grid(
        f"{capital(gap_head(name))}, by label and attribute",
        ("Label", *map(plain, attributes)),
        tuple(lines),
        note=f"{'▲' if above else '○'} {above} of {len(tests)} above chance" if tests else "not tested",
    )


def _heat_cell(result: AuditResult, row: Row | None) -> Td:
    value = None if row is None else real(row.get("value"))
    if row is None or value is None:
        return Td(NONE, ("too few groups",) if row is not None else ("not measured",), "quiet")
    shade = sum(abs(value) >= edge for edge in _SHADES)
    text, around = parts(row)
    return Td(text, (around, *verdict(result, row)), f"h{shade}")


def verdict(result: AuditResult, row: Row) -> tuple[str, ...]:
    """Return with a sign and a word whether a gap is larger than chance."""
    p = real(row.get("p"))
    if p is None:
        return ("not tested",)
    adjusted = p_value(row.get("p_holm"))
    if survives(result, row):
        return (f"▲ above chance, p\u00a0{adjusted}",)
    smallest = real(row.get("smallest_gap"))
    seen = () if smallest is None else (f"seen from {figure(smallest)}",)
    return (f"○ may be chance, p\u00a0{adjusted}", *seen)


def _worst(result: AuditResult, rows: Sequence[Row]) -> str:
    """Write the line of a folded label: how many of its gaps are above chance, and the largest of the first kind."""
    tests = tested(rows)
    sure = sum(survives(result, row) for row in tests)
    known = [row for row in rows if real(row.get("value")) is not None]
    if not known:
        return "no gap could be worked out"
    first = next(name for name in (*MAIN_GAPS, str(known[0].get("gap"))) if any(r.get("gap") == name for r in known))
    largest = max((row for row in known if row.get("gap") == first), key=lambda row: row["value"])
    value, around = parts(largest)
    where = f"{metric_head(first.removesuffix('_max_min'))} gap {value} ({around}) by {plain(largest.get('attribute'))}"
    count = f"{'▲' if sure else '○'} {sure} of {len(tests)} gaps above chance" if tests else "not tested"
    return f"largest: {where} · {count}"


def _gap_grid(result: AuditResult, rows: Sequence[Row], caption: str) -> Grid:
    heads = (
        *("Gap", "Size", "Worst", "Best", "Groups", "p", "p Holm", "p BH"),
        *("By chance, mean", "By chance, 95 % below", "Smallest seen"),
    )
    lines: list[Tr] = []
    for attribute in dict.fromkeys(str(row.get("attribute")) for row in rows):
        lines.append(Tr(capital(plain(attribute))))
        for row in (row for row in rows if row.get("attribute") == attribute):
            value, around = parts(row)
            sign = "▲ " if survives(result, row) else ""
            cells = (
                Td(f"{sign}{value}", (around,) if around else ()),
                said(group_name(row, "worst_group")),
                said(group_name(row, "best_group")),
                Td(number(row.get("num_groups"))),
                *(Td(p_value(row.get(k))) for k in ("p", "p_holm", "p_bh")),
                *(Td(figure(row.get(k))) for k in ("null_mean", "null_95", "smallest_gap")),
            )
            lines.append(Tr(capital(gap_head(str(row.get("gap")))), cells))
    return Grid(caption, heads, tuple(lines), dense=True)


def _difference_grid(rows: Sequence[Row], caption: str) -> Grid:
    heads = ("Group and measure", "Minus", "Difference", "p", "p Holm", "p BH", "Smallest seen")

    def cells(row: Row) -> tuple[Td, ...]:
        reference = str(row.get("reference"))
        return (
            said("all others" if reference == "rest" else plain(reference)),
            *difference_cells(row, ("p", "p_holm", "p_bh")),
            Td(figure(row.get("smallest_gap"))),
        )

    return Grid(caption, heads, by_group(rows, cells), dense=True)


def by_group(rows: Sequence[Row], cells: Callable[[Row], tuple[Td, ...]]) -> tuple[Tr, ...]:
    """Make one row for each measure of each group, a heading for each attribute."""
    lines: list[Tr] = []
    for attribute, groups in by_cell(rows):
        if attribute != EVERYBODY:
            lines.append(Tr(capital(attribute)))
        lines += [
            Tr(f"{name} · {metric_head(str(row.get('metric')))}", cells(row)) for name, own in groups for row in own
        ]
    return tuple(lines)


def difference_cells(row: Row, ps: Sequence[str], sign: str = "") -> tuple[Td, ...]:
    """Make the cells of a difference: its size with the interval, and p-values."""
    value, around = parts(row, signed=True)
    return (Td(f"{sign}{value}", (around,) if around else ()), *(Td(p_value(row.get(p))) for p in ps))

"""The parts of the page that are about labels: a drawing and folded tables of each, gaps at a glance, and matrices.

A matrix is a table of groups × labels, one for each measure: what tables of each label would repeat, on one page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from markupsafe import Markup

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import (
    EVERYBODY,
    by_attribute,
    by_cell,
    figure_cell,
    gap_head,
    group_name,
    is_all,
    metric_head,
    parts,
    plain,
    select,
    survives,
    with_interval,
)
from medclip.reports.audit.summary import MAIN_GAPS, tested
from medclip.reports.forest_plot import NUM_SERIES, Line, Mark, Panel, panels
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.statistics.metrics.catalogue import METRICS, names_of
from medclip.wording import NONE, capital, figure, number, p_value, real

_SHADES = (0.03, 0.06, 0.1, 0.2)
"""Where a gap becomes one shade darker."""
_MOST_COLUMNS = 10
"""Labels × models beside each other; A4 has no room for more."""
_RATIO_SHADES = (1.25, 1.5, 2.0, 3.0)
"""Where a ratio to the reference group becomes one shade darker."""
_DIAGNOSES = {
    "underdiagnosis": ("Underdiagnosis: the share of the ill who are called healthy", "n_pos", "ill patients’"),
    "overdiagnosis": ("Overdiagnosis: the share of the healthy who are called ill", "n_neg", "healthy patients’"),
}


def drawn_measures() -> tuple[str, ...]:
    """Name the measures that are drawn and come first in tables.

    Under- and overdiagnosis are these by other names; a page of their own has them (`matrices`).
    """
    return names_of(lambda m: m.main)


def calibration_measures() -> tuple[str, ...]:
    """Name the measures of calibration, which have tables of their own."""
    return tuple(name for name, metric in METRICS.items() if metric.what == "calibration")


def describe_label(result: AuditResult, label: str, number: int) -> dict[str, Any]:
    """Return what is shown of a label: the gap of its folded line, a drawing, and tables that are not printed."""
    title, rows = plain(label), select(result.metrics, label=label)
    gaps = [row for row in select(result.gaps, label=label) if not row.get("same_as")]
    present = list(dict.fromkeys(str(row.get("metric")) for row in rows))
    main = [metric for metric in drawn_measures() if metric in present]
    elsewhere = (*main, *calibration_measures(), *names_of(lambda m: m.repeats))
    rest = [metric for metric in present if metric not in elsewhere]
    tables = []
    for model in result.model_names:
        of = f" · {plain(model)}" if len(result.model_names) > 1 else ""
        measured = select(rows, model=model)
        differences = select(result.differences, label=label, model=model)
        tables.append(groups_grid(measured, main, f"{title}: measures by group{of}"))
        tables.append(_gap_grid(result, select(gaps, model=model), f"{title}: gaps{of}"))
        tables.append(_difference_grid(differences, f"{title}: each group against the others{of}"))
        tables.append(groups_grid(measured, rest, f"{title}: further measures by group{of}", counts=False))
    return {
        "title": title,
        "worst": _worst(result, gaps),
        "drawing": by_group_panels(result, rows, main, f"label-{number}", f"{title} by group"),
        "tables": [table for table in tables if table],
    }


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
    lines = by_attribute(rows if names else (), lambda name, of_group: [_group_row(name, of_group, names, counts)])
    return Grid(caption, heads, lines, dense=len(heads) > 8)


def _group_row(name: str, rows: Sequence[Row], metrics: Sequence[str], counts: bool) -> Tr:
    hidden = next((row for row in rows if row.get("flag") == "suppressed"), None)
    by_metric = {row.get("metric"): row for row in rows}
    few = any(by_metric.get(metric, {}).get("flag") == "underpowered" for metric in metrics)
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
    """Draw measures by group beside each other; None where there is nothing to draw. Of paired rows, the
    differences of two models, the dashed line is 0.
    """
    named = [m for m in metrics if any(r.get("metric") == m and real(r.get("value")) is not None for r in rows)]
    models = [""] if paired else list(result.model_names)[:NUM_SERIES]
    cells = [(attribute, [name for name, _ in groups]) for attribute, groups in by_cell(rows)]
    columns = []
    for metric in named:
        groups_of = {attribute: dict(groups) for attribute, groups in by_cell(select(rows, metric=metric))}
        lines: list[Line] = []
        for attribute, names in cells:
            if attribute != EVERYBODY:
                lines.append(Line(capital(attribute), head=True))
            lines += [_line(name, groups_of.get(attribute, {}).get(name, []), models, not columns) for name in names]
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
    rows = select(result.gaps, gap=name)
    attributes = list(dict.fromkeys(str(row.get("attribute")) for row in rows))
    lines: list[Tr] = []
    for model in result.model_names:
        by_place = {(row.get("label"), row.get("attribute")): row for row in select(rows, model=model)}
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
    measured = [row for row in rows if real(row.get("value")) is not None]
    if not measured:
        return "no gap could be worked out"
    first = next(name for name in (*MAIN_GAPS, str(measured[0].get("gap"))) if select(measured, gap=name))
    largest = max(select(measured, gap=first), key=lambda row: row["value"])
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
        for row in select(rows, attribute=attribute):
            cells = (
                figure_cell(row, sign="▲ " if survives(result, row) else ""),
                prose(group_name(row, "worst_group")),
                prose(group_name(row, "best_group")),
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
            prose("all others" if reference == "rest" else plain(reference)),
            *difference_cells(row, ("p", "p_holm", "p_bh")),
            Td(figure(row.get("smallest_gap"))),
        )

    return Grid(caption, heads, by_group(rows, cells), dense=True)


def by_group(rows: Sequence[Row], cells: Callable[[Row], tuple[Td, ...]]) -> tuple[Tr, ...]:
    """Make one row for each measure of each group, a heading for each attribute."""

    def lines(name: str, of_group: Sequence[Row]) -> Iterator[Tr]:
        for row in of_group:
            yield Tr(f"{name} · {metric_head(str(row.get('metric')))}", cells(row))

    return by_attribute(rows, lines)


def difference_cells(row: Row, ps: Sequence[str], sign: str = "") -> tuple[Td, ...]:
    """Make the cells of a difference: its size with the interval, and p-values."""
    return (figure_cell(row, signed=True, sign=sign), *(Td(p_value(row.get(p))) for p in ps))


def diagnosis_matrices(result: AuditResult) -> tuple[Grid, ...]:
    """Return groups × labels: how many of the ill are missed, how many of the healthy alarmed, each with its n and its
    ratio to the largest group of the attribute.
    """
    ratios = {_place(row): row for row in result.ratios}
    references = {(r["model"], r["label"], r["attribute"], r["metric"]): r["reference"] for r in result.ratios}
    healthy = result.settings.get("no_finding", ())

    def cell(row: Row) -> Td:
        column = _DIAGNOSES[str(row.get("metric"))][1]
        if row.get("label") in healthy:
            column = "n_neg" if column == "n_pos" else "n_pos"
        value, around = parts(row)
        text = f"{value} ({number(row.get(column))})"
        ratio = ratios.get(_place(row))
        if ratio is None:
            is_reference = references.get((row["model"], row["label"], row["attribute"], row["metric"])) == row["group"]
            return Td(text, (_short(around), *(("reference",) if is_reference else ())))
        size = real(ratio.get("value")) or 0.0
        times, between = parts(ratio)
        return Td(
            text, (_short(around), f"×{times}, {_short(between)}"), f"h{sum(size >= edge for edge in _RATIO_SHADES)}"
        )

    grids = []
    for metric, (title, _, who) in _DIAGNOSES.items():
        note = (
            f"in brackets the number of {who} rows; below it the 95 % interval; ×: times as often as in the reference, "
            "the group of the attribute with the most patients, with its interval"
        )
        grids += [*_matrix(result, metric, title, note, cell)]
    return tuple(grids)


def matrices(result: AuditResult, metrics: Sequence[str]) -> tuple[Grid, ...]:
    """Return groups × labels for each of some measures, with intervals."""
    every = (_matrix(result, metric, capital(metric_head(metric)), "", figure_cell) for metric in metrics)
    return tuple(grid for grids in every for grid in grids)


def _matrix(result: AuditResult, metric: str, title: str, note: str, cell: Callable[[Row], Td]) -> Iterator[Grid]:
    rows = select(result.metrics, metric=metric)
    if not any(real(row.get("value")) is not None for row in rows):
        return
    columns = [(label, model) for label in result.labels for model in result.model_names]
    for start in range(0, len(columns), _MOST_COLUMNS):
        part = columns[start : start + _MOST_COLUMNS]
        more = f", part {start // _MOST_COLUMNS + 1}" if len(columns) > _MOST_COLUMNS else ""
        heads = ("Group", *(_head(result, *column) for column in part))
        lines = by_attribute(rows, lambda name, of_group, part=part: [_line_of(name, of_group, part, cell)])
        yield Grid(f"{title}{more}", heads, lines, True, note)


def _short(interval: str) -> str:
    """Write an interval for a narrow column: 0.41–0.65."""
    return interval if "−" in interval else interval.replace(" to ", "–")


def _head(result: AuditResult, label: str, model: str) -> str:
    return f"{plain(label)} · {plain(model)}" if len(result.model_names) > 1 else plain(label)


def _line_of(name: str, rows: Sequence[Row], columns: Sequence[tuple[str, str]], cell: Callable[[Row], Td]) -> Tr:
    by_column = {(row.get("label"), row.get("model")): row for row in rows}
    few = any(row.get("flag") == "underpowered" for row in rows)
    return Tr(f"{name} †" if few else name, tuple(_cell(by_column.get(column), cell) for column in columns))


def _cell(row: Row | None, cell: Callable[[Row], Td]) -> Td:
    if row is None or row.get("flag") == "suppressed":
        return Td(NONE if row is None else "not shown", css="quiet")
    return Td(NONE, css="quiet") if real(row.get("value")) is None else cell(row)


def _place(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("model", "label", "attribute", "group", "metric"))

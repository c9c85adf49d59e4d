"""The parts of the page that are about labels: a drawing and folded tables of each, gaps at a glance, and matrices.

A matrix is a table of groups × labels, one for each measure: what tables of each label would repeat, on one page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medclip.auditing.groups.equity import INSIDE, OUTSIDE, SCALED, TOLERANCE, UNDECIDED, WORST
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
from medclip.wording import NONE, capital, figure, list_of, number, p_value, real

_SHADES = (0.03, 0.06, 0.1, 0.2)
"""Where a gap becomes one shade darker."""
_MOST_COLUMNS = 10
"""Labels × models beside each other; A4 has no room for more."""
_SIGNS = {INSIDE: "✔", OUTSIDE: "✖", UNDECIDED: "○"}
_RATIO_SHADES = (1.25, 1.5, 2.0, 3.0)
"""Where a ratio to the reference group becomes one shade darker."""
_DIAGNOSES = {
    "underdiagnosis": "The ill who are called healthy",
    "overdiagnosis": "The healthy who are called ill",
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
    """Make the tables of labels × attributes, one for each main gap, coloured by size; of one label one table has all
    gaps.
    """
    present = list(dict.fromkeys(str(row.get("gap")) for row in result.gaps))
    names = [name for name in MAIN_GAPS if name in present] or present[:3]
    grids = tuple(grid for name in names if (grid := _heat(result, name)))
    if len(result.labels) * len(result.model_names) > 1 or len(grids) < 2:
        return grids
    gaps = zip(names, (line for grid in grids for line in grid.rows), strict=True)
    rows = tuple(Tr(capital(gap_head(name)), line.cells) for name, line in gaps)
    return (Grid("Gaps by attribute", ("Gap", *grids[0].heads[1:]), rows),)


def groups_grid(rows: Sequence[Row], metrics: Sequence[str], caption: str, *, counts: bool = True) -> Grid:
    """Make a table of groups (rows) × measures (columns), a heading for each attribute."""
    names = [m for m in metrics if any(row.get("metric") == m for row in rows)]
    heads = (
        "Group",
        *(("Rows", "Positives", "Negatives", "Patients") if counts else ()),
        *(capital(metric_head(name)) for name in names),
    )
    lines = by_attribute(rows if names else (), lambda name, of_group: [_group_row(name, of_group, names, counts)])
    return Grid(caption, heads, lines, dense=len(heads) > 8)


def _group_row(name: str, rows: Sequence[Row], metrics: Sequence[str], counts: bool) -> Tr:
    hidden = next((row for row in rows if row.get("flag") == "suppressed"), None)
    by_metric = {row.get("metric"): row for row in rows}
    few = any(by_metric.get(metric, {}).get("flag") == "underpowered" for metric in metrics)
    cells = [Td(number(rows[0].get(k))) for k in ("n", "n_pos", "n_neg", "n_patients")] if counts else []
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
        is_of_positives = (row.get("metric") == "underdiagnosis") != (row.get("label") in healthy)
        column = "n_pos" if is_of_positives else "n_neg"
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

    note = (
        "in brackets the rows that it rests on, of the ill or of the healthy; with the 95 % interval; ×: times as "
        "often as in the reference, the group of the attribute with the most patients"
    )
    return _matrices(result, _DIAGNOSES, cell, note)


def matrices(result: AuditResult, metrics: Sequence[str]) -> tuple[Grid, ...]:
    """Return groups × labels for some measures, with intervals: side by side where a page is wide enough for them."""
    return _matrices(result, {name: capital(metric_head(name)) for name in metrics}, figure_cell)


def _matrices(
    result: AuditResult, titles: Mapping[str, str], cell: Callable[[Row], Td], note: str = ""
) -> tuple[Grid, ...]:
    """Return one table of all measures where they fit beside each other, else one or more for each."""
    measured = [m for m in titles if any(real(r.get("value")) is not None for r in select(result.metrics, metric=m))]
    of_one = [(label, model) for label in result.labels for model in result.model_names]
    together = len(measured) * len(of_one) <= _MOST_COLUMNS
    parts = [[(m, *column) for m in measured for column in of_one]] if together and measured else []
    if not together:
        starts = range(0, len(of_one), _MOST_COLUMNS)
        parts = [[(m, *column) for column in of_one[n : n + _MOST_COLUMNS]] for m in measured for n in starts]
    grids = []
    for part in parts:
        names = list(dict.fromkeys(metric for metric, _, _ in part))
        place = [p for p in parts if p[0][0] == part[0][0]].index(part) + 1
        more = f", part {place}" if not together and len(of_one) > _MOST_COLUMNS else ""
        rows = [row for row in result.metrics if row.get("metric") in names]
        heads = [
            _head(result, *column[1:]) if len(names) == 1 else _full_head(result, titles, *column) for column in part
        ]
        lines = by_attribute(rows, lambda name, of_group, part=part: [_line_of(name, of_group, part, cell)])
        grids.append(Grid(f"{' · '.join(titles[m] for m in names)}{more}", ("Group", *heads), lines, True, note))
    return tuple(grids)


def _full_head(result: AuditResult, titles: Mapping[str, str], metric: str, label: str, model: str) -> str:
    """Name a column of a table that holds several measures."""
    return titles[metric] if len(result.labels) == 1 else f"{titles[metric]}: {_head(result, label, model)}"


def equity(result: AuditResult) -> Grid:
    """Return of each attribute the area of the worst group, and the equity-scaled one."""
    lines: list[Tr] = []
    for model, label, metric in dict.fromkeys((r.get("model"), r.get("label"), r.get("metric")) for r in result.equity):
        rows = select(result.equity, model=model, label=label, metric=metric)
        lines.append(Tr(f"{_head(result, str(label), str(model))}, {metric_head(str(metric))}"))
        for attribute in dict.fromkeys(row.get("attribute") for row in rows):
            by_measure = {row.get("measure"): row for row in select(rows, attribute=attribute)}
            worst, scaled = by_measure.get(WORST, {}), by_measure.get(SCALED, {})
            groups = Td(number(scaled.get("num_groups")))
            cells = (prose(group_name(worst)), figure_cell(worst), figure_cell(scaled), groups)
            lines.append(Tr(capital(plain(attribute)), cells))
    heads = ("Attribute", "Worst group", "Its value", "Equity-scaled", "Groups")
    return Grid("Worst group, and equity-scaled", heads, tuple(lines), dense=True)


def tolerance(result: AuditResult) -> tuple[str, tuple[Grid, ...]]:
    """Return a sentence that counts the rates inside and outside the tolerance, and a table of them for each label."""
    least = float(result.settings.get("tolerance", TOLERANCE))
    verdicts = Counter(str(row.get("verdict")) for row in result.ratios if row.get("verdict"))
    if not verdicts:
        return "", ()
    counts = [f"{number(verdicts[verdict])} {sign} {verdict}" for verdict, sign in _SIGNS.items() if verdicts[verdict]]
    sentence = (
        f"Against the largest group of the attribute, {figure(least)} to {figure(1 / least)} times its rate "
        f"(Aequitas): {list_of(counts)}, with the whole interval."
    )
    grids = []
    for label in result.labels:
        for model in result.model_names:
            rows = select(result.ratios, label=label, model=model)
            names = list(dict.fromkeys(str(row.get("metric")) for row in rows))
            heads = ("Group", *(capital(metric_head(name)) for name in names))
            lines = by_attribute(rows, lambda name, of_group, names=names: [_ratio_line(name, of_group, names)])
            grids.append(
                Grid(f"{_head(result, label, model)}: times the rate of the largest group", heads, lines, True)
            )
    return sentence, tuple(grid for grid in grids if grid)


def _ratio_line(name: str, rows: Sequence[Row], metrics: Sequence[str]) -> Tr:
    by_metric = {row.get("metric"): row for row in rows}
    cells = []
    for metric in metrics:
        row = by_metric.get(metric)
        sign = "" if row is None else f"{_SIGNS.get(str(row.get('verdict')), '')} "
        cells.append(Td(NONE, css="quiet") if row is None else figure_cell(row, sign=sign))
    return Tr(name, tuple(cells))


def _short(interval: str) -> str:
    """Write an interval for a narrow column: 0.41–0.65."""
    return interval if "−" in interval else interval.replace(" to ", "–")


def _head(result: AuditResult, label: str, model: str) -> str:
    return f"{plain(label)} · {plain(model)}" if len(result.model_names) > 1 else plain(label)


def _line_of(name: str, rows: Sequence[Row], columns: Sequence[tuple[str, ...]], cell: Callable[[Row], Td]) -> Tr:
    by_column: dict[tuple[Any, ...], Row] = {
        (row.get("metric"), row.get("label"), row.get("model")): row for row in rows
    }
    few = any(row.get("flag") == "underpowered" for row in rows)
    return Tr(f"{name} †" if few else name, tuple(_cell(by_column.get(column), cell) for column in columns))


def _cell(row: Row | None, cell: Callable[[Row], Td]) -> Td:
    if row is None or row.get("flag") == "suppressed":
        return Td(NONE if row is None else "not shown", css="quiet")
    return Td(NONE, css="quiet") if real(row.get("value")) is None else cell(row)


def _place(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("model", "label", "attribute", "group", "metric"))

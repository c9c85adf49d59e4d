"""Tables of groups × labels, one for each measure: what tables of each label would repeat, on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import EVERYBODY, by_cell, metric_head, parts, plain
from medclip.reports.audit.table import Grid, Td, Tr
from medclip.wording import NONE, capital, number, real

_MOST_COLUMNS = 10
"""Labels × models beside each other; A4 has no room for more."""
_SHADES = (1.25, 1.5, 2.0, 3.0)
"""Where a ratio to the reference group becomes one shade darker."""
DIAGNOSES = {
    "underdiagnosis": ("Underdiagnosis: the share of the ill who are called healthy", "n_pos", "ill patients’"),
    "overdiagnosis": ("Overdiagnosis: the share of the healthy who are called ill", "n_neg", "healthy patients’"),
}


def diagnosis_matrices(result: AuditResult) -> tuple[Grid, ...]:
    """Return groups × labels: how many of the ill are missed, how many of the healthy alarmed, each with its n and its
    ratio to the largest group of the attribute.
    """
    ratios = {_place(row): row for row in result.ratios}
    references = {(r["model"], r["label"], r["attribute"], r["metric"]): r["reference"] for r in result.ratios}
    healthy = result.settings.get("no_finding", ())

    def cell(row: Row) -> Td:
        column = DIAGNOSES[str(row.get("metric"))][1]
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
        return Td(text, (_short(around), f"×{times}, {_short(between)}"), f"h{sum(size >= edge for edge in _SHADES)}")

    grids = []
    for metric, (title, _, who) in DIAGNOSES.items():
        note = (
            f"in brackets the number of {who} rows; below it the 95 % interval; ×: times as often as in the reference, "
            "the group of the attribute with the most patients, with its interval"
        )
        grids += [*_matrix(result, metric, title, note, cell)]
    return tuple(grids)


def matrices(result: AuditResult, metrics: Sequence[str]) -> tuple[Grid, ...]:
    """Return groups × labels for each of some measures, with intervals."""

    def cell(row: Row) -> Td:
        value, around = parts(row)
        return Td(value, (around,) if around else ())

    grids = []
    for metric in metrics:
        grids += [*_matrix(result, metric, capital(metric_head(metric)), "", cell)]
    return tuple(grids)


def _matrix(result: AuditResult, metric: str, title: str, note: str, cell: Callable[[Row], Td]) -> Iterator[Grid]:
    rows = [row for row in result.metrics if row.get("metric") == metric]
    if not any(real(row.get("value")) is not None for row in rows):
        return
    columns = [(label, model) for label in result.labels for model in result.model_names]
    for start in range(0, len(columns), _MOST_COLUMNS):
        part = columns[start : start + _MOST_COLUMNS]
        more = f", part {start // _MOST_COLUMNS + 1}" if len(columns) > _MOST_COLUMNS else ""
        yield Grid(
            f"{title}{more}", ("Group", *(_head(result, *c) for c in part)), tuple(_lines(rows, part, cell)), True, note
        )


def _short(interval: str) -> str:
    """Write an interval for a narrow column: 0.41–0.65."""
    return interval if "−" in interval else interval.replace(" to ", "–")


def _head(result: AuditResult, label: str, model: str) -> str:
    return f"{plain(label)} · {plain(model)}" if len(result.model_names) > 1 else plain(label)


def _lines(rows: Sequence[Row], columns: Sequence[tuple[str, str]], cell: Callable[[Row], Td]) -> Iterator[Tr]:
    for attribute, groups in by_cell(rows):
        if attribute != EVERYBODY:
            yield Tr(capital(attribute))
        for name, own in groups:
            by_column = {(row.get("label"), row.get("model")): row for row in own}
            few = any(row.get("flag") == "underpowered" for row in own)
            yield Tr(f"{name} †" if few else name, tuple(_cell(by_column.get(column), cell) for column in columns))


def _cell(row: Row | None, cell: Callable[[Row], Td]) -> Td:
    if row is None or row.get("flag") == "suppressed":
        return Td(NONE if row is None else "not shown", css="quiet")
    return Td(NONE, css="quiet") if real(row.get("value")) is None else cell(row)


def _place(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("model", "label", "attribute", "group", "metric"))

"""Risks by year on the page: sentences, and a table for each risk and population."""

from __future__ import annotations

from collections.abc import Iterable

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import group_cell, group_name, is_all, of_model, plain, select, with_interval
from medclip.reports.html_page import Grid, Td, Tr
from medclip.statistics.yearly_risk import CONCORDANCES, METRICS
from medclip.wording import capital, list_of, number, real

_YEARLY = tuple(name for name in METRICS if name not in CONCORDANCES)


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return the concordance of each risk and the area of its last year, over everybody."""
    sentences = []
    for (_, label, population), rows in _by_risk(result).items():
        everybody = [row for row in rows if is_all(row) and real(row.get("value")) is not None]
        last = max((int(row["year"]) for row in everybody if row.get("year")), default=0)
        wanted = [("c_index_harrell_td", None), ("c_index_uno", None), ("auroc", last)]
        figures = [
            f"{METRICS[metric]} {with_interval(row)}" if not year else f"AUROC of year {year} {with_interval(row)}"
            for metric, year in wanted
            for row in select(everybody, metric=metric)
            if (row.get("year") or None) == year
        ]
        if figures:
            name = f"{plain(label)}, {plain(population)}{of_model(result, everybody[0])}"
            sentences.append(f"{name}, {number(everybody[0].get('n_patients'))} patients: {list_of(figures)}.")
    return tuple(sentences)


def grids(result: AuditResult) -> tuple[Grid, ...]:
    """Return the tables: the concordances by group, and of everybody the metrics of each year."""
    tables: list[Grid] = []
    for (_, label, population), rows in _by_risk(result).items():
        name = f"{capital(plain(label))}, {plain(population)}{of_model(result, rows[0])}"
        timed = [row for row in rows if not row.get("year")]
        groups = dict.fromkeys((row["attribute"], row["group"]) for row in timed)
        lines = [
            _line(group_name(of_group[0]), of_group, ("n_patients", "n_pos"), CONCORDANCES)
            for attribute, group in groups
            if (of_group := select(timed, attribute=attribute, group=group))
        ]
        heads = ("Group", "Patients", "Events", *(capital(METRICS[metric]) for metric in CONCORDANCES))
        tables.append(Grid(f"{name}: concordance", heads, tuple(lines), dense=True))
        yearly = [row for row in rows if row.get("year") and is_all(row)]
        lines = [
            _line(str(year), [row for row in yearly if row["year"] == year], ("n_pos", "n_neg"), _YEARLY)
            for year in sorted({int(row["year"]) for row in yearly})
        ]
        heads = ("By the end of year", "Cases", "Controls", *(capital(METRICS[metric]) for metric in _YEARLY))
        tables.append(Grid(f"{name}: by year", heads, tuple(lines), dense=True))
    return tuple(table for table in tables if table)


def _by_risk(result: AuditResult) -> dict[tuple[str, str, str], list[Row]]:
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for row in result.risk:
        rows.setdefault((str(row["model"]), str(row["label"]), str(row["population"])), []).append(row)
    return rows


def _line(name: str, rows: list[Row], counts: Iterable[str], metrics: Iterable[str]) -> Tr:
    by_metric = {row["metric"]: row for row in rows}
    counted = (Td(number(rows[0].get(key))) for key in counts)
    return Tr(name, (*counted, *(group_cell(by_metric.get(metric, {})) for metric in metrics)))

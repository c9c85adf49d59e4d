"""Risks by year on the page: sentences, and a table for each risk and population."""

from __future__ import annotations

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import group_name, is_all, of_model, parts, plain, with_interval
from medclip.reports.audit.table import Grid, Td, Tr
from medclip.statistics.yearly_risk import CONCORDANCES, METRICS
from medclip.wording import capital, list_of, number, real

_YEARLY = tuple(name for name in METRICS if name not in CONCORDANCES)


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return the concordance of each risk and the area of its last year, over everybody."""
    sentences = []
    for key, rows in _by_risk(result).items():
        own = [row for row in rows if is_all(row) and real(row.get("value")) is not None]
        last = max((int(row["year"]) for row in own if row.get("year")), default=0)
        wanted = [("c_index_harrell_td", None), ("c_index_uno", None), ("auroc", last)]
        figures = [
            f"{METRICS[metric]} {with_interval(row)}" if not year else f"AUROC of year {year} {with_interval(row)}"
            for metric, year in wanted
            for row in own
            if row["metric"] == metric and (row.get("year") or None) == year
        ]
        if figures:
            name = f"{plain(key[1])}, {plain(key[2])}{of_model(result, own[0])}"
            sentences.append(f"{name}, {number(own[0].get('n_patients'))} patients: {list_of(figures)}.")
    return tuple(sentences)


def grids(result: AuditResult) -> tuple[Grid, ...]:
    """Return the tables: the concordances by group, and of everybody the metrics of each year."""
    tables: list[Grid] = []
    for key, rows in _by_risk(result).items():
        name = f"{capital(plain(key[1]))}, {plain(key[2])}{of_model(result, rows[0])}"
        timed = [row for row in rows if not row.get("year")]
        heads = ("Group", "Patients", "Events", *(capital(METRICS[metric]) for metric in CONCORDANCES))
        cells = dict.fromkeys((row["attribute"], row["group"]) for row in timed)
        tables.append(Grid(f"{name}: concordance", heads, tuple(_line(timed, cell) for cell in cells), dense=True))
        yearly = [row for row in rows if row.get("year") and is_all(row)]
        years = sorted({int(row["year"]) for row in yearly})
        heads = ("By the end of year", "Cases", "Controls", *(capital(METRICS[metric]) for metric in _YEARLY))
        tables.append(Grid(f"{name}: by year", heads, tuple(_year(yearly, year) for year in years), dense=True))
    return tuple(table for table in tables if table)


def _by_risk(result: AuditResult) -> dict[tuple[str, str, str], list[Row]]:
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for row in result.risk:
        rows.setdefault((str(row["model"]), str(row["label"]), str(row["population"])), []).append(row)
    return rows


def _line(rows: list[Row], cell: tuple[object, object]) -> Tr:
    by_metric = {row["metric"]: row for row in rows if (row["attribute"], row["group"]) == cell}
    first = next(iter(by_metric.values()))
    counts = (Td(number(first.get(name))) for name in ("n_patients", "n_pos"))
    return Tr(group_name(first), (*counts, *(_figure(by_metric.get(metric, {})) for metric in CONCORDANCES)))


def _year(rows: list[Row], year: int) -> Tr:
    by_metric = {row["metric"]: row for row in rows if row["year"] == year}
    first = next(iter(by_metric.values()))
    counts = (Td(number(first.get(name))) for name in ("n_pos", "n_neg"))
    return Tr(str(year), (*counts, *(_figure(by_metric.get(metric, {})) for metric in _YEARLY)))


def _figure(row: Row) -> Td:
    if row.get("flag") == "suppressed":
        return Td("not shown")
    value, around = parts(row)
    return Td(value, (around,) if around else ())

"""Printed names of measures, gaps, groups and models, and the rows of the tables as cells and lines of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from medclip.auditing.groups.gaps import gap_info, is_gap
from medclip.auditing.result import AuditResult, Row
from medclip.errors import printable
from medclip.reports.html_page import Td, Tr
from medclip.statistics.cohort import ALL
from medclip.statistics.metrics.catalogue import METRICS
from medclip.wording import capital, count, p_value, real, value_and_interval

ALPHA = 0.05
EVERYBODY = "Everybody"
_KINDS = {"_max_min": "highest − lowest", "_worst_overall": "worst − everybody"}


def metric_head(name: str) -> str:
    """Return the short name of a measure: AUROC, TPR, selection rate."""
    metric = METRICS.get(name)
    return plain(name) if metric is None else metric.head or metric.title


def metric_in_words(name: str) -> str:
    """Return how a sentence names a measure: sensitivity (TPR)."""
    metric = METRICS.get(name)
    return metric_head(name) if metric is None else metric.in_words or metric_head(name)


def gap_head(name: str) -> str:
    """Return the short name of a gap: AUROC, highest − lowest."""
    for ending, kind in _KINDS.items():
        if name.endswith(ending):
            return f"{metric_head(name.removesuffix(ending))}, {kind}"
    return gap_info(name).title if is_gap(name) else plain(name)


def plain(name: Any) -> str:
    """Write a name of ours or of a table in words, without control characters."""
    return printable(str(name)).replace("_", " ")


def group_name(row: Row, column: str = "group") -> str:
    """Return the printed group of a row, as the table writes it; "–" where there is none."""
    return EVERYBODY if is_all(row) else printable(str(row.get(column) or "–"))


def is_all(row: Row) -> bool:
    """Whether a row counts everybody."""
    return row.get("attribute") == ALL


def cell_name(row: Row) -> str:
    """Return group and attribute of a row: 80+ (age); everybody."""
    return "everybody" if is_all(row) else f"{group_name(row)} ({plain(row.get('attribute'))})"


def alpha(result: AuditResult) -> float:
    """Return the level that adjusted p-values are held against."""
    return float(result.settings.get("alpha", ALPHA))


def survives(result: AuditResult, row: Row) -> bool:
    """Whether a tested row is larger than chance after adjusting for its family."""
    p = row.get("p_holm")
    return p is not None and p <= alpha(result)


def of_model(result: AuditResult, row: Row) -> str:
    """Name the model of a row where there are several."""
    return f", model {plain(row.get('model'))}" if len(result.model_names) > 1 else ""


def parts(row: Row, *, signed: bool = False) -> tuple[str, str]:
    """Write the value of a row and its interval with the same decimals."""
    return value_and_interval(row.get("value"), row.get("low"), row.get("high"), signed=signed)


def with_interval(row: Row, *, signed: bool = False) -> str:
    """Write 0.83 (0.79 to 0.87)."""
    value, around = parts(row, signed=signed)
    return f"{value} ({around})" if around else value


def by_cell(rows: Sequence[Row]) -> Iterator[tuple[str, list[tuple[str, list[Row]]]]]:
    """Yield each attribute with its groups and their rows, in the order of the table."""
    rows_by_cell: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        attribute = EVERYBODY if is_all(row) else plain(row.get("attribute"))
        rows_by_cell.setdefault(attribute, {}).setdefault(group_name(row), []).append(row)
    for attribute, groups in rows_by_cell.items():
        yield attribute, list(groups.items())


def select(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def figure_cell(row: Row, *, signed: bool = False, sign: str = "") -> Td:
    """Make the cell of a value: its interval stands below."""
    value, around = parts(row, signed=signed)
    return Td(f"{sign}{value}", (around,) if around else ())


def group_cell(row: Row, *, signed: bool = False) -> Td:
    """Make the cell of a group's value, where the group may be shown."""
    return Td("not shown") if row.get("flag") == "suppressed" else figure_cell(row, signed=signed)


def by_attribute(rows: Sequence[Row], lines: Callable[[str, list[Row]], Iterable[Tr]]) -> tuple[Tr, ...]:
    """Make the lines of each group, from its name and its rows, with a heading for each attribute."""
    every: list[Tr] = []
    for attribute, groups in by_cell(rows):
        if attribute != EVERYBODY:
            every.append(Tr(capital(attribute)))
        for name, of_group in groups:
            every += lines(name, of_group)
    return tuple(every)


def alone_and_adjusted(row: Row) -> str:
    """Write the p-value of a row by itself, and adjusted."""
    return f"p\u00a0{p_value(row.get('p'))} by itself, {p_value(row.get('p_holm'))} adjusted"


def counts_of(row: Row, *nouns: tuple[str, str]) -> list[str]:
    """Count rows, patients and the like of a row, as far as they may be shown."""
    return [count(int(n), noun) for name, noun in nouns if (n := real(row.get(name))) is not None]

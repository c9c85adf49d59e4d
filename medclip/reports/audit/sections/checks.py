"""Checks that the page has no section for: findings, sentences and tables, by the words of their rows in CHECKS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medclip.auditing.checks.table import CHECKS, Check, Words
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import parts, plain
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.wording import NONE, capital, figure, number, real

_INTERVAL = ("low", "high")


def findings(result: AuditResult) -> list[Finding]:
    """Return what the checks call a finding, the first of each as the largest."""
    return [
        Finding(Harm[words.harm], sentence, 1 / place)
        for _, words, rows in _with_rows(result)
        for place, sentence in enumerate(words.findings(rows) if words.findings else (), 1)
    ]


def answers(result: AuditResult) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the heading of each check and its findings, or the sentence for none."""
    for _, words, rows in _with_rows(result):
        yield words.heading, _sentences(words, rows)


def sections(result: AuditResult) -> tuple[Mapping[str, Any], ...]:
    """Return the section of each check: name, words, and a grid for each of its tables."""
    return tuple(
        {
            "name": next(iter(check.tables)),
            "heading": words.heading,
            "question": words.question,
            "sentences": _sentences(words, rows),
            "grids": [_grid(name, rows[name], check.tables[name], len(result.model_names) > 1) for name in rows],
            "files": list(check.tables),
        }
        for check, words, rows in _with_rows(result)
    )


def _with_rows(result: AuditResult) -> Iterator[tuple[Check, Words, Mapping[str, Sequence[Row]]]]:
    """Yield the checks that have words, and rows in this audit."""
    for check in CHECKS.values():
        rows = {name: result.check_tables[name] for name in check.tables if result.check_tables.get(name)}
        if check.words is not None and rows:
            yield check, check.words, rows


def _sentences(words: Words, rows: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
    return (tuple(words.findings(rows)) if words.findings else ()) or (words.nothing,)


def _grid(name: str, rows: Sequence[Row], columns: Mapping[str, str], several: bool) -> Grid:
    """Write rows as they are, the value with its interval; the model where there are several."""
    heads = [c for c in columns if c not in _INTERVAL and (several or c != "model")]
    lines = tuple(
        Tr(plain(row.get(heads[0]) or NONE), tuple(_cell(row, c, columns[c]) for c in heads[1:])) for row in rows
    )
    return Grid(capital(plain(name)), tuple(capital(plain(head)) for head in heads), lines, dense=len(lines) > 20)


def _cell(row: Row, column: str, kind: str) -> Td:
    if kind == "string":
        return prose(plain(row.get(column) or NONE))
    if column == "value" and real(row.get("low")) is not None:
        value, around = parts(row)
        return Td(value, (around,))
    return Td(number(row.get(column)) if kind == "int64" else figure(row.get(column)))

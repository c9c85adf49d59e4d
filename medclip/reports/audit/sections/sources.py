"""Whether the score follows the source of an image: findings, sentences and the table."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.auditing.checks.shortcuts.sources import (
    ACROSS,
    AGAINST,
    ALONE,
    ITS_NEGATIVES,
    ITS_POSITIVES,
    KNOWN,
    POOLED,
    RED,
    WITHIN,
)
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import figure_cell, of_model, parts, plain, select, with_interval
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.statistics.cohort import ALL
from medclip.wording import NONE, p_value, real


def findings(result: AuditResult) -> list[Finding]:
    """Return a finding where a score tells a source better than it tells the finding; they are in the red box, too."""
    return [
        Finding(
            Harm.SHORTCUT,
            f"The score follows the source{of_model(result, row)}. {row['note']}",
            abs(real(row.get("value")) or 0.0),
        )
        for row in select(result.sources, severity=RED)
    ]


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return what the score gets within and across sources, and what could not be seen, for each model and label."""
    return tuple(sentence for model in result.model_names for sentence in _sentences(result, model))


def _sentences(result: AuditResult, model: str) -> Iterator[str]:
    for label in dict.fromkeys(row.get("label") for row in select(result.sources, model=model)):
        rows = select(result.sources, model=model, label=label)
        overall = {row["what"]: row for row in select(rows, source=ALL)}
        figures = [
            f"{with_interval(overall[what])} {words}"
            for what, words in (
                (POOLED, "over everybody"),
                (WITHIN, "of pairs within a source"),
                (ACROSS, "of pairs across sources"),
                (ALONE, "for a score that knows the source alone"),
            )
            if what in overall and real(overall[what].get("value")) is not None
        ]
        if figures:
            yield f"{plain(label)}{of_model(result, rows[0])}, AUROC: {'; '.join(figures)}."
        unseen = [row for row in select(rows, what=AGAINST) if real(row.get("value")) is None]
        yield from (str(row["note"]) for row in unseen[:1])


def grid(result: AuditResult) -> Grid:
    """Return a row for each model and label, with the source for which it is worst; the table has them all."""
    lines = tuple(
        Tr(f"{plain(label)}{of_model(result, rows[0])}", tuple(_cells(rows)))
        for model in result.model_names
        for label in result.labels
        if (rows := select(result.sources, model=model, label=label))
    )
    heads = ("Label", *(what.capitalize() for what in (POOLED, WITHIN, ALONE)))
    heads += ("Source", "Among negatives", "Finding against it", "Difference, p (Holm)")
    return Grid("Within sources and across them, AUROC", heads, lines, dense=True)


def _cells(rows: list[Row]) -> Iterator[Td]:
    """Yield the cells of a label: over all sources, then of the source that is told best against the finding."""
    overall = {row["what"]: row for row in select(rows, source=ALL)}
    yield from (figure_cell(overall.get(what, {})) for what in (POOLED, WITHIN, ALONE))
    tested = [row for row in select(rows, what=AGAINST) if real(row.get("value")) is not None]
    if not tested:
        yield prose("too few to see")
        yield from (Td(NONE),) * 3
        return
    worst = max(tested, key=lambda row: row["value"])
    by_what = {row["what"]: row for row in select(rows, source=worst.get("source"))}
    of_source = by_what.get(KNOWN, {})
    direction = ITS_NEGATIVES if (real(of_source.get("value")) or 0) >= 0.5 else ITS_POSITIVES
    yield prose(f"{'✖ ' if worst.get('severity') == RED else ''}{worst.get('source')}")
    yield figure_cell(of_source)
    yield figure_cell(by_what.get(direction, {}))
    value, around = parts(worst, signed=True)
    p = worst.get("p_holm")
    yield Td(value, (around, *([f"p {p_value(p)}"] if real(p) is not None else [])))

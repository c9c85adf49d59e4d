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
from medclip.reports.audit.names import of_model, parts, plain, with_interval
from medclip.reports.audit.summary.finding import Finding, Harm
from medclip.reports.audit.table import Grid, Td, Tr, said
from medclip.statistics.cohort import ALL
from medclip.wording import NONE, p_value, real


def findings(result: AuditResult) -> list[Finding]:
    """Return a finding where a score tells a source better than it tells the finding; they are in the red box, too."""
    return [
        Finding(Harm.SHORTCUT, f"The score follows the source{of_model(result, row)}. {row['note']}", _size(row))
        for row in result.sources
        if row.get("severity") == RED
    ]


def _size(row: Row) -> float:
    return abs(real(row.get("value")) or 0.0)


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return what the score gets within and across sources, and what could not be seen, for each model and label."""
    return tuple(sentence for model in result.model_names for sentence in _of(result, model))


def _of(result: AuditResult, model: str) -> Iterator[str]:
    rows = [row for row in result.sources if row.get("model") == model]
    for label in dict.fromkeys(row.get("label") for row in rows):
        own = [row for row in rows if row.get("label") == label]
        figures = {row["what"]: row for row in own if row.get("source") == ALL}
        known = [
            f"{with_interval(figures[what])} {words}"
            for what, words in (
                (POOLED, "over everybody"),
                (WITHIN, "of pairs within a source"),
                (ACROSS, "of pairs across sources"),
                (ALONE, "for a score that knows the source alone"),
            )
            if what in figures and real(figures[what].get("value")) is not None
        ]
        if known:
            yield f"{plain(label)}{of_model(result, own[0])}, AUROC: {'; '.join(known)}."
        unseen = [row for row in own if row.get("what") == AGAINST and real(row.get("value")) is None]
        yield from (str(row["note"]) for row in unseen[:1])


def grid(result: AuditResult) -> Grid:
    """Return a row for each model and label, with the source for which it is worst; the table has them all."""
    lines: list[Tr] = []
    for model in result.model_names:
        for label in result.labels:
            own = [row for row in result.sources if (row.get("model"), row.get("label")) == (model, label)]
            if own:
                lines.append(Tr(f"{plain(label)}{of_model(result, own[0])}", tuple(_cells(own))))
    heads = ("Label", *(what.capitalize() for what in (POOLED, WITHIN, ALONE)))
    heads += ("Source", "Among negatives", "Finding against it", "Difference, p (Holm)")
    return Grid("Within sources and across them, AUROC", heads, tuple(lines), dense=True)


def _cells(own: list[Row]) -> Iterator[Td]:
    """Yield the cells of a label: over all sources, then of the source that is told best against the finding."""
    overall = {row["what"]: row for row in own if row.get("source") == ALL}
    yield from (_figure(overall.get(what)) for what in (POOLED, WITHIN, ALONE))
    tested = [row for row in own if row.get("what") == AGAINST and real(row.get("value")) is not None]
    if not tested:
        yield said("too few to see")
        yield from (Td(NONE),) * 3
        return
    worst = max(tested, key=lambda row: row["value"])
    by_what = {row["what"]: row for row in own if row.get("source") == worst.get("source")}
    known = by_what.get(KNOWN, {})
    direction = ITS_NEGATIVES if (real(known.get("value")) or 0) >= 0.5 else ITS_POSITIVES
    yield said(f"{'✖ ' if worst.get('severity') == RED else ''}{worst.get('source')}")
    yield _figure(known)
    yield _figure(by_what.get(direction))
    value, around = parts(worst, signed=True)
    p = worst.get("p_holm")
    yield Td(value, (around, *([f"p {p_value(p)}"] if real(p) is not None else [])))


def _figure(row: Row | None) -> Td:
    value, around = parts(row or {})
    return Td(value, (around,) if around else ())

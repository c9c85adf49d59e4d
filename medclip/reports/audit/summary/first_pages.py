"""The first two printed pages of an audit: what an ethics board reads in ten minutes, and signs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from medclip.auditing.result import AuditResult
from medclip.reports.audit.names import plain
from medclip.reports.audit.summary.check_words import alarms
from medclip.reports.audit.summary.finding import Finding
from medclip.reports.audit.summary.words import (
    COMPARED,
    FOUND,
    HIDDEN,
    UNSCORED,
    UNSEEN,
    Said,
    collect_findings,
    summary,
)
from medclip.reports.audit.table import Grid, Td, Tr, said
from medclip.wording import NONE, capital, figure, number

QUESTION = "Does it work for every patient group, and how sure is that?"
_ON_THE_PAGE, _AT_LEAST = 7, 4
"""Findings that two printed pages have room for, of which those in the red box take some; all are in the annex."""
_CAUTIONS = 3
_THRESHOLDS = 8
_HEADS = ("What and where", "Value", "Difference, 95 % interval", "Rests on", "p, adjusted")


@dataclass(frozen=True)
class FirstPages:
    """What stands on the first two pages."""

    question: str
    about: tuple[str, ...]
    """Who was audited, and how the scores do over everybody."""
    unscored: tuple[str, ...]
    """How many labelled rows were never scored."""
    cautions: tuple[str, ...]
    """Notes that change how everything is read."""
    more_notes: int
    counted: tuple[str, ...]
    findings: Grid
    in_the_box: int
    """Findings that stand in the red box at the top, and not once more in the table."""
    more_findings: int
    beside: tuple[Said, ...]
    """Models, shortcuts, embeddings and leakage in short."""
    unseen: Said
    hidden: tuple[str, ...]
    thresholds: tuple[str, ...]
    signers: tuple[str, ...]
    """Names that are known, and blanks for others."""


def first_pages(result: AuditResult) -> FirstPages:
    """Pick what the first two pages show."""
    matters = {matter.head: matter for matter in summary(result)}
    nothing = Said("", ())
    findings = collect_findings(result)
    boxed = alarms(result)[1]
    unboxed = tuple(finding for finding in findings if finding.sentence not in boxed)
    room = max(_AT_LEAST, _ON_THE_PAGE - len(findings) + len(unboxed))
    cautions = [note for note in result.notes if "CAUTION" in note]
    return FirstPages(
        question=str(result.provenance.get("question") or QUESTION),
        about=tuple(s for head in ("Size", "Overall", "Risk by year") for s in matters.get(head, nothing).all),
        unscored=matters.get(UNSCORED, nothing).all,
        cautions=tuple(cautions[:_CAUTIONS]),
        more_notes=len(result.notes) - min(_CAUTIONS, len(cautions)),
        counted=(*matters[FOUND].sentences[bool(findings) :], *matters[FOUND].after[-1:]),
        findings=findings_grid(unboxed[:room]),
        in_the_box=len(findings) - len(unboxed),
        more_findings=max(0, len(unboxed) - room),
        beside=tuple(_beside(matters)),
        unseen=matters.get(UNSEEN, nothing),
        hidden=matters.get(HIDDEN, nothing).all,
        thresholds=(*matters.get("Thresholds", nothing).all, *_threshold_values(result)),
        signers=(str(result.provenance.get("auditor") or ""), "", ""),
    )


def findings_grid(findings: tuple[Finding, ...]) -> Grid:
    """Make the table of findings: a heading for each harm, a row for each finding."""
    lines: list[Tr] = []
    for head, same in groupby(findings, key=lambda finding: finding.head):
        lines.append(Tr(capital(head)))
        lines += [_line(finding) for finding in same]
    return Grid("What was found, the worst harm first", _HEADS, tuple(lines), dense=True)


def _line(finding: Finding) -> Tr:
    if not finding.what:
        return Tr(finding.sentence, is_sentence=True)
    texts = (finding.value, finding.difference, finding.counts)
    return Tr(finding.what, (*(said(text or NONE) for text in texts), Td(finding.p or NONE)))


def _threshold_values(result: AuditResult) -> Iterator[str]:
    """Yield the thresholds of each model, where a line has room for them."""
    for model in result.model_names:
        rows = [row for row in result.thresholds if row.get("model") == model]
        if 0 < len(rows) <= _THRESHOLDS:
            values = [f"{plain(row.get('label'))} {figure(row.get('value'), decimals=3)}" for row in rows]
            yield f"Thresholds of {plain(model)}: {', '.join(values)}."


def _beside(matters: dict[str, Said]) -> Iterator[Said]:
    """Yield the other matters, with the first of their sentences and how many more there are."""
    for head in ("Declared beforehand", COMPARED, "Shortcuts", "Embeddings", "Leakage"):
        if head in matters:
            matter = matters[head]
            most = 3 if head in ("Declared beforehand", COMPARED) else 2
            rest = len(matter.all) - most
            more = (f"({number(rest)} more in the annex.)",) if rest > 0 else ()
            yield Said(head, (*matter.all[:most], *more))

"""What the page of an audit shows, as plain data: picked from the tables, nothing computed anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.annex import left_out, provenance
from medclip.reports.audit.annex import sections as sections
from medclip.reports.audit.annex.label_section import LabelView, label_view, overview
from medclip.reports.audit.annex.matrices import diagnosis_matrices, matrices
from medclip.reports.audit.annex.methods import LIMITS, Step, formulas, steps
from medclip.reports.audit.names import plain
from medclip.reports.audit.sections import checks, ordinal, representation, requirements, risk, sources
from medclip.reports.audit.stress.section import StressView, stress_view
from medclip.reports.audit.summary.check_words import alarms
from medclip.reports.audit.summary.first_pages import FirstPages, findings_grid, first_pages
from medclip.reports.audit.summary.words import collect_findings, lead, of_everybody, tested
from medclip.reports.audit.table import Grid
from medclip.wording import list_of, number

CALIBRATED = ("calibration_in_the_large", "observed_expected", "calibration_slope")
"""Measures of calibration that are printed for each group."""


@dataclass(frozen=True)
class PageView:
    """The whole page."""

    title: str
    version: str
    lead: str
    """The first sentence: the worst that was found."""
    red: tuple[str, tuple[str, ...]]
    """Heading and sentences of the red box."""
    requirements: Grid
    sources: Grid
    stress: StressView | None
    checks: tuple[Mapping[str, Any], ...]
    """Sections of checks that the page has none for."""
    ordinal: tuple[Grid, ...]
    risk: tuple[Grid, ...]
    representation: Grid
    facts: tuple[tuple[str, str], ...]
    first: FirstPages
    flow: Grid
    """Rows that are left after each step."""
    unscored: Grid
    findings: Grid
    """All of them; empty where the first pages have room for them."""
    diagnoses: tuple[Grid, ...]
    overview: tuple[Grid, ...]
    who: Grid
    measures: tuple[Grid, ...]
    labels: tuple[LabelView, ...]
    calibration: tuple[sections.Folded, ...]
    calibration_overall: tuple[tuple[str, Markup], ...]
    calibration_tables: tuple[Grid, ...]
    thresholds: Grid
    decisions: tuple[tuple[str, Markup], ...]
    compared: tuple[sections.Folded, ...]
    shortcuts: tuple[sections.Folded, ...]
    embeddings: tuple[sections.Folded, ...]
    projections: tuple[tuple[str, Markup], ...]
    leakage: Grid
    suppressed: Grid
    steps: tuple[Step, ...]
    formulas: tuple[Grid, ...]
    limits: tuple[str, ...]
    notes: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    inputs: Grid
    """Files that were read."""
    seal: tuple[tuple[str, str], ...]
    """Hashes beside the signatures; empty where nothing was written."""
    no_hash: str
    """Stands for the hash of the page."""
    counts: str
    """How counts are written: "exact", "rounded to 5"; empty where that is not known."""
    several: bool
    """Whether there are several models."""


def view(result: AuditResult) -> PageView:
    """Pick what the page shows."""
    first = first_pages(result)
    return PageView(
        title=_title(result),
        version=str(result.provenance.get("version", "")),
        lead=lead(result),
        red=alarms(result),
        requirements=requirements.grid(result),
        sources=sources.grid(result),
        stress=stress_view(result),
        checks=checks.sections(result),
        ordinal=ordinal.grids(result),
        risk=risk.grids(result),
        representation=representation.grid(result),
        facts=tuple(_facts(result)),
        first=first,
        flow=left_out.flow(result),
        unscored=left_out.unscored(result),
        findings=findings_grid(collect_findings(result) if first.more_findings or first.in_the_box else ()),
        diagnoses=diagnosis_matrices(result),
        overview=overview(result),
        who=sections.who(result),
        measures=matrices(result, ("auroc", "c_index")),
        labels=tuple(label_view(result, label, n) for n, label in enumerate(result.labels)),
        calibration=sections.calibration(result),
        calibration_overall=sections.calibration_overall(result),
        calibration_tables=matrices(result, CALIBRATED),
        thresholds=sections.thresholds(result),
        decisions=sections.decisions(result),
        compared=sections.compared(result),
        shortcuts=sections.shortcuts(result),
        embeddings=sections.embeddings(result),
        projections=sections.projections(result),
        leakage=sections.leakage(result),
        suppressed=sections.suppressed(result),
        steps=steps(result),
        formulas=formulas(result),
        limits=LIMITS,
        notes=result.notes,
        settings=tuple(provenance.facts(result)),
        inputs=provenance.inputs(result),
        seal=provenance.hashes(result),
        no_hash=provenance.NO_HASH,
        counts=str(result.settings.get("counts", "")),
        several=len(result.model_names) > 1,
    )


def _title(result: AuditResult) -> str:
    names = list_of([plain(name) for name in result.model_names[:3]])
    return f"Audit of {names or 'scores'} by patient group"


def _facts(result: AuditResult) -> Iterator[tuple[str, str]]:
    everybody = of_everybody(result)
    yield "Patients", _largest(everybody, "n_patients")
    yield "Rows", _largest(everybody, "n")
    yield "Labels", number(len(result.labels))
    if result.risk:
        yield "Risks", number(len({row["label"] for row in result.risk}))
    yield "Attributes", number(len(result.attributes))
    yield "Tests", number(sum(len(tested(rows)) for rows in (result.gaps, result.differences, result.ordinal)))
    yield "Findings", number(len(collect_findings(result)))


def _largest(rows: Sequence[Row], name: str) -> str:
    return number(max((row[name] for row in rows if row.get(name) is not None), default=None))

"""The page of an audit, one file that loads nothing and names nobody; and its section for a model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from medclip.auditing.provenance import page_hash
from medclip.auditing.result import AuditResult, Row
from medclip.files.output import write_file
from medclip.reports.audit import annex
from medclip.reports.audit.findings import Finding, primary_answers
from medclip.reports.audit.labels import describe_label, diagnosis_matrices, equity, matrices, overview, tolerance
from medclip.reports.audit.methods import LIMITS, NO_HASH, formulas, hashes, inputs, origin
from medclip.reports.audit.names import alpha, cell_name, is_all, metric_head, plain, select, with_interval
from medclip.reports.audit.plots import findings_forest
from medclip.reports.audit.sections import (
    checks,
    left_out,
    masks,
    ordinal,
    representation,
    requirements,
    risk,
    sources,
    stress,
)
from medclip.reports.audit.summary import (
    COMPARED,
    FOUND,
    HIDDEN,
    PRIMARY_HEAD,
    UNSCORED,
    UNSEEN,
    Matter,
    alarms,
    collect_findings,
    lead,
    lead_sentences,
    num_tests,
    of_everybody,
    power,
    red,
    summary,
)
from medclip.reports.html_page import Grid, Td, Tr, prose, render_page
from medclip.wording import NONE, capital, figure, in_markdown, list_of, number, real

REPORT, CARD = "report.html", "model_card_section.md"
STYLES = ("style.css", "drawings.css", "few_shot.css", "audit.css")
CALIBRATED = ("calibration_in_the_large", "observed_expected", "calibration_slope")
"""Measures of calibration that are printed for each group."""
QUESTION = "Does it work for every patient group, and how sure is that?"
_ON_THE_PAGE, _AT_LEAST = 7, 4
"""Findings that two printed pages have room for, of which those in the red box take some; all are in the annex."""
_CAUTIONS = 3
_THRESHOLDS = 8
_NARROW = 2
_HEADS = ("What and where", "Value", "Difference, 95 % interval", "Rests on", "p, adjusted")
_METRICS = ("auroc", "c_index", "tpr")
_MOST_ROWS = 30


def write_audit_report(result: AuditResult, out: Path) -> AuditResult:
    """Write report.html and model_card_section.md beside the tables.

    Args:
        result: Audit; `medclip.auditing.result.write_tables` writes its tables.
        out: The folder.

    Returns:
        The audit with the hash of the page, where the other hashes are known.

    Raises:
        MedclipError: DISK_FULL; WRONG_USE where the folder cannot be written.
    """
    page = render(result)
    write_file(out / REPORT, page)
    write_file(out / CARD, markdown(result.tidied()))
    return replace(result, sealed={"page": page_hash(page), **result.sealed}) if result.sealed else result


def render(result: AuditResult) -> str:
    """Render the page. The same results give the same bytes. The hash of its content is put into the line for it."""
    page = render_page("audit.html.j2", STYLES, {"page": _page(result.tidied())}) + "\n"
    return page.replace(NO_HASH, page_hash(page)) if result.sealed else page


def _page(result: AuditResult) -> dict[str, Any]:
    """Return what the page shows, picked from the tables; nothing is computed anew."""
    first = _first_pages(result)
    red_head, red_sentences = alarms(result)
    title, facts, findings = _title(result), tuple(_facts(result)), collect_findings(result)
    result, left_out_of_annex = annex.with_worst_groups(result)
    ratios, ratio_grids = tolerance(result)
    return {
        "title": title,
        "version": str(result.provenance.get("version", "")),
        "lead": first["lead"],
        "primary": first["primary"],
        "red_head": red_head,
        "red_sentences": red_sentences,
        "facts": facts,
        "first": first,
        "flow": left_out.flow(result),
        "limits": LIMITS,
        "seal": hashes(result),
        "no_hash": NO_HASH,  # stands for the hash of the page
        "findings": _findings_grid(findings if first["forest"] or first["more_findings"] else ()),
        "left_out_of_annex": left_out_of_annex,
        "requirements": requirements.grid(result),
        "requirements_met": requirements.grid(result, is_met=True),
        "stress": stress.describe_stress(result),
        "diagnoses": diagnosis_matrices(result),
        "overview": overview(result),
        "who": annex.who(result),
        "counts": str(result.settings.get("counts", "")),  # "exact", "rounded to 5"; blank where that is not known
        "unscored": left_out.unscored(result),
        "unlabelled": left_out.unlabelled(result),
        "ratios": ratios,
        "ratio_grids": ratio_grids,
        "equity": equity(result),
        "measures": matrices(result, ("auroc", "c_index", *(CALIBRATED if _is_narrow(result) else ()))),
        "labels": [describe_label(result, label, n) for n, label in enumerate(result.labels)],
        "calibration": annex.calibration(result),
        "calibration_overall": annex.calibration_overall(result),
        "calibration_tables": () if _is_narrow(result) else matrices(result, CALIBRATED),
        "thresholds": annex.thresholds(result),
        "decisions": annex.decisions(result),
        "several": len(result.model_names) > 1,
        "compared": annex.compared(result),
        "representation": representation.grid(result),
        "ordinal": ordinal.grids(result),
        "masks": masks.grids(result),
        "risk": risk.grids(result),
        "sources": sources.grid(result),
        "checks": checks.sections(result),
        "shortcuts": annex.shortcuts(result),
        "embeddings": annex.embeddings(result),
        "projections": annex.projections(result),
        "leakage": annex.leakage(result),
        "suppressed": annex.suppressed(result),
        "worst_errors": annex.worst_errors(result),
        "notes": result.notes,
        "replicates": _times(result.settings.get("replicates", result.provenance.get("replicates"))),
        "permutations": _times(result.settings.get("permutations")),
        "alpha": f"{alpha(result):g}",
        "power": power(result),
        "paired": bool(result.models),
        "formulas": formulas(result),
        "inputs": inputs(result),
        "settings": tuple(origin(result)),
    }


def _is_narrow(result: AuditResult) -> bool:
    """Whether ranking and calibration of every label and model fit into one table."""
    return len(result.labels) * len(result.model_names) <= _NARROW


def _times(value: Any) -> str:
    return "many times" if value is None else f"{number(value)} times"


def _title(result: AuditResult) -> str:
    names = list_of([plain(name) for name in result.model_names[:3]])
    return f"Audit of {names or 'scores'} by patient group"


def _facts(result: AuditResult) -> Iterator[tuple[str, str]]:
    everybody = of_everybody(result)
    yield "Patients", _largest(everybody, "n_patients")
    yield "Rows", _largest(everybody, "n")
    if result.labels or not (result.risk or result.ordinal or result.masks):
        yield "Labels", number(len(result.labels))
    if result.ordinal:
        yield "Gradings", number(len({row["label"] for row in result.ordinal}))
    if result.masks:
        yield "Structures", number(len({row["label"] for row in result.masks}))
    if result.risk:
        yield "Risks", number(len({row["label"] for row in result.risk}))
    yield "Attributes", number(len(result.attributes))
    yield "Tests", number(num_tests(result))
    yield "Findings", number(len(collect_findings(result)))


def _largest(rows: Sequence[Row], name: str) -> str:
    return number(max((row[name] for row in rows if row.get(name) is not None), default=None))


def _first_pages(result: AuditResult) -> dict[str, Any]:
    """Return what stands on the first two printed pages: what an ethics board reads in ten minutes, and signs.

    Returns:
        `cautions`: notes that change how everything is read; `in_the_box`: findings that stand in the red box at the
        top, and not once more below; `forest`: the worst findings that have a difference, drawn; `findings`: others, as
        sentences; `beside`: models, shortcuts, embeddings and leakage in short; `signers`: names that are known, and
        blanks for others.
    """
    matters = {matter.head: matter for matter in summary(result)}
    nothing = Matter("", ())
    findings = collect_findings(result)
    leads = tuple(lead_sentences(result, findings))
    boxed = alarms(result)[1]
    unboxed = tuple(finding for finding in findings if finding.sentence not in boxed)
    room = max(_AT_LEAST, _ON_THE_PAGE - len(findings) + len(unboxed))
    drawn = tuple(finding for finding in unboxed[:room] if finding.row is not None)
    cautions = [note for note in result.notes if "CAUTION" in note]
    return {
        "question": str(result.provenance.get("question") or QUESTION),
        "about": [s for head in ("Size", "Overall", "Masks", "Risk by year") for s in matters.get(head, nothing).all],
        "unscored": matters.get(UNSCORED, nothing).all,
        "cautions": cautions[:_CAUTIONS],
        "more_notes": len(result.notes) - min(_CAUTIONS, len(cautions)),
        "counted": (*(one for one in matters[FOUND].sentences[bool(findings) :] if one != lead(result)), *leads),
        "lead": lead(result),
        "primary": primary_answers(result),
        "forest": findings_forest(drawn),
        "findings": _findings_grid(tuple(finding for finding in unboxed[:room] if finding.row is None)),
        "met": requirements.met_in_short(result),
        "met_sentences": requirements.met(result),
        "in_the_box": len(findings) - len(unboxed),
        "more_findings": max(0, len(unboxed) - room),
        "beside": tuple(_beside(matters, requirements.met(result))),
        "unseen": matters.get(UNSEEN, nothing),
        "hidden": matters.get(HIDDEN, nothing).all,
        "thresholds": (*matters.get("Thresholds", nothing).all, *_threshold_values(result)),
        "signers": (str(result.provenance.get("auditor") or ""), "", ""),
    }


def _findings_grid(findings: tuple[Finding, ...]) -> Grid:
    """Make the table of findings: a heading for each harm, a row for each finding."""
    lines: list[Tr] = []
    for head, same in groupby(findings, key=lambda finding: finding.head):
        lines.append(Tr(capital(head)))
        lines += [_finding_line(finding) for finding in same]
    return Grid("What was found, the worst harm first", _HEADS, tuple(lines), dense=True)


def _finding_line(finding: Finding) -> Tr:
    if not finding.what:
        return Tr(finding.sentence, is_sentence=True)
    difference = f"{finding.difference}. {finding.given}" if finding.given else finding.difference
    texts = (finding.value, difference, finding.counts)
    return Tr(finding.what, (*(prose(text or NONE) for text in texts), Td(finding.p or NONE)))


def _threshold_values(result: AuditResult) -> Iterator[str]:
    """Yield the thresholds of each model, where a line has room for them."""
    for model in result.model_names:
        rows = select(result.thresholds, model=model)
        if 0 < len(rows) <= _THRESHOLDS:
            values = [f"{plain(row.get('label'))} {figure(row.get('value'), decimals=3)}" for row in rows]
            yield f"Thresholds of {plain(model)}: {', '.join(values)}."


def _beside(matters: dict[str, Matter], folded: Sequence[str]) -> Iterator[Matter]:
    """Yield the other matters without what is folded: their first sentences, and how many more there are."""
    for head in ("Declared beforehand", COMPARED, "Shortcuts", "Embeddings", "Leakage"):
        sentences = [one for one in matters[head].all if one not in folded] if head in matters else []
        most = 3 if head in ("Declared beforehand", COMPARED) else 2
        rest = len(sentences) - most
        more = (f"({number(rest)} more in the annex.)",) if rest > 0 else ()
        if sentences:
            yield Matter(head, (*sentences[:most], *more))


class CardPart(NamedTuple):
    """One heading of the section with its sentences and, perhaps, a table."""

    head: str
    sentences: tuple[str, ...]
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def card(result: AuditResult) -> tuple[CardPart, ...]:
    """Write the audit under the headings of a model card, in less than 60 lines of Markdown.

    Reference: Mitchell et al., Model cards for model reporting, FAT* (2019).
    """
    matters = {matter.head: matter.all for matter in summary(result)}
    return (
        CardPart("Use", ("For research. Not a medical device. These figures hold for these patients.",)),
        CardPart("Leakage", (*red(result), *matters.get("Leakage", ()))),
        CardPart("Evaluation data", matters.get("Size", ())),
        CardPart("Thresholds", matters.get("Thresholds", ())),
        *(CardPart(head, matters[head]) for head in (PRIMARY_HEAD,) if head in matters),
        CardPart(FOUND, matters.get(FOUND, ())),
        _by_label(result),
        CardPart(UNSEEN, matters.get(UNSEEN, ())),
        CardPart(HIDDEN, matters.get(HIDDEN, ("All groups are shown.",))),
        CardPart("What this audit cannot tell you", LIMITS),
    )


def markdown(result: AuditResult) -> str:
    """Write the section as Markdown."""
    lines = ["## Performance by patient group", ""]
    for part in card(result):
        lines += [f"**{part.head}.** {in_markdown(' '.join(part.sentences))}".rstrip(), ""]
        if part.rows:
            lines += [_row(part.heads), _row(("---",) * len(part.heads), raw=True)]
            lines += [_row(row) for row in part.rows[:_MOST_ROWS]]
            lines.append("")
    version = result.provenance.get("version")
    lines.append(f"Made by medclip{f' {version}' if version else ''}; the tables beside this file have every number.")
    return "\n".join(lines) + "\n"


def _by_label(result: AuditResult) -> CardPart:
    """Return one row for each model, label and measure: everybody, and the group that fares worst and best."""
    rows = []
    for model in result.model_names:
        for label in result.labels:
            for metric in _METRICS:
                every = select(result.metrics, model=model, label=label, metric=metric)
                measured = [row for row in every if real(row.get("value")) is not None]
                groups = sorted((row for row in measured if not is_all(row)), key=lambda row: row["value"])
                everybody = next((row for row in measured if is_all(row)), None)
                if everybody is not None:
                    ends = (groups[0], groups[-1]) if groups else (None, None)
                    figures = (with_interval(everybody), *(NONE if r is None else _of_group(r) for r in ends))
                    rows.append((plain(model), plain(label), metric_head(metric), *figures))
    rest = len(rows) - _MOST_ROWS
    more = (f"The first {_MOST_ROWS} of {len(rows)} rows; metrics.csv has all.",) if rest > 0 else ()
    heads = ("Model", "Label", "Measure", "Everybody (95 % interval)", "Lowest group", "Highest group")
    return CardPart("By label, with the groups at the ends", more, heads, tuple(rows))


def _of_group(row: Row) -> str:
    return f"{cell_name(row)} {with_interval(row)}"


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(in_markdown, cells))} |"

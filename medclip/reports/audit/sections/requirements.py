"""What was declared beforehand and what became of it: sentences for the summary and the red box, and the table."""

from __future__ import annotations

from medclip.auditing.result import AuditResult, Row
from medclip.auditing.verdicts import MET, NOT_MET, UNDECIDED
from medclip.reports.audit.names import group_name, is_all, of_model, plain
from medclip.reports.audit.summary.finding import Finding, Harm
from medclip.reports.audit.table import Grid, Td, Tr, said
from medclip.wording import NONE, count, figure, list_of, number, real

_SIGNS = {MET: "✔ met", NOT_MET: "✖ not met", UNDECIDED: "○ undecided"}
_MOST = 4
"""Groups that a sentence names."""
_DECIMALS = 3
"""Of values and bounds, so that 0.796 does not look like the 0.80 that it misses."""


def _is_head(row: Row) -> bool:
    return row.get("part") == "requirement"


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return a sentence for each requirement of each model that is met or undecided, and one about the families."""
    ordered = [row for verdict in (UNDECIDED, MET) for row in _heads(result, verdict)]
    sentences = tuple(_sentence(result, row) for row in ordered)
    primary = {str(row.get("family")) for row in result.gaps if str(row.get("family")).startswith("primary")}
    if primary:
        tests = sum(str(row.get("family")) in primary and not row.get("same_as") for row in result.gaps)
        sentences += (
            f"{count(tests, 'gap')} of primary hypotheses, declared beforehand, {'is' if tests == 1 else 'are'} a "
            "family of their own; all other tests of groups are exploratory, to be tested again on other patients.",
        )
    return sentences


def findings(result: AuditResult) -> list[Finding]:
    """Return the requirements that are not met: they stand first in the summary, and in the red box."""
    return [Finding(Harm.DECLARED, _sentence(result, row), size=0.0) for row in _heads(result, NOT_MET)]


def _heads(result: AuditResult, verdict: str) -> list[Row]:
    return [row for row in result.requirements if _is_head(row) and row.get("verdict") == verdict]


def _sentence(result: AuditResult, head: Row) -> str:
    parts = _parts(result, head)
    verdict = str(head.get("verdict"))
    sure = f"{100 * float(head.get('confidence') or 0):.3g} % confidence, one-sided"
    deciding = [row for row in parts if row.get("verdict") == verdict] if verdict != MET else []
    named = [f"{_where(result, row)}{_numbers(row)}" for row in deciding]
    where = f": {list_of(named, most=_MOST)}" if named else ""
    if verdict == MET:
        where = f" by {number(len(parts))} of {number(len(parts))} groups" if len(parts) > 1 else _numbers(parts[0])
    return f"Required “{head.get('requirement')}”{of_model(result, head)}: {verdict} ({sure}){where}."


def _parts(result: AuditResult, head: Row) -> list[Row]:
    keys = ("model", "requirement")
    return [r for r in result.requirements if not _is_head(r) and all(r.get(k) == head.get(k) for k in keys)]


def _where(result: AuditResult, row: Row) -> str:
    label = f"{plain(row.get('label'))}, " if len(result.labels) > 1 else ""
    if is_all(row):
        return f"{label}everybody"
    against = f" against {row['reference']}" if row.get("reference") else ""
    return f"{label}{group_name(row)}{against}"


def _numbers(row: Row) -> str:
    if real(row.get("value")) is None:
        return " (not shown)"
    signed = bool(row.get("reference"))
    value, low, high = (figure(row.get(k), signed=signed, decimals=_DECIMALS) for k in ("value", "low", "high"))
    return f" {value} (bounds {low} and {high})"


def grid(result: AuditResult) -> Grid:
    """Return each requirement with the groups that decide it."""
    lines: list[Tr] = []
    for head in (row for row in result.requirements if _is_head(row)):
        verdict = _SIGNS.get(str(head.get("verdict")), NONE)
        lines.append(Tr(f"{head.get('requirement')}{of_model(result, head)}: {verdict}"))
        for row in _parts(result, head):
            signed = bool(row.get("reference"))
            numbers = [figure(row.get(k), signed=signed, decimals=_DECIMALS) for k in ("value", "low", "high")]
            lines.append(
                Tr(
                    _where(result, row),
                    (
                        said(_SIGNS.get(str(row.get("verdict")), NONE)),
                        *(Td(text) for text in numbers),
                        *(Td(number(row.get(k))) for k in ("n", "n_pos", "n_patients")),
                        said(str(row.get("reason") or "")),
                    ),
                )
            )
    heads = ("Group", "Verdict", "Value", "Lower bound", "Upper bound", "Rows", "Positives", "Patients", "Why")
    return Grid("Declared beforehand, and what became of it", heads, tuple(lines), dense=True)

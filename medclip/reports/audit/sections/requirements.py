"""What was declared beforehand and what became of it: sentences for the summary and the red box, and the table."""

from __future__ import annotations

from medclip.auditing.groups.measure import PRIMARY
from medclip.auditing.result import AuditResult, Row
from medclip.auditing.verdicts import MET, NOT_MET, UNDECIDED
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import group_name, is_all, of_model, plain, select
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.wording import NONE, count, figure, list_of, number, real

_SIGNS = {MET: "✔ met", NOT_MET: "✖ not met", UNDECIDED: "○ undecided"}
_MOST = 4
"""Groups that a sentence names."""
_DECIMALS = 3
"""Of values and bounds, so that 0.796 does not look like the 0.80 that it misses."""


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return a sentence for each requirement of each model that is met or undecided, and one about the families."""
    ordered = [row for verdict in (UNDECIDED, MET) for row in _heads(result, verdict=verdict)]
    sentences = tuple(_sentence(result, row) for row in ordered)
    if any(str(row.get("family")).startswith(PRIMARY) for row in result.gaps):
        sentences += (
            "Primary hypotheses are a family of their own; all other tests of groups are exploratory, to be tested "
            "again on other patients.",
        )
    return sentences


def findings(result: AuditResult) -> list[Finding]:
    """Return the requirements that are not met: they stand first in the summary, and in the red box."""
    return [Finding(Harm.DECLARED, _sentence(result, row), size=0.0) for row in _heads(result, verdict=NOT_MET)]


def _heads(result: AuditResult, **values: str) -> list[Row]:
    return select(result.requirements, part="requirement", **values)


def _sentence(result: AuditResult, head: Row) -> str:
    rows = _groups(result, head)
    verdict = str(head.get("verdict"))
    sure = f"{100 * float(head.get('confidence') or 0):.3g} % confidence, one-sided"
    deciding = select(rows, verdict=verdict) if verdict != MET else []
    named = [f"{_where(result, row)}{_in_brackets(row)}" for row in deciding]
    where = f": {list_of(named, most=_MOST)}" if named else ""
    if verdict == MET:
        where = f" by {number(len(rows))} of {number(len(rows))} groups" if len(rows) > 1 else _in_brackets(rows[0])
    return f"Required “{head.get('requirement')}”{of_model(result, head)}: {verdict} ({sure}){where}."


def _groups(result: AuditResult, head: Row) -> list[Row]:
    """Return the groups that decide a requirement."""
    rows = select(result.requirements, model=head.get("model"), requirement=head.get("requirement"))
    return [row for row in rows if row.get("part") != "requirement"]


def _where(result: AuditResult, row: Row) -> str:
    label = f"{plain(row.get('label'))}, " if len(result.labels) > 1 else ""
    if is_all(row):
        return f"{label}everybody"
    against = f" against {row['reference']}" if row.get("reference") else ""
    return f"{label}{group_name(row)}{against}"


def met(result: AuditResult) -> tuple[str, ...]:
    """Return the sentences of what is met, which the first page folds."""
    return tuple(_sentence(result, row) for row in _heads(result, verdict=MET))


def met_in_short(result: AuditResult) -> str:
    """Count what is met in one line, with its words; "" for nothing."""
    rows = _heads(result, verdict=MET)
    names = [f"“{row.get('requirement')}”{of_model(result, row)}" for row in rows]
    return f"{count(len(rows), 'requirement')} met: {list_of(names)}." if rows else ""


def _ends(row: Row) -> tuple[str, str]:
    """Write the bound by which a group passes, and the one by which it fails, which allows for all groups at once.

    Of a pair both ends of one interval have to lie within the margin, and they stand together.
    """
    signed, (low, high) = bool(row.get("reference")), (row.get("low"), row.get("high"))
    lower, upper = (figure(end, signed=signed, decimals=_DECIMALS) for end in (low, high))
    if signed:
        return (NONE if real(low) is None else f"{lower} to {upper}"), NONE
    return (lower, upper) if any(sign in str(row.get("requirement")) for sign in (">", "≥")) else (upper, lower)


def _value(row: Row) -> str:
    return figure(row.get("value"), signed=bool(row.get("reference")), decimals=_DECIMALS)


def _in_brackets(row: Row) -> str:
    """Write a value with the bound that decides, at the one confidence that this bound has."""
    if real(row.get("value")) is None:
        return " (not shown)"
    passes, fails = _ends(row)
    if row.get("verdict") != NOT_MET or fails == NONE:
        return f" {_value(row)} ({'bounds' if row.get('reference') else 'bound'} {passes})"
    return f" {_value(row)} (bound {fails}, with all groups allowed for at once)"


def grid(result: AuditResult, *, is_met: bool = False) -> Grid:
    """Return the requirements that are met, or those that are not, with the groups that decide them."""
    lines: list[Tr] = []
    for head in (row for row in _heads(result) if (row.get("verdict") == MET) == is_met):
        rows = _groups(result, head)
        lines.append(
            Tr(f"{head.get('requirement')}{of_model(result, head)}: {_sign(head)} ({_confidences(head, rows)})")
        )
        lines += [Tr(_where(result, row), _cells(row)) for row in rows]
    heads = ("Group", "Verdict", "Value", "Passes by", "Fails by", "Rows", "Positives", "Negatives", "Patients", "Why")
    return Grid("Met" if is_met else "Not met, or undecided", heads, tuple(lines), dense=True)


def _confidences(head: Row, rows: list[Row]) -> str:
    """Write the confidence of either bound, one-sided."""
    passes = float(head.get("confidence") or 0)
    fails = 1 - (1 - passes) / max(1, len(rows))
    if fails == passes or (rows and rows[0].get("reference")):
        return f"bounds at {100 * passes:.3g} %"
    return f"passes by its bound at {100 * passes:.3g} %, fails by that at {100 * fails:.4g} %"


def _sign(row: Row) -> str:
    return _SIGNS.get(str(row.get("verdict")), NONE)


def _cells(row: Row) -> tuple[Td, ...]:
    counts = (number(row.get(name)) for name in ("n", "n_pos", "n_neg", "n_patients"))
    return (prose(_sign(row)), *map(Td, (_value(row), *_ends(row), *counts)), prose(str(row.get("reason") or "")))

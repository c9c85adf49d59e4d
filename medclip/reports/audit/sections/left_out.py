"""What was left out, as the page shows it: the flow of rows, who was never scored, and whose truth is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medclip.auditing.input.missing import THIRDS
from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.names import by_attribute, cell_name, is_all, of_model, plain, select, survives
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.wording import (
    NONE,
    capital,
    count,
    list_of,
    number,
    p_value,
    percent,
    real,
    told_apart,
    value_and_interval,
)

_MOST_LABELS = 5
"""Labels that have a row each in the flow on the first page."""


def flow(result: AuditResult) -> Grid:
    """Return the rows that are left after each step, for each model."""
    models = list(result.model_names)
    by_step: dict[tuple[str, str], dict[str, Any]] = {}
    for row in result.flow:
        place = str(row.get("label") or ""), str(row.get("step"))
        by_step.setdefault(place, {})[str(row.get("model"))] = row.get("n")
    lines = [Tr(capital(step), _counts(models, counts)) for (label, step), counts in by_step.items() if not label]
    labels = list(dict.fromkeys(label for label, _ in by_step if label))
    for label in labels[:_MOST_LABELS]:
        steps = [counts for (of, _), counts in by_step.items() if of == label]
        lines.append(Tr(f"{plain(label)}: with a truth → and a score", _counts(models, *steps)))
    rest = len(labels) - _MOST_LABELS
    note = f"{count(rest, 'further label')} in flow.csv" if rest > 0 else ""
    return Grid("Rows that are left after each step", ("Step", *map(plain, models)), tuple(lines), True, note)


def _counts(models: Sequence[str], *steps: Mapping[str, Any]) -> tuple[Td, ...]:
    return tuple(Td(" → ".join(number(counts.get(model)) for counts in steps)) for model in models)


def unscored(result: AuditResult) -> Grid:
    """List by group what share of the labelled rows was never scored, and why; a model that scored all has one line."""
    heads = ("Group", "Labelled rows", "Without a score", "Share", "Minus all others", "p, adjusted", "Why")
    lines: list[Tr] = []
    for model in result.model_names:
        rows = select(result.unscored, model=model)
        if len(result.model_names) > 1 and rows:
            lines.append(Tr(f"Model: {plain(model)}"))
        if any(is_all(row) and row.get("n_unscored") == 0 for row in rows):
            rows = [row for row in rows if is_all(row)]
        lines += by_attribute(rows, lambda name, of_group: [Tr(name, _cells(result, of_group))])
    return Grid("Labelled rows that lack a score", heads, tuple(lines), dense=True)


def unlabelled(result: AuditResult) -> Grid:
    """List for each label what share of the scored rows has none: of everybody, and where that is beyond chance."""
    heads = ("Group", "Scored rows", "Without a label", "Share", "Minus all others", "p, adjusted")
    lines: list[Tr] = []
    for model in result.model_names:
        for label in dict.fromkeys(row.get("label") for row in select(result.unlabelled, model=model)):
            rows = select(result.unlabelled, model=model, label=label)
            lines.append(Tr(f"{plain(label)}{of_model(result, rows[0])}"))
            lines += [
                Tr(_place(row), _numbers(result, row, "n_unlabelled"))
                for row in rows
                if is_all(row) or survives(result, row)
            ]
    return Grid("Scored rows that lack a label", heads, tuple(lines), dense=True)


def _place(row: Row) -> str:
    if row.get("attribute") == THIRDS:
        return capital(f"{row.get('group')} of scores")
    return capital(cell_name(row))


def findings(result: AuditResult) -> list[Finding]:
    """Return the groups whose rows lack a score more often than those of all others, beyond chance."""
    tests = sum(real(row.get("p")) is not None for row in result.unscored)
    per_model = tests // max(1, len(result.model_names))
    return [
        _finding(result, row, per_model)
        for row in result.unscored
        if survives(result, row) and (real(row.get("difference")) or 0) > 0
    ]


def unscored_sentences(result: AuditResult) -> Iterator[str]:
    """Yield for each model how many labelled rows have no score, and why."""
    for row in result.unscored:
        if is_all(row) and not row.get("reason") and real(row.get("value")):
            why = _why(result, row)
            yield (
                f"{percent(row['value'])} of {count(int(row.get('n') or 0), 'labelled row')} lack a score"
                f"{of_model(result, row)}{f' ({why})' if why else ''}: how the model does for them is not known."
            )


def _cells(result: AuditResult, rows: list[Row]) -> tuple[Td, ...]:
    row = next((r for r in rows if not r.get("reason")), rows[0])
    if row.get("flag") == "suppressed":
        return (Td("not shown", css="quiet"), *(Td(NONE, css="quiet") for _ in range(4)), prose(""))
    return (*_numbers(result, row, "n_unscored"), prose(_why(result, row)))


def _numbers(result: AuditResult, row: Row, column: str) -> tuple[Td, ...]:
    """Write rows, how many of them lack something (`column`), their share, and its difference from all others."""
    share, around = value_and_interval(row.get("value"), row.get("low"), row.get("high"))
    difference, between = _difference(row)
    sign = "▲ " if survives(result, row) else ""
    numbers = (Td(number(row.get("n"))), Td(_few(row, column)), Td(share, (around,)))
    tested = "" if real(row.get("p")) is None else f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}"
    apart = NONE if is_all(row) else f"{sign}{difference}"
    return (*numbers, Td(apart, (between,) if not is_all(row) else ()), Td(tested or NONE))


def _difference(row: Row) -> tuple[str, str]:
    return value_and_interval(row.get("difference"), row.get("difference_low"), row.get("difference_high"), signed=True)


def _why(result: AuditResult, row: Row) -> str:
    """Write the reasons of a group, with their counts where these may be shown."""
    of_group = select(result.unscored, **{name: row.get(name) for name in ("model", "attribute", "group")})
    return list_of([f"{plain(r['reason'])} {_few(r)}" for r in of_group if r.get("reason")], most=4)


def _few(row: Row, column: str = "n_unscored") -> str:
    """Write a count; a small one is not exported."""
    return "few" if row.get(column) is None else number(row[column])


def _finding(result: AuditResult, row: Row, tests: int) -> Finding:
    share, others = float(row["value"]), float(row["value"]) - float(row["difference"])
    size, around = _difference(row)
    why = _why(result, row)
    counts = count(int(row.get("n") or 0), "labelled row") + (
        "" if row.get("n_patients") is None else f", {count(int(row['n_patients']), 'patient')}"
    )
    none = round(others, 9) <= 0 and result.settings.get("counts") == "exact"  # not where few are rounded to none
    texts = told_apart(share, max(others, 0.0), is_share=True)
    against = f"{texts[0]} against {'none' if none else texts[1]} in all others"
    adjusted = f"after adjusting for {count(tests, 'test')} {p_value(row.get('p_holm'))}"
    return Finding(
        Harm.UNSCORED,
        f"Scores are missing more often in {cell_name(row)}{of_model(result, row)}: {against}, a difference of {size} "
        f"({around}); {counts}{f' ({why})' if why else ''}; p\u00a0{p_value(row.get('p'))}, {adjusted}.",
        float(row["difference"]),
        what=f"{capital(cell_name(row))}{of_model(result, row)}: without a score",
        value=against,
        difference=f"{size} ({around})",
        counts=counts,
        p=f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
    )

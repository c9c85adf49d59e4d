"""Gradings in ordered classes on the page: findings by group, sentences, and one table for each grading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.findings import Finding, Harm
from medclip.reports.audit.mechanisms import Mechanism, mechanisms
from medclip.reports.audit.names import (
    alone_and_adjusted,
    by_attribute,
    cell_name,
    counts_of,
    group_cell,
    is_all,
    of_model,
    plain,
    select,
    survives,
    with_interval,
)
from medclip.reports.html_page import Grid, Td, Tr
from medclip.statistics.metrics.grading_agreement import KAPPA, METRICS
from medclip.wording import capital, list_of, number, p_value, real, told_apart

_MEANS = {
    "one_down": (Harm.MISSED, 1, "is graded one class too low {more} often in {cell}"),
    "one_up": (Harm.FALSE_ALARM, 1, "is graded one class too high {more} often in {cell}"),
    "exact": (Harm.RANKING, -1, "is graded right {more} often in {cell}"),
    "within_one": (Harm.RANKING, -1, "is graded within one class {more} often in {cell}"),
    KAPPA: (Harm.RANKING, -1, "is graded with {more} agreement (quadratic kappa) in {cell}"),
}
"""What a difference does to patients, which sign of it is worse, and how it is said."""


Means = Mapping[str, tuple[Harm, int, str]]


def findings(result: AuditResult) -> list[Finding]:
    """Return what makes a group fare worse than all others and survives its family, each mechanism once."""
    return findings_of(result, result.ordinal, _MEANS, METRICS)


def findings_of(result: AuditResult, rows: Sequence[Row], means: Means, titles: Mapping[str, str]) -> list[Finding]:
    """Return such findings from the rows of a table.

    Args:
        result: The audit.
        rows: Values, and differences from all others, which have a `reference`.
        means: For each metric the harm of a difference, the sign that is worse, and how it is said of {cell}.
        titles: Names of the metrics.
    """

    def harm_of(row: Row) -> int | None:
        harm, worse, _ = means[str(row.get("metric"))]
        return harm if float(row["value"]) * worse > 0 else None

    differences, values = ([row for row in rows if bool(row.get("reference")) == is_one] for is_one in (True, False))
    every = mechanisms(differences, values, lambda row: survives(result, row), harm_of)
    return [_finding(result, one, values, means, titles) for one in every]


def _finding(
    result: AuditResult, one: Mechanism, values: Sequence[Row], means: Means, titles: Mapping[str, str]
) -> Finding:
    row = one.lead
    harm, worse, words = means[str(row.get("metric"))]
    value = float(row["value"])
    text = words.format(more="more" if value > 0 else "less", cell=cell_name(row))
    place = {name: row.get(name) for name in ("model", "label", "attribute", "group", "metric")}
    of_group = next(iter(select(values, **place)), {})
    grade = real(of_group.get("value"))
    against = "" if grade is None else f"{' against '.join(told_apart(grade, grade - value))}, "
    people = "".join(f"; {counted}" for counted in counts_of(of_group, ("n", "row"), ("n_patients", "patient")))
    besides = [f"{titles[str(r['metric'])]} {with_interval(r, signed=True)}" for r in (*one.rows[1:], *one.beside)]
    with_it = f"; with it {list_of(besides)}" if besides else ""
    sentence = (
        f"{capital(plain(row.get('label')))} {text} than in all others{of_model(result, row)}: {against}difference "
        f"{with_interval(row, signed=True)}{with_it}{people}; {alone_and_adjusted(row)}."
    )
    name = titles[str(row["metric"])]
    return Finding(
        harm,
        sentence,
        value * worse,
        what=f"{capital(plain(row.get('label')))}, {cell_name(row)}{of_model(result, row)}: {name}",
        value=against.removesuffix(", "),
        difference=with_interval(row, signed=True),
        counts=people.removeprefix("; ").replace("; ", ", "),
        p=f"{p_value(row.get('p'))}, {p_value(row.get('p_holm'))}",
        row=row,
    )


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return the agreement of each grading over everybody."""
    sentences = []
    for model in result.model_names:
        for label in dict.fromkeys(row.get("label") for row in select(result.ordinal, model=model)):
            everybody = [row for row in select(result.ordinal, model=model, label=label) if is_all(row)]
            measured = [row for row in everybody if real(row.get("value")) is not None]
            if measured:
                figures = list_of([f"{METRICS[str(row['metric'])]} {with_interval(row)}" for row in measured])
                name = f"{plain(label)}{of_model(result, everybody[0])}"
                sentences.append(f"{name}, {number(everybody[0].get('n_patients'))} patients: {figures}.")
    return tuple(sentences)


def grids(result: AuditResult) -> tuple[Grid, ...]:
    """Return the measures of each grading by group, with the difference of kappa from all others."""
    keys = dict.fromkeys((row.get("model"), row.get("label")) for row in result.ordinal)
    return tuple(_grid(result, select(result.ordinal, model=model, label=label)) for model, label in keys)


def _grid(result: AuditResult, rows: list[Row]) -> Grid:
    heads = ("Group", "Rows", "Patients", *(capital(words) for words in METRICS.values()), "Kappa, minus the rest")
    caption = f"{capital(plain(rows[0].get('label')))}{of_model(result, rows[0])}: agreement by group"
    return Grid(caption, heads, by_attribute(rows, lambda name, of_group: [_line(name, of_group)]), dense=True)


def _line(name: str, rows: list[Row]) -> Tr:
    by_metric = {row["metric"]: row for row in rows if not row.get("reference")}
    apart = next((row for row in select(rows, metric=KAPPA) if row.get("reference")), {})
    counts = [Td(number(rows[0].get(key))) for key in ("n", "n_patients")]
    figures = [group_cell(by_metric.get(metric, {})) for metric in METRICS]
    return Tr(name, (*counts, *figures, group_cell(apart, signed=True)))

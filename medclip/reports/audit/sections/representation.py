"""Whether the audited patients look like those of a reference: a sentence for each attribute, and one table."""

from __future__ import annotations

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import by_attribute, group_cell, group_name, plain, select
from medclip.reports.html_page import Grid, Td, Tr
from medclip.statistics.cohort import ALL
from medclip.wording import capital, figure, list_of, number, real, told_apart

_APART = 0.1
"""A standardised difference that is named; smaller ones are commonly taken as small (Austin 2009)."""


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return how far each attribute is from the reference, and which groups are too many or too few."""
    sentences = []
    for row in select(_first(result), group=ALL):
        distance, by_chance = real(row.get("distance")) or 0.0, real(row.get("distance_by_chance")) or 0.0
        chance = "more than" if distance > by_chance else "no more than"
        named = [
            f"{group_name(one)} {' against '.join(told_apart(one['value'], one['reference'], is_share=True))}"
            for one in select(_first(result), attribute=row.get("attribute"))
            if real(one.get("standardised")) is not None and abs(one["standardised"]) > _APART
        ]
        apart = f" Apart by more than {_APART:g} standardised: {list_of(named)}."
        sentences.append(
            f"{capital(plain(row.get('attribute')))}: Jensen–Shannon distance {figure(distance)} from the reference, "
            f"{chance} chance would give ({figure(by_chance)}).{apart if named and distance > by_chance else ''}"
        )
    return tuple(sentences)


def _first(result: AuditResult) -> list[Row]:
    """Return the rows of the first model: all are audited on the same tables."""
    return select(result.representation, model=result.model_names[0] if result.model_names else None)


def grid(result: AuditResult) -> Grid:
    """Return the share of each group beside its reference."""
    rows = [row for row in _first(result) if row.get("group") != ALL]
    heads = ("Group", "Share of patients", "Reference", "Standardised difference", "Patients")
    lines = by_attribute(rows, lambda name, of_group: [Tr(name, _cells(row)) for row in of_group])
    return Grid("Audited patients beside the reference", heads, lines, dense=True)


def _cells(row: Row) -> tuple[Td, ...]:
    apart = figure(row.get("standardised"), signed=True)
    texts = (figure(row.get("reference")), apart, number(row.get("n_patients")))
    return (group_cell(row), *map(Td, texts))

"""Whether the audited patients look like those of a reference: a sentence for each attribute, and one table."""

from __future__ import annotations

from medclip.auditing.result import AuditResult, Row
from medclip.reports.audit.names import group_name, parts, plain
from medclip.reports.audit.table import Grid, Td, Tr
from medclip.statistics.cohort import ALL
from medclip.wording import capital, figure, list_of, number, percent, real

_APART = 0.1
"""A standardised difference that is named; smaller ones are commonly taken as small (Austin 2009)."""


def answers(result: AuditResult) -> tuple[str, ...]:
    """Return how far each attribute is from the reference, and which groups are too many or too few."""
    sentences = []
    for row in _first(result):
        if row.get("group") != ALL:
            continue
        distance, by_chance = real(row.get("distance")) or 0.0, real(row.get("distance_by_chance")) or 0.0
        chance = "more than" if distance > by_chance else "no more than"
        named = [
            f"{group_name(one)} {percent(one['value'])} against {percent(one['reference'])}"
            for one in _first(result)
            if one.get("attribute") == row.get("attribute")
            and real(one.get("standardised")) is not None
            and abs(one["standardised"]) > _APART
        ]
        apart = (
            f" Apart by more than {_APART:g} standardised: {list_of(named)}." if named and distance > by_chance else ""
        )
        sentences.append(
            f"{capital(plain(row.get('attribute')))}: Jensen–Shannon distance {figure(distance)} from the reference, "
            f"{chance} chance would give ({figure(by_chance)}).{apart}"
        )
    return tuple(sentences)


def _first(result: AuditResult) -> list[Row]:
    """Return the rows of the first model: all are audited on the same tables."""
    model = result.model_names[0] if result.model_names else None
    return [row for row in result.representation if row.get("model") == model]


def grid(result: AuditResult) -> Grid:
    """Return the share of each group beside its reference."""
    lines: list[Tr] = []
    attribute = None
    for row in _first(result):
        if row.get("group") == ALL:
            continue
        if attribute != (attribute := row.get("attribute")):
            lines.append(Tr(capital(plain(attribute))))
        value, around = parts(row)
        value = "not shown" if row.get("flag") == "suppressed" else value
        cells = (
            Td(value, (around,) if around else ()),
            Td(figure(row.get("reference"))),
            Td(figure(row.get("standardised"), signed=True)),
            Td(number(row.get("n_patients"))),
        )
        lines.append(Tr(group_name(row), cells))
    heads = ("Group", "Share of patients", "Reference", "Standardised difference", "Patients")
    return Grid("Audited patients beside the reference", heads, tuple(lines), dense=True)

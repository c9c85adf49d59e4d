"""How the audit was made, what it cannot tell, and where it comes from.

Formulas and references of all that is on the page; command, date, inputs and what was asked, with their hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medclip.auditing.groups.gaps import gap_info, gap_names
from medclip.auditing.option_groups import DEFAULTS
from medclip.auditing.result import AuditResult
from medclip.reports.audit.names import gap_head, metric_head, plain
from medclip.reports.html_page import Grid, Td, Tr, prose
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.metrics.grading_agreement import FORMULAS
from medclip.statistics.metrics.grading_agreement import METRICS as GRADES
from medclip.wording import NONE, capital, list_of, number

LIMITS = (
    "That the scores are safe, or do equally well for everybody. A gap that was not found may be there; tables "
    "say how large one had to be to be seen.",
    "Anything about groups that the table does not name, that are too small to be shown, or whose attribute is blank.",
    "Whether the truth itself is equally good for all groups. Labels taken from reports carry the habits of those who "
    "wrote them; a disease that is missed more often in one group is missing from its labels too.",
    "Why a gap is there. Age, view, scanner, stage of disease and prevalence go together; a gap by one may be due to "
    "another.",
    "How the scores do in another hospital, on other machines, or next year.",
    "Whether equal error rates, equal calibration and equal selection are right here. Where prevalence differs, they "
    "cannot all hold at once; which one matters is for people to decide.",
    "What happens when somebody acts on the scores. Nobody was treated on the basis of what is audited here.",
)
"""What this audit cannot tell you."""


NO_HASH = "0" * 64
"""Stands for the hash of the page until the page is there."""
_SHOWN_BEFORE = frozenset(
    {"date", "auditor", "question", "command", "software", "inputs", "recipe", "recipe_file", "declared", "version"}
)
_ASKED = {
    "Filters": ("where", "score_where", "choose_where"),
    "Joined by": ("level", "key", "match", "repeat_labels", "patient", "rows_are_patients"),
    "What labels mean": ("uncertain", "blank", "no_finding", "value"),
    "Groups": ("age_bins", "age_unit", "bins", "all_pairs"),
    "Thresholds": ("threshold", "thresholds", "choose_on", "choose_labels", "policy"),
}


_EQUITY = {
    "Worst group": (
        "min A_a over groups a; interval from intervals of the groups that hold together",
        "Jin et al., FairMedFM, NeurIPS Datasets and Benchmarks (2024)",
    ),
    "Equity-scaled": (
        "A / (1 + sum |A_a - A|), A of everybody; chance alone makes it smaller",
        "Luo et al., IEEE Trans. Med. Imaging 43:2806 (2024)",
    ),
    "Tolerance": (
        "rate of a group / rate of the largest group, within t to 1/t",
        "Saleiro et al., Aequitas, arXiv 1811.05577 (2018)",
    ),
}


def formulas(result: AuditResult) -> tuple[Grid, ...]:
    """Return the formula and the reference of every measure and gap of the audit."""
    metrics = [m for m in METRICS if any(row.get("metric") == m for row in (*result.metrics, *result.models))]
    gaps = [name for name in gap_names() if any(row.get("gap") == name for row in result.gaps)]
    heads = ("Name", "Formula", "Reference")
    measures = tuple(
        Tr(capital(metric_head(name)), (prose(METRICS[name].formula), prose(METRICS[name].reference)))
        for name in metrics
    )
    grades = [name for name in FORMULAS if any(row.get("metric") == name for row in result.ordinal)]
    measures += tuple(Tr(capital(GRADES[name]), tuple(map(prose, FORMULAS[name]))) for name in grades)
    if result.equity:
        measures += tuple(Tr(head, tuple(map(prose, words))) for head, words in _EQUITY.items())
    lines: dict[str, tuple[str, str]] = {}
    for name in gaps:
        head, formula = _kind_of_gap(name)
        info = gap_info(name)
        lines.setdefault(head, (formula, "of the measure") if formula else (info.formula, info.reference))
    differences = tuple(Tr(capital(head), tuple(map(prose, cells))) for head, cells in lines.items())
    return (Grid("Measures", heads, measures), Grid("Gaps", heads, differences))


_KINDS_OF_GAP = {
    "_max_min": ("a measure m, highest − lowest", "max m_a − min m_a"),
    "_worst_overall": ("a measure m, worst − everybody", "the largest m_a − m, or m − min m_a where high is good"),
}


def _kind_of_gap(name: str) -> tuple[str, str]:
    """Name a gap for the formulas, with that of its kind: those that differ by their measure stand there once."""
    return next((kind for ending, kind in _KINDS_OF_GAP.items() if name.endswith(ending)), (gap_head(name), ""))


def origin(result: AuditResult) -> Iterator[tuple[str, str]]:
    """Yield what was asked by whom and when, and the settings."""
    about = result.provenance
    for head in ("question", "auditor", "date", "command"):
        if about.get(head):
            yield head.capitalize(), str(about[head])
    if about.get("software"):
        yield "Software", ", ".join(f"{name} {text}" for name, text in about["software"].items() if text)
    yield from _declared(about)
    recipe = about.get("recipe")
    if isinstance(recipe, Mapping):
        for head, names in _ASKED.items():
            yield head, ", ".join(_option(name, recipe) for name in names if _option(name, recipe)) or "none named"
    rest = {name: value for name, value in about.items() if name not in _SHOWN_BEFORE}
    yield from _flat({**result.settings, **rest})


def inputs(result: AuditResult) -> Grid:
    """List the files that were read, with size and SHA-256."""
    lines = tuple(
        Tr(
            plain(row.get("name")),
            (
                prose(plain(str(row.get("for")).partition(":")[0])),
                Td(number(row.get("size"))),
                prose(str(row.get("sha256") or NONE)),
            ),
        )
        for row in result.provenance.get("inputs") or ()
    )
    return Grid("What was read", ("File", "As", "Bytes", "SHA-256"), lines, dense=True)


def hashes(result: AuditResult) -> tuple[tuple[str, str], ...]:
    """Return the SHA-256 that stand beside the signatures; that of the page has a line of its own."""
    sealed = result.sealed
    return (("Tables", sealed["tables"]), ("What was asked", sealed["recipe"])) if sealed else ()


def _declared(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    declared, file = about.get("declared"), about.get("recipe_file")
    if not file:
        return
    name = f", by {declared['by']}" if declared and declared.get("by") else ""
    when = f"declared on {declared['date']}{name}" if declared and declared.get("date") else "without a date"
    keys = file.get("overridden") or []
    changed = f"; changed when it was run: {list_of([plain(key) for key in keys])}" if keys else ""
    yield "Recipe", f"{file.get('name')}, {when}{changed}; SHA-256 {file.get('sha256')}"


def _option(name: str, recipe: Mapping[str, Any]) -> str:
    """Write an option with its value, also where it is the default; blank where it is none."""
    value = recipe.get(name, DEFAULTS.get(name))
    if value in (None, False, [], ()):
        return ""
    text = " and ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(name) if value is True else f"{plain(name)} {text}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Write nested settings as lines."""
    for key, value in values.items():
        name = f"{before}{plain(key)}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            listed = isinstance(value, (list, tuple))
            text = ", ".join(map(str, value)) if listed else "not set" if value is None else str(value)
            yield name, text or "none"

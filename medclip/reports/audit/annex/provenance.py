"""Where an audit comes from, as the page shows it: command, date, inputs and what was asked, with their hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medclip.auditing.option_groups import DEFAULTS
from medclip.auditing.result import AuditResult
from medclip.reports.audit.names import plain
from medclip.reports.audit.table import Grid, Td, Tr, said
from medclip.wording import NONE, list_of, number

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


def facts(result: AuditResult) -> Iterator[tuple[str, str]]:
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
                said(plain(str(row.get("for")).partition(":")[0])),
                Td(number(row.get("size"))),
                said(str(row.get("sha256") or NONE)),
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

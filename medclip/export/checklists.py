"""Reporting checklists filled with what an audit knows: TRIPOD+AI and CLAIM, as Markdown.

Every item of the published list is there by its number, in words of our own, with what this run knows of it or "not
known to this run". What is not known is for the authors: how the model was made, why, and with whom.

References: Collins et al., TRIPOD+AI statement, BMJ 385 (2024) e078378 (27 items); Mongan, Moy & Kahn, Checklist for
Artificial Intelligence in Medical Imaging (CLAIM), Radiology: Artificial Intelligence 2 (2020) e200029 (42 items).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medclip.auditing.result import AuditResult
from medclip.export.checklist_items import CLAIM, TRIPOD_AI, Item
from medclip.wording import list_of

NOT_KNOWN = "not known to this run"
_SPECIAL = "\\`*_[]<>|#"


@dataclass(frozen=True)
class _Checklist:
    title: str
    source: str
    items: tuple[Item, ...]


_TRIPOD = _Checklist(
    "TRIPOD+AI", "Collins et al., BMJ 385 (2024) e078378. Items in words of our own; D: development.", TRIPOD_AI
)
_CLAIM = _Checklist(
    "CLAIM",
    "Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2 (2020) e200029. Items in words of our own.",
    CLAIM,
)


def tripod_checklist(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Fill TRIPOD+AI: Markdown, a table with number, item, and what this run knows."""
    return _filled(_TRIPOD, result, sentences)


def claim_checklist(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Fill CLAIM, likewise."""
    return _filled(_CLAIM, result, sentences)


def _filled(form: _Checklist, result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    known = facts(result, sentences)
    answers = [" ".join(text for key in item.facts if (text := known.get(key))) for item in form.items]
    num_known = sum(bool(answer) for answer in answers)
    version = result.provenance.get("version", "")
    about = (
        f"Filled from an audit of {_names(result)} by medclip {version}. It knows something of {num_known} of "
        f"{len(form.items)} items; the others are for the authors. An entry is a beginning, not a finished report."
    )
    lines = [f"# {form.title}", "", _escaped(about), "", f"Source: {form.source}", ""]
    lines += ["| item | what is asked | what this run knows |", "| --- | --- | --- |"]
    lines += [
        f"| {item.number} | {item.text} | {_escaped(answer) if answer else NOT_KNOWN} |"
        for item, answer in zip(form.items, answers, strict=True)
    ]
    return "\n".join(lines) + "\n"


def facts(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return what the run knows, by the names that items ask for; what it does not know is not there."""
    about, settings = result.provenance, result.settings

    def under(*heads: str) -> str:
        return " ".join(sentence for head in heads for sentence in sentences.get(head, ()))

    inputs = [f"{one.get('for')} {one.get('name')}" for one in about.get("inputs") or ()]
    software = about.get("software") or {"medclip": about.get("version")}
    known = {
        "title": f"An evaluation (audit) of {_names(result)} by patient group." if result.model_names else "",
        "abstract": under("What was found"),
        "question": str(about.get("question") or ""),
        "primary": list_of(_declared(result)),
        "sources": f"Tables: {list_of(inputs)}." if inputs else "",
        "representative": under("Representativeness"),
        "selected": _selection(about.get("recipe") or {}),
        "size": under("Size"),
        "flow": under("Never scored", "Size"),
        "missing": under("Never scored") + "".join(f" {note}" for note in result.notes if "Left out" in note),
        "groups": f"Groups by {list_of(list(result.attributes))}." if result.attributes else "",
        "outcome": f"Labels as the table states them: {list_of(list(result.labels))}." if result.labels else "",
        "output": _output(result),
        "measures": _measures(result),
        "intervals": _intervals(settings),
        "overall": under("Overall", "Ordered classes", "Risk by year"),
        "found": under("What was found"),
        "unseen": under("What could not have been seen", "Groups that are not shown"),
        "thresholds": under("Thresholds"),
        "leakage": under("Leakage"),
        "shortcuts": under("Sources", "Shortcuts"),
        "limits": under("Limits"),
        "software": f"{list_of([f'{name} {version}' for name, version in software.items() if version])}.",
        "recorded": "Command, options, versions, names and SHA-256 of the inputs stand in audit.json beside this file.",
        "models": under("Models compared"),
    }
    return {name: text.strip() for name, text in known.items() if text.strip(" .")}


def _names(result: AuditResult) -> str:
    return list_of(list(result.model_names)) or "scores"


def _declared(result: AuditResult) -> list[str]:
    heads = [str(row.get("requirement")) for row in result.requirements if row.get("part") == "requirement"]
    texts = [f"required beforehand: {text}" for text in dict.fromkeys(heads)]
    tested = [r for r in result.gaps if str(r.get("family")).startswith("primary") and not r.get("same_as")]
    primary = dict.fromkeys(
        f"{str(row.get('gap')).removesuffix('_max_min')} gap of {row.get('label')} by {row.get('attribute')}"
        for row in tested
    )
    return texts + [f"primary hypothesis: {text}" for text in primary]


def _selection(recipe: Mapping[str, object]) -> str:
    parts = [f"{name.replace('_', ' ')} {recipe[name]}" for name in ("where", "score_where") if recipe.get(name)]
    return f"Rows were selected by {list_of(parts)}." if parts else ""


def _output(result: AuditResult) -> str:
    parts = [f"a score for each of {list_of(list(result.labels))}"] if result.labels else []
    if result.ordinal:
        parts.append(f"a class of {list_of(list(dict.fromkeys(str(row.get('label')) for row in result.ordinal)))}")
    return f"The model gives {list_of(parts)}." if parts else ""


def _measures(result: AuditResult) -> str:
    names = list(dict.fromkeys(str(row.get("metric")).replace("_", " ") for row in (*result.metrics, *result.ordinal)))
    return f"Measured: {list_of(names)}." if names else ""


def _intervals(settings: Mapping[str, object]) -> str:
    if not settings.get("replicates"):
        return ""
    return (
        f"95 % intervals from {settings['replicates']} resamples of patients; gaps tested by "
        f"{settings.get('permutations')} shuffles of groups; p adjusted by Holm, and by Benjamini and Hochberg."
    )


def _escaped(text: str) -> str:
    """Write text so that a Markdown table takes it as text."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in " ".join(text.split()))

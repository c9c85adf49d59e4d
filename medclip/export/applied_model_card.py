"""An audit as the Applied Model Card of the Coalition for Health AI: XML by its schema v0.2.

An audit knows how scores do on its patients. It does not know who made the model, for what, or at what risk: such
fields say "not stated", and whoever fills them in signs for them. Nothing is guessed.

Reference: https://mc.chai.org/v0.2/schema.xsd (© 2024 Coalition for Health AI, free to use).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from medclip.auditing.result import AuditResult, Row
from medclip.statistics.cohort import ALL
from medclip.statistics.metrics.catalogue import Metric, names_of
from medclip.wording import in_markdown, list_of, real

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
NOT_STATED = "not stated"
_UNPRINTABLE = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""
_PURPOSES = "For research. Not a medical device."


def applied_model_card(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> str:
    """Write the card.

    Args:
        result: The audit.
        sentences: Sentences of the audit's summary, by heading.

    Returns:
        XML; the same audit gives the same text.
    """
    ElementTree.register_namespace("", NAMESPACE)
    card = ElementTree.Element(f"{{{NAMESPACE}}}AppliedModelCard")
    for name, content in _card(result, sentences).items():
        _add(card, name, content)
    ElementTree.indent(card)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(card, encoding="unicode")}\n'


def _add(parent: ElementTree.Element, name: str, content: Any) -> None:
    """Add a text, the elements of a mapping, or one element for each of a list."""
    for one in content if isinstance(content, list) else [content]:
        element = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
        if isinstance(one, Mapping):
            for inner, value in one.items():
                _add(element, str(inner), value)
        else:
            element.text = _UNPRINTABLE.sub("?", str(one))


def _card(result: AuditResult, sentences: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the card as nested values, in the order of the schema."""
    about = result.provenance
    question = str(about.get("question") or "Does it work for every patient group, and how sure is that?")
    population = _text(sentences, "Size", "Representativeness")
    overall = list(_estimates(result, lambda m: m.on_card and m.what != "calibration", {ALL}))
    calibrated = _estimates(result, lambda m: m.on_card and m.what == "calibration", {ALL})
    groups = {str(row.get("attribute")) for row in result.metrics} - {ALL}
    return {
        "BasicInfo": {
            "ModelName": list_of(list(result.model_names)) or NOT_STATED,
            "ModelDeveloper": NOT_STATED,
            "DeveloperContact": NOT_STATED,
        },
        "ReleaseInfo": {
            "ReleaseStage": NOT_STATED,
            "ReleaseDate": NOT_STATED,
            "ReleaseVersion": NOT_STATED,
            "GlobalAvailability": NOT_STATED,
        },
        "ModelSummary": {
            "Summary": " ".join([_PURPOSES, *(in_markdown(s, one_line=True) for s in sentences.get("Size", ()))]),
            "Keywords": {"Keyword": [*result.labels]} if result.labels else "",
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": NOT_STATED,
            "PrimaryIntendedUsers": NOT_STATED,
            "HowToUse": NOT_STATED,
            "TargetedPatientPopulation": NOT_STATED,
            "CautionedOutOfScopeSettings": NOT_STATED,
        },
        "Warnings": {
            "KnownRisksAndLimitations": _text(sentences, "Limits", "Groups that are not shown", "Leakage", "Sources"),
            "KnownBiasesOrEthicalConsiderations": _text(sentences, "What was found", "What could not have been seen"),
            "ClinicalRiskLevel": NOT_STATED,
        },
        "TrustIngredients": {
            "AISystemFacts": {
                "OutcomesAndOutputs": f"Scores for {list_of(list(result.labels)) or NOT_STATED}",
                "ModelType": NOT_STATED,
                "InputDataSource": NOT_STATED,
                "OutputAndInputDataTypes": NOT_STATED,
                "DevelopmentDataCharacterization": NOT_STATED,
                "BiasMitigationApproaches": NOT_STATED,
                "OngoingMaintenance": NOT_STATED,
            },
            "TransparencyInformation": {"FundingSource": NOT_STATED, "StakeholdersConsulted": NOT_STATED},
        },
        "KeyMetrics": {
            "UsefulnessUsabilityEfficacy": _metric(
                question, overall, _text(sentences, "Overall"), population, _text(sentences, "Thresholds")
            ),
            "FairnessEquity": _metric(
                "The model does as well for every patient group.",
                list(_estimates(result, lambda m: m.main, groups)),
                _text(sentences, "What was found", "What could not have been seen"),
                population,
                "Groups are compared with all others; intervals resample patients, p is adjusted (Holm).",
            ),
            "SafetyReliability": _metric(
                "Scores mean what they say, and what was declared beforehand is met.",
                [*calibrated, *_requirements(result)],
                _text(sentences, "Declared beforehand", "Sources", "Leakage"),
                population,
                _text(sentences, "Thresholds"),
            ),
        },
        "Resources": {"PeerReviewedPublications": NOT_STATED, "PatientConsentOrDisclosure": NOT_STATED},
        "Bibliography": "",
    }


def _text(sentences: Mapping[str, Sequence[str]], *heads: str) -> str:
    """Join the sentences under some headings; fields of the card are Markdown."""
    lines = [f"- {in_markdown(sentence, one_line=True)}" for head in heads for sentence in sentences.get(head, ())]
    return "\n".join(lines) or NOT_STATED


def _metric(goal: str, results: list[dict[str, str]], meaning: str, population: str, reasons: str) -> dict[str, Any]:
    nothing = [{"Label": NOT_STATED, "ValueJson": json.dumps({"kind": "single", "value": NOT_STATED})}]
    return {
        "MetricGoal": goal,
        "Results": {"MetricResult": results or nothing},
        "Interpretation": meaning,
        "TestType": "Retrospective, on the patients of a table",
        "TestingDataDescription": population,
        "ValidationProcessAndJustification": reasons,
    }


def _estimates(
    result: AuditResult, is_wanted: Callable[[Metric], bool], attributes: set[str]
) -> Iterator[dict[str, str]]:
    wanted = names_of(is_wanted)
    for row in result.metrics:
        if row.get("metric") in wanted and row.get("attribute") in attributes and real(row.get("value")) is not None:
            yield _estimate(row, str(row.get("metric")))


def _estimate(row: Row, metric: str) -> dict[str, str]:
    group = "everybody" if row.get("attribute") == ALL else f"{row.get('attribute')} {row.get('group')}"
    label = f"{row.get('model')}: {metric}, {row.get('label')}, {group}"
    value, low, high = (real(row.get(name)) for name in ("value", "low", "high"))
    if low is None or high is None:
        return {"Label": label, "ValueJson": json.dumps({"kind": "single", "value": value})}
    estimate = {"kind": "estimate_ci", "estimate": value, "lower": low, "upper": high, "level": 95}
    return {"Label": label, "ValueJson": json.dumps(estimate)}


def _requirements(result: AuditResult) -> Iterator[dict[str, str]]:
    for row in result.requirements:
        if row.get("part") == "requirement":
            label = f"{row.get('model')}: required {row.get('requirement')}"
            yield {"Label": label, "ValueJson": json.dumps({"kind": "single", "value": row.get("verdict")})}

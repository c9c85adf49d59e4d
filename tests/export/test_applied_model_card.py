"""CHAI's Applied Model Card: valid by its schema, and silent where nothing is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from medclip.auditing.result import AuditResult
from medclip.export.applied_model_card import NAMESPACE, NOT_STATED, applied_model_card
from medclip.reports.audit.summary import summary
from tests.kits.audit_report import EVIL, full

XS = "{http://www.w3.org/2001/XMLSchema}"


def card(result: AuditResult) -> ElementTree.Element:
    text = applied_model_card(result, {matter.head: matter.all for matter in summary(result)})
    return ElementTree.fromstring(text.partition("\n")[2])


def find(root: ElementTree.Element, path: str) -> str:
    element = root.find("/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/")))
    assert element is not None, path
    return element.text or ""


class Schema:
    """What of XSD the published schema uses: elements in sequences of named and of nameless types."""

    def __init__(self, path: Path) -> None:
        self.root = ElementTree.parse(path).getroot()
        self.types = {t.get("name"): t for t in self.root.findall(f"{XS}complexType")}

    def faults(self, element: ElementTree.Element, declared: ElementTree.Element) -> list[str]:
        kind = declared.find(f"{XS}complexType")
        kind = self.types.get((declared.get("type") or "").removeprefix("mc:")) if kind is None else kind
        if kind is None:
            return [] if not len(element) else [f"{element.tag} has children"]
        sequence = kind.find(f"{XS}sequence")
        assert sequence is not None
        repeats = sequence.get("maxOccurs") == "unbounded"
        wanted, faults, children = list(sequence), [], list(element)
        while True:
            before = len(children)
            for one in wanted:
                most = float("inf") if one.get("maxOccurs") == "unbounded" else int(one.get("maxOccurs", 1))
                taken = 0
                while children and taken < most and children[0].tag == f"{{{NAMESPACE}}}{one.get('name')}":
                    faults += self.faults(children.pop(0), one)
                    taken += 1
                if taken < int(one.get("minOccurs", 1)) and not (repeats and before == 0):
                    faults.append(f"{element.tag} lacks {one.get('name')}")
            if not repeats or not children or len(children) == before:
                break
        return [*faults, *(f"{element.tag} has {child.tag}" for child in children)]


@pytest.mark.shared
@pytest.mark.parametrize("result", [full(), full(models=("a", "b")), AuditResult()], ids=["one", "two", "empty"])
def test_it_is_valid_by_the_published_schema(result: AuditResult, shared: Path):
    schema = Schema(shared / "specs/evaluation/chai/schema.xsd")
    top = schema.root.find(f"{XS}element")
    assert top is not None
    root = card(result)
    assert schema.faults(root, top) == []
    root[2].append(ElementTree.Element(f"{{{NAMESPACE}}}Unknown"))
    del root[0][1]
    assert len(schema.faults(root, top)) >= 2  # the check sees what is wrong


def test_what_no_audit_knows_is_not_stated():
    root = card(full())
    for path in ("BasicInfo/ModelDeveloper", "UsesAndDirections/IntendedUseAndWorkflow", "Warnings/ClinicalRiskLevel"):
        assert find(root, path) == NOT_STATED
    assert find(root, "BasicInfo/ModelName") == "medclip-mini"
    assert "not a medical device" in find(root, "ModelSummary/Summary").lower()


def test_figures_stand_in_the_card_with_their_intervals():
    result = full()
    results = card(result).findall(f".//{{{NAMESPACE}}}MetricResult")
    values = {r[0].text: json.loads(r[1].text or "") for r in results}
    row = next(r for r in result.metrics if r["metric"] == "tpr" and r["group"] == "female")
    shown = values[f"medclip-mini: tpr, {row['label']}, sex female"]
    assert (shown["estimate"], shown["lower"], shown["upper"]) == (row["value"], row["low"], row["high"])
    assert any("required tpr gap<=0.2 in sex" in str(label) for label in values)


def test_markup_and_control_characters_are_text():
    made = full()
    root = card(replace(made, model_names=(f"net{EVIL}\x1b",), provenance={"question": EVIL}))
    assert find(root, "BasicInfo/ModelName") == f"net{EVIL}?"
    assert find(root, "KeyMetrics/UsefulnessUsabilityEfficacy/MetricGoal") == EVIL


def test_the_same_audit_gives_the_same_text():
    assert ElementTree.tostring(card(full())) == ElementTree.tostring(card(full()))

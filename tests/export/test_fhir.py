"""A bundle is FHIR of its release by the models of fhir.resources, and refers to what the images' headers name."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from medclip.export.fhir import (
    HASHED_PATIENT,
    HASHED_STUDY,
    OWN_CODES,
    Release,
    bundle_text,
    fhir_bundle,
    fhir_r4b,
    fhir_r5,
)
from medclip.export.source_headers import Headers
from medclip.export.study_result import StudyResult
from tests.kits.results import ALGORITHM, ANSWERS, CREATED, DECISION, drawn_study, exam_answers
from tests.kits.scoring import PLANTED, STUDY_UID


def model_of(release: Release) -> Any:
    pytest.importorskip("fhir.resources")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if release == "R5":
            from fhir.resources.bundle import Bundle
        else:
            from fhir.resources.R4B.bundle import Bundle
    return Bundle


def checked(result: StudyResult, headers: Headers, release: Release = "R4B") -> dict[str, Any]:
    bundle = fhir_bundle(result, headers, ALGORITHM, CREATED, release)
    model = model_of(release)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = model.model_validate_json(bundle_text(bundle))
        assert json.loads(read.model_dump_json()) == json.loads(bundle_text(bundle).replace("+00:00", "Z"))
    return bundle


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


@pytest.mark.parametrize("release", ["R4B", "R5"])
def test_a_bundle_has_a_report_its_observations_and_the_device(tmp_path: Path, release: Release) -> None:
    bundle = checked(*drawn_study(tmp_path), release)
    (report,), (device,) = resources(bundle, "DiagnosticReport"), resources(bundle, "Device")
    observations = resources(bundle, "Observation")
    assert [o["valueQuantity"]["value"] for o in observations] == [a.probability for a in ANSWERS]
    assert {o["status"] for o in (*observations, report)} == {"preliminary"}
    urls = {e["fullUrl"] for e in bundle["entry"]}
    assert {r["reference"] for r in report["result"]} < urls
    assert {o["device"]["reference"] for o in observations} < urls
    assert ALGORITHM.digest in {i["value"] for i in device["identifier"]}


def test_a_finding_has_its_snomed_code_and_one_without_has_ours(tmp_path: Path) -> None:
    pneumonia, tube = resources(checked(*drawn_study(tmp_path)), "Observation")
    (code,) = pneumonia["code"]["coding"]
    assert (code["system"], code["code"]) == ("http://snomed.info/sct", "233604007")
    assert pneumonia["code"]["text"] == "Probability of: Pneumonia"
    assert tube["code"]["coding"][0]["system"] == OWN_CODES
    assert tube["code"]["text"].endswith("compared with: no tube")


def test_patient_study_and_order_are_those_of_the_header_and_no_name_is_there(tmp_path: Path) -> None:
    bundle = checked(*drawn_study(tmp_path))
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["subject"]["identifier"]["value"] == PLANTED["PatientID"]
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{STUDY_UID}"
    assert report["basedOn"][0]["identifier"]["value"] == PLANTED["AccessionNumber"]
    assert report["effectiveDateTime"] == "2024-02-29"
    text = bundle_text(bundle).casefold()
    for name in ("roentgen", "wilhelm", "house", "1845", "elsewhere"):
        assert name not in text


def test_a_study_without_a_header_is_named_by_keyed_hashes(tmp_path: Path) -> None:
    result, _ = drawn_study(tmp_path)
    (report,) = resources(checked(result, Headers((), "no DICOM header")), "DiagnosticReport")
    assert report["subject"]["identifier"] == {"system": HASHED_PATIENT, "value": result.patient}
    assert report["imagingStudy"][0]["identifier"] == {"system": HASHED_STUDY, "value": result.key}
    assert "basedOn" not in report
    assert "effectiveDateTime" not in report


def test_equal_results_have_equal_identifiers_and_others_have_others(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    first = fhir_bundle(result, headers, ALGORITHM, CREATED)
    assert fhir_bundle(result, headers, ALGORITHM, CREATED) == first
    changed = replace(result, answers=(replace(ANSWERS[0], probability=0.5), ANSWERS[1]))
    other = fhir_bundle(changed, headers, ALGORITHM, CREATED)
    assert other["identifier"] != first["identifier"]
    (report,), (others,) = resources(first, "DiagnosticReport"), resources(other, "DiagnosticReport")
    assert [a == b for a, b in zip(report["result"], others["result"], strict=True)] == [False, True]


def test_what_could_not_be_read_is_in_the_conclusion(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    (report,) = resources(checked(replace(result, num_failed=3, note="lead_off:V3"), headers), "DiagnosticReport")
    assert "3 of 5 files could not be read" in report["conclusion"]
    assert "lead off:V3" in report["conclusion"]
    assert "not a medical device" in report["conclusion"]


@pytest.mark.parametrize("release", ["R4B", "R5"])
def test_a_bundle_names_the_report_and_the_observations_that_it_replaces(tmp_path: Path, release: Release) -> None:
    result, headers = drawn_study(tmp_path)
    old = fhir_bundle(result, headers, ALGORITHM, CREATED, release)
    changed = replace(result, answers=(replace(ANSWERS[0], probability=0.5), replace(ANSWERS[1], against="no line")))
    encode = fhir_r5 if release == "R5" else fhir_r4b
    content = encode(changed, headers, ALGORITHM, CREATED, [bundle_text(old).encode()])
    new = json.loads(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model_of(release).model_validate_json(content)
    (report,), (earlier,) = resources(new, "DiagnosticReport"), resources(old, "DiagnosticReport")
    (extension,) = report["extension"]
    assert extension["url"] == "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"
    assert extension["valueReference"]["identifier"] == earlier["identifier"][0]
    pneumonia, tube = resources(new, "Observation")
    (same, _), (named,) = resources(old, "Observation"), pneumonia["extension"]
    assert named["valueReference"]["identifier"] == same["identifier"][0]
    assert "extension" not in tube, "it was compared with something else"
    assert {one["status"] for one in (report, pneumonia, tube)} == {"preliminary"}
    assert encode(changed, headers, ALGORITHM, CREATED, [content]) == content
    (without,) = resources(fhir_bundle(changed, headers, ALGORITHM, CREATED, release), "DiagnosticReport")
    assert report["identifier"] != without["identifier"]


def test_a_bundle_that_says_the_same_is_the_earlier_one_and_one_of_another_study_is_none(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "one")
    old = fhir_r4b(result, headers, ALGORITHM, CREATED)
    later = CREATED + timedelta(days=1)
    assert fhir_r4b(result, headers, ALGORITHM, later, [old]) == old
    other, of_it = drawn_study(tmp_path / "other", study_uid="1.2.3.4")
    alone = fhir_r4b(other, of_it, ALGORITHM, later)
    assert fhir_r4b(other, of_it, ALGORITHM, later, [old, b"no JSON", b"{}", old[:99]]) == alone


@pytest.mark.parametrize("release", ["R4B", "R5"])
def test_breasts_are_members_of_their_examination_and_images_of_their_breast(tmp_path: Path, release: Release) -> None:
    result, headers = drawn_study(tmp_path)
    bundle = checked(replace(result, modality="mammography", answers=exam_answers()), headers, release)
    observations = {
        entry["fullUrl"]: entry["resource"]
        for entry in bundle["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    }
    assert len(observations) == 6

    def below(observation: dict[str, Any]) -> list[str]:
        members = [observations[member["reference"]] for member in observation.get("hasMember", ())]
        return [member["code"]["text"].removeprefix("Probability of: Mass, ") for member in members]

    examination, right, left, *images = observations.values()
    assert below(examination) == ["right breast", "left breast", "side not stated, unnamed view"]
    assert below(right) == ["right breast, CC view"]
    assert below(left) == ["left breast, MLO view, subtracted"]
    assert [below(image) for image in images] == [[], [], []]
    sites = [o["bodySite"]["coding"][0]["code"] if "bodySite" in o else None for o in observations.values()]
    assert sites == [None, "73056007", "80248007", "73056007", "80248007", None]


@pytest.mark.parametrize("release", ["R4B", "R5"])
def test_a_threshold_of_the_card_is_the_interpretation_and_without_one_there_is_none(
    tmp_path: Path, release: Release
) -> None:
    result, headers = drawn_study(tmp_path)
    decided = replace(ANSWERS[0], decision=DECISION)
    bundle = checked(replace(result, answers=(decided, ANSWERS[1])), headers, release)
    first, second = resources(bundle, "Observation")
    assert first["interpretation"][0]["coding"][0]["code"] == "POS"
    assert first["referenceRange"][0]["high"]["value"] == DECISION.threshold
    assert DECISION.source in first["referenceRange"][0]["text"]
    assert not {"interpretation", "referenceRange"} & set(second)
    negative = replace(ANSWERS[0], decision=replace(DECISION, is_positive=False))
    other = resources(checked(replace(result, answers=(negative,)), headers, release), "Observation")[0]
    assert other["interpretation"][0]["coding"][0]["code"] == "NEG"


def test_where_a_figure_holds_stands_beside_the_number(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    pneumonia, tube = ANSWERS
    within = replace(pneumonia, caution="within its source only (nih_cxr)")
    observations = resources(checked(replace(result, answers=(within, tube)), headers), "Observation")
    assert observations[0]["note"] == [
        {"text": "The figure on the model's card holds within its source only (nih_cxr)."}
    ]
    assert "note" not in observations[1]
    without = resources(checked(result, headers), "Observation")
    assert observations[0]["identifier"] != without[0]["identifier"]
    assert observations[1]["identifier"] == without[1]["identifier"]


@pytest.mark.parametrize(
    "changed",
    [
        {"decision": DECISION},
        {"decision": replace(DECISION, threshold=DECISION.threshold / 2)},
        {"caution": "within its source only"},
        {"unlearned": "nobody taught it"},
        {"against": "another"},
    ],
    ids=str,
)
def test_an_observation_that_says_something_else_is_another_one(tmp_path: Path, changed: dict[str, Any]) -> None:
    result, headers = drawn_study(tmp_path)
    kept = replace(ANSWERS[0], decision=DECISION if changed.get("decision") not in (None, DECISION) else None)
    names = [
        [r["identifier"][0]["value"] for r in resources(fhir_bundle(one, headers, ALGORITHM, CREATED), "Observation")]
        for one in (replace(result, answers=(answer, ANSWERS[1])) for answer in (kept, replace(kept, **changed)))
    ]
    assert [a == b for a, b in zip(*names, strict=True)] == [False, True]

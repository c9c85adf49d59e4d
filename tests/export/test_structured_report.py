"""An SR holds the images, the patient, the model and each probability; readers and validators of others agree."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medclip.dicom.header.elements import quiet
from medclip.export.source_headers import NO_UIDS, SEVERAL_PATIENTS, SEVERAL_STUDIES, read_headers
from medclip.export.structured_report import DECISION as CODED_DECISION
from medclip.export.structured_report import structured_report
from medclip.export.study_result import OWN_SCHEME, coding_of
from tests.kits.results import ALGORITHM, ANSWERS, CREATED, DECISION, drawn_study, exam_answers, file_row
from tests.kits.scoring import PLANTED, STUDY_UID, write_dicom

hd = pytest.importorskip("highdicom")
DICOM3TOOLS = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing. Run: apt-get install dicom3tools"
)


def written(folder: Path, num_images: int = 2, **tags: Any) -> Any:
    result, headers = drawn_study(folder, num_images, **tags)
    return pydicom.dcmread(BytesIO(structured_report(result, headers, ALGORITHM, CREATED)))


def walk(item: Any) -> list[Any]:
    return [item, *(below for child in item.get("ContentSequence", ()) for below in walk(child))]


def evaluations_of(group: Any, name: str) -> list[str]:
    return [e.value.meaning for e in group.get_qualitative_evaluations() if e.name.value == name]


def errors_of(file: Path, *others: Path, tool: str = "dciodvfy") -> list[str]:
    run = subprocess.run([tool, *map(str, (file, *others))], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def test_highdicom_reads_every_probability_with_its_finding_and_its_algorithm(tmp_path: Path) -> None:
    report = hd.sr.Comprehensive3DSR.from_dataset(written(tmp_path))
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 2
    pneumonia, tube = groups
    assert (pneumonia.finding_type.value, pneumonia.finding_type.scheme_designator) == ("233604007", "SCT")
    assert (tube.finding_type.scheme_designator, tube.finding_type.meaning) == (OWN_SCHEME, "a tube too low")
    assert pneumonia.finding_category.meaning == "Chest X-ray findings"
    for group, answer in zip(groups, ANSWERS, strict=True):
        (measurement,) = group.get_measurements()
        assert (measurement.name.value, measurement.name.scheme_designator) == ("122157", "DCM")
        assert float(measurement.value) == answer.probability
        assert (measurement.unit.value, measurement.unit.scheme_designator) == ("1", "UCUM")
        assert group.tracking_identifier == f"{answer.task}:{answer.name}"
    texts = {str(item.TextValue) for item in walk(report) if "TextValue" in item}
    assert {"tiny", "1.2", f"pack sha256 {'ab' * 32}", "compared with: no tube"} <= texts


def test_every_image_is_in_the_evidence_of_the_current_procedure(tmp_path: Path) -> None:
    report = hd.sr.Comprehensive3DSR.from_dataset(written(tmp_path, 20))
    evidence = report.get_evidence(current_procedure_only=True)
    assert {str(instance) for _, _, instance, _ in evidence} == {f"{STUDY_UID}.9.{n}" for n in range(1, 21)}
    assert {str(study) for study, *_ in evidence} == {STUDY_UID}
    assert "PertinentOtherEvidenceSequence" not in report


def test_patient_and_study_are_those_of_the_images_and_no_more_than_those(tmp_path: Path) -> None:
    report = written(tmp_path)
    for name in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyTime"):
        assert str(report[name].value) == PLANTED[name]
    assert report.StudyInstanceUID == STUDY_UID
    assert "PatientComments" not in report
    assert "InstitutionName" not in report
    assert (report.Modality, report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "SR",
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_equal_calls_write_equal_bytes_and_another_time_another_object(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    first = structured_report(result, headers, ALGORITHM, CREATED)
    assert structured_report(result, headers, ALGORITHM, CREATED) == first
    later = structured_report(result, headers, ALGORITHM, CREATED.replace(second=16))
    one, other = (pydicom.dcmread(BytesIO(data)) for data in (first, later))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert (one.ContentDate, one.ContentTime) == ("20261128", "073015")
    changed = replace(result, answers=(replace(ANSWERS[0], probability=0.5), ANSWERS[1]))
    third = pydicom.dcmread(BytesIO(structured_report(changed, headers, ALGORITHM, CREATED)))
    assert third.SOPInstanceUID != one.SOPInstanceUID
    assert third.SeriesInstanceUID == one.SeriesInstanceUID


def test_a_name_in_japanese_is_kept(tmp_path: Path) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    report = written(tmp_path, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)
    assert str(report.PatientName) == name
    assert report.SpecificCharacterSet == "ISO_IR 192"


def test_breasts_and_images_of_an_examination_have_groups_with_their_site_view_and_images(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path, modality="MG")
    result = replace(result, modality="mammography", answers=exam_answers())
    report = pydicom.dcmread(BytesIO(structured_report(result, headers, ALGORITHM, CREATED)))
    groups = hd.sr.Comprehensive3DSR.from_dataset(report).content.get_image_measurement_groups()
    assert [float(group.get_measurements()[0].value) for group in groups] == [0.5, 0.75, 0.25, 0.75, 0.125, 0.0625]
    sides = [site.laterality.meaning for group in groups for site in group.finding_sites]
    assert sides == ["Right", "Left", "Right", "Left"]
    views = [[meaning.casefold() for meaning in evaluations_of(group, "111031")] for group in groups]
    assert views == [[], [], [], ["cranio-caudal"], ["medio-lateral oblique"], []]
    images = [[im.referenced_sop_instance_uid[-1] for im in group.source_images] for group in groups]
    assert images == [["1", "2"], ["1"], ["2"], ["1"], ["2"], ["2"]]
    assert groups[4].tracking_identifier == "mammography:mass, left breast, MLO view, subtracted"
    assert len({group.tracking_uid for group in groups}) == 6


@pytest.mark.parametrize(("is_positive", "word"), [(True, "Positive"), (False, "Negative")])
def test_a_threshold_of_the_card_decides_and_without_one_nothing_does(
    tmp_path: Path, is_positive: bool, word: str
) -> None:
    result, headers = drawn_study(tmp_path)
    decided = replace(ANSWERS[0], decision=replace(DECISION, is_positive=is_positive))
    written = structured_report(replace(result, answers=(decided, ANSWERS[1])), headers, ALGORITHM, CREATED)
    report = hd.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(BytesIO(written)))
    first, second = report.content.get_image_measurement_groups()
    assert evaluations_of(first, CODED_DECISION.value) == [word]
    assert evaluations_of(second, CODED_DECISION.value) == []
    assert DECISION.source in {str(item.TextValue) for item in walk(report) if "TextValue" in item}


@DICOM3TOOLS
def test_dciodvfy_finds_no_error_in_the_report_of_an_examination_with_decisions(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path, modality="MG")
    answers = (replace(ANSWERS[0], decision=DECISION), *exam_answers())
    file = tmp_path / "report.dcm"
    file.write_bytes(structured_report(replace(result, answers=answers), headers, ALGORITHM, CREATED))
    assert errors_of(file) == []


@DICOM3TOOLS
@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PatientOrientation": ["L", "F"], "ImagerPixelSpacing": [0.1, 0.1]},
        {"PatientSex": "unknown", "StudyDate": "yesterday", "PatientBirthDate": "1845"},
        {"PatientIdentityRemoved": "YES"},
    ],
)
def test_dciodvfy_finds_no_error(tmp_path: Path, tags: dict[str, Any]) -> None:
    with quiet("pydicom"):
        result, headers = drawn_study(tmp_path, **tags)
    file = tmp_path / "report.dcm"
    file.write_bytes(structured_report(result, headers, ALGORITHM, CREATED))
    assert errors_of(file) == []
    assert errors_of(tmp_path / "1.dcm", tmp_path / "2.dcm", file, tool="dcentvfy") == []


@DICOM3TOOLS
def test_dciodvfy_finds_the_error_that_is_planted(tmp_path: Path) -> None:
    report = written(tmp_path)
    del report.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID
    report.save_as(tmp_path / "report.dcm")
    assert errors_of(tmp_path / "report.dcm")


def test_files_of_two_patients_or_two_studies_have_no_headers(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    write_dicom(tmp_path / "2.dcm", 2, PatientID="another")
    write_dicom(tmp_path / "3.dcm", 3, study_uid=f"{STUDY_UID}.5")
    write_dicom(tmp_path / "4.dcm", 4, SeriesInstanceUID="")

    def lacking(*names: str) -> str:
        return read_headers([file_row(name) for name in names], lambda name: tmp_path / name).lacking

    assert lacking("1.dcm", "2.dcm") == SEVERAL_PATIENTS
    assert lacking("1.dcm", "3.dcm") == SEVERAL_STUDIES
    assert lacking("4.dcm") == NO_UIDS
    assert lacking("1.dcm") == ""


def test_a_concept_without_a_code_gets_a_private_one_that_fits_and_is_its_own() -> None:
    long = coding_of("ad_hoc:x", "words " * 40)
    assert len(long.value) == 16
    assert len(long.meaning) == 64
    assert coding_of("a:normal", "Normal").value != coding_of("b:normal", "Normal").value


@pytest.mark.shared
@DICOM3TOOLS
def test_reports_on_real_films_have_no_error(shared: Path, tmp_path: Path) -> None:
    result, _ = drawn_study(tmp_path)
    films = sorted((shared / "data" / "field_dev" / "dicom-cxr").rglob("*.dcm"))
    assert len(films) >= 6
    num_read = 0
    for film in films:
        headers = read_headers([file_row(film.name)], lambda name, film=film: film)
        if not headers.lacking:
            num_read += 1
            (tmp_path / "report.dcm").write_bytes(structured_report(result, headers, ALGORITHM, CREATED))
            assert errors_of(tmp_path / "report.dcm") == [], film.name
    assert num_read >= 6


def test_where_a_figure_holds_stands_with_the_finding(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    pneumonia, tube = ANSWERS
    within = replace(pneumonia, caution="within its source only (nih_cxr)")
    content = structured_report(replace(result, answers=(within, tube)), headers, ALGORITHM, CREATED)
    texts = [str(item.TextValue) for item in walk(pydicom.dcmread(BytesIO(content))) if "TextValue" in item]
    assert texts.count("figure of the model's card: within its source only (nih_cxr)") == 1

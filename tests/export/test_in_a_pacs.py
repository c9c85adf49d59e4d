"""A real PACS files a report with its images, and gives it back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from medclip.export.structured_report import structured_report
from tests.kits.pacs import INSTALL, ORTHANC, ask, orthanc
from tests.kits.results import ALGORITHM, CREATED, drawn_study
from tests.kits.scoring import PLANTED, STUDY_UID

pytest.importorskip("highdicom")


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.skipif(ORTHANC is None, reason=INSTALL)
def test_orthanc_files_a_report_in_the_study_of_its_images_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "in")
    report = structured_report(result, headers, ALGORITHM, CREATED)
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs") as url:
        for image in sorted((tmp_path / "in").iterdir()):
            assert ask(f"{url}/instances", image.read_bytes())["Status"] == "Success"
        assert ask(f"{url}/instances", report)["Status"] == "Success"
        assert ask(f"{url}/instances", report)["Status"] == "AlreadyStored"
        (patient,) = ask(f"{url}/patients?expand")
        assert patient["MainDicomTags"]["PatientID"] == PLANTED["PatientID"]
        (study,) = ask(f"{url}/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY_UID
        modalities = {series["MainDicomTags"]["Modality"]: series for series in ask(f"{url}/series?expand")}
        assert set(modalities) == {"DX", "SR"}
        (instance,) = modalities["SR"]["Instances"]
        tags = ask(f"{url}/instances/{instance}/simplified-tags")
        (evidence,) = tags["CurrentRequestedProcedureEvidenceSequence"]
        (series,) = evidence["ReferencedSeriesSequence"]
        named = {item["ReferencedSOPInstanceUID"] for item in series["ReferencedSOPSequence"]}
        assert named == {str(image.SOPInstanceUID) for image in headers.images}
        (found,) = ask(f"{url}/dicom-web/studies/{STUDY_UID}/series?Modality=SR", Accept="application/dicom+json")
        assert found["0020000E"]["Value"] == [modalities["SR"]["MainDicomTags"]["SeriesInstanceUID"]]

"""A heat map is an image of the study in a PACS: it says what it is, what it was drawn from, and names nobody new."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

from medclip.api.score import score
from medclip.errors import MedclipError
from medclip.export.heat_map_image import captioned, heat_map_image
from medclip.export.running_results import store_results
from medclip.export.source_headers import NO_MAP, read_headers
from medclip.export.study_result import DrawnMap, StudyResult
from medclip.progress import Silent
from tests.kits.mammograms import write_exams
from tests.kits.pacs import INSTALL, ORTHANC, ask, orthanc
from tests.kits.results import ALGORITHM, CREATED, drawn_study, file_row, in_folder
from tests.kits.scoring import PLANTED, STUDY_UID, make_pack, write_dicom

hd = pytest.importorskip("highdicom")
CALL: dict[str, Any] = {"modality": "xray", "workers": 1}
"""Of these tests."""
DICOM3TOOLS = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing. Run: apt-get install dicom3tools"
)


def a_map(result: StudyResult, size: tuple[int, int] = (300, 400)) -> StudyResult:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[: size[0] // 2, :, 0] = 250
    return replace(result, drawn=DrawnMap(pixels, "pneumonia 81 %", "", ("2.dcm",)))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def errors_of(file: Path) -> list[str]:
    run = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


def test_a_heat_map_is_of_the_patient_and_study_and_names_the_image_that_it_was_drawn_from(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    image = pydicom.dcmread(BytesIO(heat_map_image(a_map(result), headers, ALGORITHM, CREATED)))
    for name in ("PatientID", "PatientName", "AccessionNumber", "StudyDate"):
        assert str(image[name].value) == PLANTED[name]
    assert (image.StudyInstanceUID, image.Modality) == (STUDY_UID, "OT")
    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == f"{STUDY_UID}.9.2"
    assert "pneumonia 81 %" in image.DerivationDescription
    assert "not a medical device" in image.ImageComments
    assert (image.ContentDate, image.ContentTime) == ("20261128", "073015")
    assert "PatientComments" not in image
    assert "InstitutionName" not in image


def test_the_picture_is_the_map_with_what_it_is_below_it(tmp_path: Path) -> None:
    result = a_map(drawn_study(tmp_path)[0])
    assert result.drawn is not None
    captioned_map = captioned(result.drawn, "tiny 1.2")
    assert np.array_equal(captioned_map[:300], result.drawn.pixels)
    assert captioned_map[300:].max() == 255
    assert captioned(a_map(result, (50, 60)).drawn or result.drawn, "tiny 1.2").shape[0] > 150, "wrapped on a small one"
    image = pydicom.dcmread(BytesIO(heat_map_image(result, drawn_study(tmp_path)[1], ALGORITHM, CREATED)))
    assert image.pixel_array.shape == captioned_map.shape
    assert abs(image.pixel_array[75, 200].astype(int) - (250, 0, 0)).max() < 12


def test_a_grey_answer_is_named_so_below_its_map_and_in_the_description(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    plain = a_map(result).drawn
    assert plain is not None
    caution = "Not learned: the model does not know “qwrtz”, and the model’s card has no figure for it"
    grey = replace(plain, caution=caution, image="slice 17")
    assert captioned(grey, "tiny 1.2").shape[0] > captioned(plain, "tiny 1.2").shape[0], "it takes lines of its own"
    written = heat_map_image(replace(result, drawn=grey), headers, ALGORITHM, CREATED)
    described = pydicom.dcmread(BytesIO(written)).DerivationDescription
    assert described == f"Heat map of what raises the score: pneumonia 81 %, {caution}, slice 17"


def test_the_map_of_a_run_has_the_caution_of_its_answer(tmp_path: Path) -> None:
    view = {"classes": ["pa", "ap", "lateral"], "note": "Not measured after merging. Others are."}
    pack = make_pack(tmp_path / "pack", tasks={"modality": {"classes": ["xray"]}, "chest_xray_view": view})
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", "sc"))
    (file,) = (tmp_path / "to" / "sc").iterdir()
    assert pydicom.dcmread(file).DerivationDescription.endswith(" %, Not measured after merging")


def test_equal_calls_write_equal_bytes_and_another_map_is_another_object(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    first = heat_map_image(a_map(result), headers, ALGORITHM, CREATED)
    assert heat_map_image(a_map(result), headers, ALGORITHM, CREATED) == first
    other = pydicom.dcmread(BytesIO(heat_map_image(a_map(result, (301, 400)), headers, ALGORITHM, CREATED)))
    assert other.SOPInstanceUID != pydicom.dcmread(BytesIO(first)).SOPInstanceUID
    assert other.SeriesInstanceUID == pydicom.dcmread(BytesIO(first)).SeriesInstanceUID


def test_a_map_that_is_written_anew_is_not_sent_again_and_another_one_is(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "in")
    sent: list[bytes] = []
    server: Any = SimpleNamespace(place="a PACS", store=lambda content: sent.append(content) or True)
    changed = a_map(result)
    assert changed.drawn is not None
    changed.drawn.pixels[10, 10] = 255
    later = CREATED.replace(minute=31)
    (tmp_path / "to" / "sc").mkdir(parents=True)
    for one, created, num_sent in ((a_map(result), CREATED, 1), (a_map(result), later, 1), (changed, later, 2)):
        (tmp_path / "to" / "sc" / "0.dcm").write_bytes(heat_map_image(one, headers, ALGORITHM, created))
        store_results(tmp_path / "to", server, Silent())
        assert len(sent) == num_sent


@DICOM3TOOLS
@pytest.mark.parametrize("tags", [{}, {"PatientOrientation": ["L", "F"], "ImagerPixelSpacing": [0.1, 0.1]}])
def test_dciodvfy_finds_no_error(tmp_path: Path, tags: dict[str, Any]) -> None:
    result, headers = drawn_study(tmp_path, **tags)
    (tmp_path / "map.dcm").write_bytes(heat_map_image(a_map(result), headers, ALGORITHM, CREATED))
    assert errors_of(tmp_path / "map.dcm") == []


@pytest.mark.shared
@DICOM3TOOLS
def test_heat_maps_of_real_films_have_no_error(shared: Path, tmp_path: Path) -> None:
    result, num_read = a_map(drawn_study(tmp_path)[0]), 0
    for film in sorted((shared / "data" / "field_dev" / "dicom-cxr").rglob("*.dcm")):
        headers = read_headers([file_row(film.name)], lambda name, film=film: film)
        if not headers.lacking:
            num_read += 1
            assert result.drawn is not None
            drawn = replace(result, drawn=replace(result.drawn, files=(film.name,)))
            (tmp_path / "map.dcm").write_bytes(heat_map_image(drawn, headers, ALGORITHM, CREATED))
            assert errors_of(tmp_path / "map.dcm") == [], film.name
    assert num_read >= 6


def test_a_run_writes_the_heat_map_of_each_study_and_another_finding_replaces_it(pack: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    calls: dict[str, Any] = {"model": pack, **CALL}
    run = score(tmp_path / "in", tmp_path / "out", **calls, export=in_folder(tmp_path / "to", "sr", "sc"))
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 2, "sc": 2}
    maps = {path.name: pydicom.dcmread(path) for path in (tmp_path / "to" / "sc").iterdir()}
    assert {m.SourceImageSequence[0].ReferencedSOPInstanceUID[-1] for m in maps.values()} == {"1", "2"}
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    assert "heat map" not in (tmp_path / "out" / "report.html").read_text(), "the report was not asked for one"
    reports = {path: path.stat().st_mtime_ns for path in (tmp_path / "to" / "sr").iterdir()}
    again = score(
        tmp_path / "in", tmp_path / "out", **calls, export=in_folder(tmp_path / "to", "sc:chest_xray_view:pa")
    )
    assert again.exported is not None
    assert again.exported["written"] == {"sc": 2}
    for path in (tmp_path / "to" / "sc").iterdir():
        image = pydicom.dcmread(path)
        assert "pa " in image.DerivationDescription
        assert image.SOPInstanceUID != maps[path.name].SOPInstanceUID
    assert reports == {path: path.stat().st_mtime_ns for path in (tmp_path / "to" / "sr").iterdir()}
    before = bytes_of(tmp_path / "to")
    score(tmp_path / "in", tmp_path / "out", **calls)
    assert bytes_of(tmp_path / "to") == before


def test_a_call_that_was_stopped_goes_on_to_the_same_bytes(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.export import results_folder

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in (1, 2, 3):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    calls: dict[str, Any] = {"model": pack, **CALL}
    score(tmp_path / "in", tmp_path / "out", **calls, export=in_folder(tmp_path / "undisturbed", "sc", "sr"))
    real, left = results_folder.write_file, [3]

    def stopping(target: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(target, content)

    monkeypatch.setattr(results_folder, "write_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "in", tmp_path / "out", **calls, export=in_folder(tmp_path / "to", "sc", "sr"))
    monkeypatch.setattr(results_folder, "write_file", real)
    score(tmp_path / "in", tmp_path / "out", **calls, export=in_folder(tmp_path / "to", "sc", "sr"))
    assert bytes_of(tmp_path / "to") == bytes_of(tmp_path / "undisturbed")


def test_of_an_examination_the_view_that_counts_most_is_drawn(pack: Path, tmp_path: Path) -> None:
    root = write_exams(tmp_path / "in") / "whole"
    run = score(root, tmp_path / "out", model=pack, exam=True, workers=1, export=in_folder(tmp_path / "to", "sc"))
    assert run.exported is not None
    (file,) = (tmp_path / "to" / "sc").iterdir()
    image = pydicom.dcmread(file)
    assert any(place in image.DerivationDescription for place in ("R-CC", "L-CC", "R-MLO", "L-MLO"))
    assert len(image.SourceImageSequence) == 1


def test_a_study_that_was_not_asked_what_is_drawn_has_no_map_and_the_run_says_so(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    export = in_folder(tmp_path / "to", "sc:brain_mri_tumour")
    run = score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export=export)
    assert run.exported is not None
    assert run.exported["written"] == {"sc": 0}
    assert run.exported["without"] == {"sc": {NO_MAP: 1}}


def test_maps_that_cannot_be_drawn_are_refused_before_anything_is_read(pack: Path, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "in" / "1.dcm", 1)
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(tmp_path / "to", "sc")}
    with pytest.raises(MedclipError, match="images are given one by one"):
        score([path], tmp_path / "out", **calls)
    calls["export"] = in_folder(tmp_path / "to", "sc:fundus_cataract")
    with pytest.raises(MedclipError, match="does not ask"):
        score(tmp_path / "in", tmp_path / "out", **calls, task="chest_xray_view")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.skipif(ORTHANC is None, reason=INSTALL)
def test_orthanc_files_a_heat_map_in_the_study_and_draws_it(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "in")
    (tmp_path / "pacs").mkdir()
    with orthanc(tmp_path / "pacs") as url:
        for image in sorted((tmp_path / "in").iterdir()):
            ask(f"{url}/instances", image.read_bytes())
        kept = ask(f"{url}/instances", heat_map_image(a_map(result), headers, ALGORITHM, CREATED))
        assert kept["Status"] == "Success"
        (study,) = ask(f"{url}/studies?expand")
        assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY_UID
        assert len(study["Series"]) == 2
        from urllib.request import urlopen

        from PIL import Image

        with urlopen(f"{url}/instances/{kept['ID']}/preview", timeout=60) as answer:
            drawn = np.asarray(Image.open(BytesIO(answer.read())).convert("RGB"))
        assert abs(drawn[75, 200].astype(int) - (250, 0, 0)).max() < 12

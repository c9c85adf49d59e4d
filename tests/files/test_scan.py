from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import medclip.files.scan
from medclip.api.open_study import open_study
from medclip.api.scan import scan
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.files.scan import scan_files
from medclip.sample import Modality
from medclip.settings import ReadPolicy, Settings
from tests.kits.files import dataset, ramp, write_dicom, write_image


def command(path: Path, **options: Any) -> int:
    """Run `medclip scan`."""
    words = {"as_json": "json"}
    named = {words.get(name, name.replace("_", "-")): value for name, value in options.items()}
    return main(
        ["scan", str(path), *(f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items())]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dicom(tmp_path / "in/a.dcm", ramp())
    write_dicom(tmp_path / "in/ct.dcm", ramp(), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    write_image(tmp_path / "in/b.png", ramp())
    (tmp_path / "in/empty").write_bytes(b"")
    return tmp_path / "in"


def test_a_scan_has_one_entry_per_file_and_its_counts(folder: Path) -> None:
    found = scan_files(folder)
    assert [(file.ref.name, file.status, file.modality) for file in found.files] == [
        ("a.dcm", "readable", Modality.XRAY),
        ("b.png", "readable", None),
        ("ct.dcm", "readable", Modality.CT),
        ("empty", "failed", None),
    ]
    assert found.counts("status") == {"readable": 3, "failed": 1}
    assert found.counts("modality") == {"ct": 1, "to be inferred": 1, "xray": 1}
    assert [[str(unit.kind) for unit in study.units] for study in found.studies] == [["image"], ["image"], ["volume"]]


def test_hashed_paths_stand_wherever_a_name_would(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(folder / "Curie Marie/film.png", ramp())
    plain, hashed = scan_files(folder), scan_files(folder, hash_paths=True)
    assert [file.study for file in plain.files] == [file.study for file in hashed.files]
    assert all(re.fullmatch("path:[0-9a-f]{16}", file.ref.name) for file in hashed.files)
    for options in ({}, {"as_json": True}):
        assert command(folder, hash_paths=True, **options) == 3
        text = capsys.readouterr().out
        assert "Curie" not in text
        assert "a.dcm" not in text


def test_an_option_names_the_modality(folder: Path) -> None:
    assert scan_files(folder / "b.png", modality="mri").files[0].modality is Modality.MRI
    with pytest.raises(MedclipError) as caught:
        scan_files(folder, modality="moon")
    assert caught.value.reason is Reason.WRONG_USE


def test_processes_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scan_files(folder)
    monkeypatch.setattr(medclip.files.scan, "_POOL_FROM", 1)
    assert scan_files(folder, settings=Settings(workers=2)).files == alone.files


def test_a_plain_script_without_a_main_guard_scans_many_files(tmp_path: Path) -> None:
    for number in range(70):
        (tmp_path / f"{number}.txt").write_text("hello")
    script = tmp_path / "script.py"
    script.write_text(
        "import medclip\nfrom medclip.settings import Settings\n"
        f"print(len(medclip.scan({str(tmp_path)!r}, settings=Settings(workers=2)).files))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("71", "")


def test_names_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\x1b[31m\nb.txt").write_text("hello")
    assert command(tmp_path) == 0
    text = capsys.readouterr().out
    assert "1 file, 0 studies" in text
    assert r"a\x1b[31m\nb.txt" in text
    assert "\x1b" not in text


def test_one_study_is_said_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", ramp())
    assert command(tmp_path, modality="XRay") == 0
    assert "1 file, 1 study" in capsys.readouterr().out


def test_an_empty_folder_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MedclipError) as caught:
        scan(tmp_path)
    assert caught.value.reason is Reason.NOTHING_TO_DO
    assert command(tmp_path) == 2
    assert "there is no file in this folder." in capsys.readouterr().err


def test_the_json_holds_no_identifier(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, as_json=True) == 3
    text = capsys.readouterr().out
    assert json.loads(text)["num_files"] == 4
    assert "SECRET" not in text
    assert "1.2.826" not in text


def test_the_text_names_what_is_not_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").unlink()
    assert command(folder) == 0
    text = capsys.readouterr().out
    assert "3 files, 3 studies" in text
    assert "ct.dcm" in text


def test_reading_never_imports_torch() -> None:
    code = (
        "import sys, medclip.files.scan, medclip.adapters.registry as r;"
        "[r.get_adapter(n) for n in r.ADAPTERS]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MG = "1.2.840.10008.5.1.4.1.1.1.2"


def _films(root: Path) -> Path:
    for name, side, view in (("a", "L", "CC"), ("b", "L", "MLO"), ("c", "R", "CC")):
        write_dicom(root / name, ramp(), Modality="MG", SOPClassUID=MG, ImageLaterality=side, ViewPosition=view)
    return root


def test_mammograms_are_shown_as_an_examination_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(_films(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "1 x has R-CC, L-CC, L-MLO; missing R-MLO: a" in text
    assert command(tmp_path, as_json=True) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert study["exam"]["views"] == {"L-CC": "a", "L-MLO": "b", "R-CC": "c"}
    assert study["exam"]["missing"] == ["R-MLO"]


def test_earlier_examinations_of_a_patient_are_ordered_by_the_days_between(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (patient, day) in enumerate(
        [("p", "20240301"), ("p", "20220301"), ("p", "20230301"), ("q", "20210301"), ("q", "")]
    ):
        tags = {"StudyInstanceUID": f"1.2.{number + 1}", "PatientID": patient, "StudyDate": day}
        write_dicom(
            tmp_path / f"{number}",
            ramp(),
            Modality="MG",
            SOPClassUID=MG,
            ImageLaterality="L",
            ViewPosition="CC",
            **tags,
        )
    assert command(tmp_path) == 0
    assert "2 x an earlier examination of the same patient, 365 to 366 days before" in capsys.readouterr().out
    (tmp_path / "2").unlink()
    assert command(tmp_path) == 0
    assert "1 x an earlier examination of the same patient, 731 days before" in capsys.readouterr().out
    write_dicom(
        tmp_path / "2",
        ramp(),
        Modality="MG",
        SOPClassUID=MG,
        ImageLaterality="L",
        ViewPosition="CC",
        StudyInstanceUID="1.2.3",
        PatientID="p",
        StudyDate="20230301",
    )
    assert command(tmp_path, as_json=True) == 0
    text = capsys.readouterr().out
    studies = json.loads(text)["studies"]
    keys = [study["study"] for study in studies]
    assert [study["exam"]["earlier"] for study in studies] == [
        [{"study": keys[2], "days": 366}, {"study": keys[1], "days": 731}],
        [],
        [{"study": keys[1], "days": 365}],
        [],
        [],
    ]
    assert "2022" not in text.replace(str(tmp_path), "")


def test_a_table_makes_examinations_of_images_without_headers(tmp_path: Path) -> None:
    rows = []
    for side, view in (("R", "CC"), ("L", "CC"), ("L", "MLO"), ("L", "ML")):
        write_image(tmp_path / f"{side}{view}.png", np.roll(np.asarray(ramp(), np.uint8), len(rows)))
        rows.append((f"{side}{view}.png", "s", "p", "mammography", side, view, "2024-03"))
    names = ("file", "study", "patient", "modality", "laterality", "view", "exam_date")
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})
    (exam,) = scan_files(tmp_path, table=table).exams.values()
    assert exam.views == (("R-CC", "RCC.png"), ("L-CC", "LCC.png"), ("L-MLO", "LMLO.png"))
    assert [(view.name, str(reason)) for view, reason in exam.set_aside] == [("LML.png", "other_view")]
    assert exam.reasons == ("missing_views", "other_view")
    opened = open_study(tmp_path, table=table).exam
    assert opened == exam


def test_the_json_says_how_each_unit_would_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dicom(folder / "pet", ramp(), Modality="PT", StudyInstanceUID="1.2.3")
    command(folder, as_json=True)
    studies = json.loads(capsys.readouterr().out)["studies"]
    units = {unit["files"][0]: unit for study in studies for unit in study["units"]}
    assert (units["a.dcm"]["kind"], units["a.dcm"]["adapter"]) == ("image", "xray")
    assert "1 view" in units["a.dcm"]["gives"]
    assert (units["ct.dcm"]["kind"], units["ct.dcm"]["adapter"]) == ("volume", "ct")
    assert (units["pet"]["adapter"], units["pet"]["other_modality"]) == (None, "a PET image")


def _slices(root: Path, *heights: float, **tags: Any) -> Path:
    for height in heights:
        write_dicom(
            root / f"{height:05}",
            ramp(),
            Modality="CT",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            ImagePositionPatient=[0, 0, height],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            **tags,
        )
    return root


def test_a_gap_in_a_series_fails_each_of_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(_slices(tmp_path, 0, 5, 10, 20)) == 3
    text = capsys.readouterr().out
    assert "status    failed 4" in text
    assert "slices are missing between 10.0 and 20.0 mm" in text
    found = scan_files(tmp_path, settings=Settings(policy=ReadPolicy(uneven_slices="resample")))
    assert found.counts("status") == {"readable": 4}


def test_alike_files_are_one_entry_of_the_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(60):
        write_image(tmp_path / f"{number}.png", ramp())
        (tmp_path / f"{number}.txt").write_text("hello")
    assert command(tmp_path) == 0
    assert len(capsys.readouterr().out.splitlines()) < 20


def test_a_thousand_alike_studies_are_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        uids = {"StudyInstanceUID": f"1.2.{number + 1}", "SeriesInstanceUID": f"1.3.{number + 1}"}
        _slices(tmp_path / f"gap{number}", 0, 5, 10, 20 + 5 * number, **uids)
        uids["SeriesInstanceUID"] += ".9"
        _slices(tmp_path / f"tilt{number}", 0, GantryDetectorTilt=number + 1, **uids)
    assert command(tmp_path) == 3
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 30
    assert "160 x uneven_slices: gap0/00000" in text
    assert "between 10.0 and 20.0 mm (usual distance 5.00 mm)" in text
    assert "the numbers are those of the first" in text


def test_a_section_with_too_many_entries_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(25):
        for image in range(number + 1):
            write_dicom(tmp_path / f"{number}-{image}", ramp(), StudyInstanceUID=f"1.2.{number + 1}")
    assert command(tmp_path) == 0
    text = capsys.readouterr().out
    assert "X-ray: 1 image" in text
    assert "and 5 more entries; --json has all" in text


def test_what_must_be_named_to_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(ramp(), Modality="OT", NumberOfFrames=3)
    data.PixelData = ramp().tobytes() * 3
    data.save_as(tmp_path / "loop", enforce_file_format=True)
    assert command(tmp_path) == 0
    assert "not read: skipped when scoring unless named: --modality ultrasound" in capsys.readouterr().out
    command(tmp_path, as_json=True)
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert study["units"][0]["adapter"] is None
    assert "--modality ultrasound" in study["units"][0]["not_read_because"]
    command(tmp_path, modality="ultrasound", as_json=True)
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert (study["units"][0]["kind"], study["units"][0]["adapter"]) == ("cine", "ultrasound")
    assert study["units"][0]["not_read_because"] is None


def test_failed_and_skipped_are_apart_with_their_reasons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").write_text("hello")
    command(folder)
    failed, skipped = capsys.readouterr().out.split("failed: should be readable")[1].split("skipped: nothing wrong")
    assert "1 x empty_file: empty" in failed
    assert "1 x not_an_image: notes.txt" in skipped


def test_views_of_one_patient_in_studies_of_their_own_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (side, view) in enumerate((("L", "CC"), ("R", "CC"))):
        write_dicom(
            tmp_path / f"m/{number}",
            ramp(),
            Modality="MG",
            SOPClassUID=MG,
            StudyInstanceUID=f"1.2.{number + 1}",
            ImageLaterality=side,
            ViewPosition=view,
        )
    assert command(tmp_path) == 0
    assert "use --group-by folder: m" in capsys.readouterr().out
    assert command(tmp_path, group_by="folder") == 0
    text = capsys.readouterr().out
    assert "use --group-by" not in text
    assert "has R-CC, L-CC" in text


def test_a_mammogram_for_processing_is_a_companion_of_the_one_for_presentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _films(tmp_path)
    raw = {"Modality": "MG", "SOPClassUID": f"{MG}.1", "PresentationIntentType": "FOR PROCESSING"}
    write_dicom(tmp_path / "raw", ramp(), ImageLaterality="L", ViewPosition="CC", **raw)
    write_dicom(
        tmp_path / "a",
        ramp(),
        ImageLaterality="L",
        ViewPosition="CC",
        **{**raw, "SOPClassUID": MG, "PresentationIntentType": "FOR PRESENTATION"},
    )
    write_dicom(tmp_path / "only", ramp(), ImageLaterality="R", ViewPosition="MLO", **raw)
    assert command(tmp_path) == 0
    text = capsys.readouterr().out
    assert "1 x companion: raw" in text
    assert "complete" in text
    assert "for processing only (raw detector values): R-MLO" in text
    assert scan_files(tmp_path, group_by="file").counts("status") == {"readable": 5}

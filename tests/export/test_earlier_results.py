"""A result that replaces another names it, in the forms of its kind; one that says the same is the one of before."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason
from medclip.export import results_folder
from medclip.export.earlier_results import REPLACED
from medclip.export.heat_map_image import heat_map_image
from medclip.export.results_folder import ResultsFolder
from medclip.export.structured_report import structured_report
from medclip.export.study_result import DrawnMap
from tests.kits.results import ALGORITHM, ANSWERS, CREATED, bytes_of, drawn_study
from tests.kits.scoring import STUDY_UID, write_dicom
from tests.kits.size import sized

hd = pytest.importorskip("highdicom")
DICOM3TOOLS = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is missing. Run: apt-get install dicom3tools"
)
CALL: dict[str, Any] = {"modality": "xray", "workers": 1}
LATER = CREATED + timedelta(days=1)


def read(content: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(content))


def named(report: Any) -> list[str]:
    """Return the SOP Instance UIDs that a report names as its predecessors."""
    return [
        str(item.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def test_a_report_names_the_earlier_one_by_study_series_and_object(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    earlier = structured_report(result, headers, ALGORITHM, CREATED)
    other = replace(ALGORITHM, version="2.0", digest="cd" * 32)
    content = structured_report(result, headers, other, LATER, [earlier])
    old, new = read(earlier), read(content)
    (study,) = new.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (item,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == STUDY_UID
    assert series.SeriesInstanceUID == old.SeriesInstanceUID
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (old.SOPClassUID, old.SOPInstanceUID)
    assert (new.CompletionFlag, new.VerificationFlag, new.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert structured_report(result, headers, other, LATER, [earlier]) == content
    without = read(structured_report(result, headers, other, LATER))
    assert without.SOPInstanceUID != new.SOPInstanceUID, "another object, since it says something else"
    groups = hd.sr.Comprehensive3DSR.from_dataset(new).content.get_image_measurement_groups()
    assert [float(group.get_measurements()[0].value) for group in groups] == [a.probability for a in ANSWERS]


def test_a_report_that_says_the_same_is_the_earlier_one(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    earlier = structured_report(result, headers, ALGORITHM, CREATED)
    assert structured_report(result, headers, ALGORITHM, LATER, [earlier]) == earlier
    changed = replace(result, answers=ANSWERS[:1])
    second = structured_report(changed, headers, ALGORITHM, LATER, [earlier])
    again = structured_report(changed, headers, ALGORITHM, LATER + timedelta(days=1), [second])
    assert again == second
    assert named(read(again)) == [str(read(earlier).SOPInstanceUID)]
    both = structured_report(changed, headers, ALGORITHM, LATER, [second, earlier])
    assert both == second, "it names the other one already"


def test_what_is_of_another_study_or_no_report_is_not_named(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "one")
    elsewhere, of_it = drawn_study(tmp_path / "other", study_uid="1.2.3.4")
    other = structured_report(elsewhere, of_it, replace(ALGORITHM, version="0"), CREATED)
    content = structured_report(result, headers, ALGORITHM, LATER, [other, b"no DICOM", other[:500]])
    assert content == structured_report(result, headers, ALGORITHM, LATER)


def test_a_heat_map_names_the_one_that_it_replaces(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path, 1)
    pixels = np.zeros((64, 64, 3), np.uint8)
    first = replace(result, drawn=DrawnMap(pixels, "pneumonia 81 %", "", ("1.dcm",)))
    second = replace(result, drawn=DrawnMap(pixels + 9, "pneumonia 70 %", "", ("1.dcm",)))
    earlier = heat_map_image(first, headers, ALGORITHM, CREATED)
    assert heat_map_image(first, headers, ALGORITHM, LATER, [earlier]) == earlier
    content = heat_map_image(second, headers, ALGORITHM, LATER, [earlier])
    (item,) = read(content).ReferencedImageSequence
    assert item.ReferencedSOPInstanceUID == read(earlier).SOPInstanceUID
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == REPLACED.value
    (tmp_path / "map").write_bytes(content)
    if shutil.which("dciodvfy"):
        assert errors_of(tmp_path / "map") == []


def errors_of(*files: Path, tool: str = "dciodvfy") -> list[str]:
    run = subprocess.run([tool, *map(str, files)], capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]


@DICOM3TOOLS
def test_dciodvfy_finds_no_error_in_a_report_with_predecessors(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path)
    first = structured_report(result, headers, ALGORITHM, CREATED)
    other = replace(result, answers=ANSWERS[:1])
    second = structured_report(other, headers, replace(ALGORITHM, version="2"), CREATED)
    third = structured_report(other, headers, ALGORITHM, LATER, [first, second])
    assert len(named(read(third))) == 2
    for name, content in (("first", first), ("third", third)):
        (tmp_path / name).write_bytes(content)
        assert errors_of(tmp_path / name) == []
    assert (
        errors_of(tmp_path / "1.dcm", tmp_path / "2.dcm", tmp_path / "first", tmp_path / "third", tool="dcentvfy") == []
    )
    broken = read(third)
    del broken.PredecessorDocumentsSequence[0].StudyInstanceUID
    broken.save_as(tmp_path / "broken")
    assert errors_of(tmp_path / "broken")


# Folders of results.


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies, at a time that stands still."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    return tmp_path / "in"


def reports_in(folder: Path) -> dict[str, Any]:
    return {path.stem: pydicom.dcmread(path) for path in sorted((folder / "sr").iterdir())}


def test_a_study_that_grew_has_a_report_that_names_the_one_of_before(films: Path, pack: Path, tmp_path: Path) -> None:
    calls: dict[str, Any] = {"model": pack, **CALL, "export": ["sr", "fhir-r5"]}
    medclip.score(films, tmp_path / "out", **calls)
    before = reports_in(tmp_path / "out" / "results")
    write_dicom(films / "3.dcm", 3, study_uid="1.2.3.2")
    medclip.score(films, tmp_path / "out", add=True, **calls)
    after = reports_in(tmp_path / "out" / "results")
    grown = [key for key in after if after[key].SOPInstanceUID != before[key].SOPInstanceUID]
    assert len(grown) == 1
    assert {key: named(report) for key, report in after.items()} == {
        key: [str(before[key].SOPInstanceUID)] if key in grown else [] for key in after
    }
    assert not (tmp_path / "out" / "results" / "replaced").exists()
    text = (tmp_path / "out" / "results" / "fhir-r5" / f"{grown[0]}.json").read_text()
    assert text.count("diagnosticReport-replaces") == 1


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_replaces_ends_in_the_same_bytes(
    films: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, **options: Any) -> None:
        medclip.score(films, tmp_path / name, model=pack, **CALL, export=["sr", "fhir-r4b"], **options)

    names = ("undisturbed", *(f"stopped{n}" for n in range(sized(4, least=2))))
    for name in names:
        run(name)
    write_dicom(films / "3.dcm", 3, study_uid="1.2.3.2")
    run("undisturbed", add=True)
    write = results_folder.write_file
    for num_files, name in enumerate(names[1:]):
        for _ in range(2):
            left = num_files

            def stopping(target: Path, content: bytes) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                write(target, content)

            with monkeypatch.context() as patch:
                patch.setattr(results_folder, "write_file", stopping)
                patch.setattr(results_folder.ResultsFolder, "early_forms", property(lambda _: []))
                if num_files < 2:
                    with pytest.raises(KeyboardInterrupt):
                        run(name, add=True)
                else:
                    run(name, add=True)
        run(name, add=True)
        assert bytes_of(tmp_path / name / "results") == bytes_of(tmp_path / "undisturbed" / "results"), name


def test_export_names_the_reports_of_an_earlier_run_and_without_it_none(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    medclip.score(films, tmp_path / "first", model=pack, **CALL, task="chest_xray_view", export="sr")
    write_dicom(films / "3.dcm", 3, study_uid="1.2.3.3")
    medclip.score(films, tmp_path / "second", model=pack, **CALL, prompt="a tube")
    first = reports_in(tmp_path / "first" / "results")
    medclip.runs.export(tmp_path / "second", as_="sr", to=tmp_path / "plain")
    assert [named(report) for report in reports_in(tmp_path / "plain").values()] == [[], [], []]
    words = ["export", str(tmp_path / "second"), "--as", "sr", "--to", str(tmp_path / "to"), "--replace"]
    capsys.readouterr()
    for earlier in (tmp_path / "first", tmp_path / "first" / "results"):
        assert main([*words, str(earlier)]) == 0
        assert "3 studies, 2 in the place of an earlier one" in capsys.readouterr().out
        expected = {key: [str(report.SOPInstanceUID)] for key, report in first.items()}
        reports = reports_in(tmp_path / "to")
        assert {key: named(report) for key, report in reports.items()} == {
            key: expected.get(key, []) for key in reports
        }
    before = bytes_of(tmp_path / "to")
    exported = medclip.runs.export(tmp_path / "second", as_="sr", to=tmp_path / "to")
    assert exported.replaced is None
    assert bytes_of(tmp_path / "to") == before, "what is there of the same answers stays as it is"


def test_results_of_another_run_are_replaced_in_their_own_folder_where_that_is_asked(
    films: Path, pack: Path, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    medclip.score(films, tmp_path / "first", model=pack, **CALL, task="chest_xray_view", export=f"sr={to}")
    first = reports_in(to)
    asked: dict[str, Any] = {"model": pack, **CALL, "prompt": "a tube", "export": f"sr={to}"}
    with pytest.raises(MedclipError, match="another folder of results: the run differs"):
        medclip.score(films, tmp_path / "second", **asked)
    medclip.score(films, tmp_path / "second", **asked, replace=to)
    second = reports_in(to)
    assert {key: named(report) for key, report in second.items()} == {
        key: [str(report.SOPInstanceUID)] for key, report in first.items()
    }
    assert not (to / "replaced").exists()
    before = bytes_of(to)
    assert medclip.score(films, tmp_path / "second", **asked, replace=to).already_finished
    assert bytes_of(to) == before


def test_forms_that_are_not_written_yet_name_what_they_replace_later(films: Path, pack: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    medclip.score(
        films, tmp_path / "first", model=pack, **CALL, task="chest_xray_view", export=[f"sr={to}", f"fhir-r4b={to}"]
    )
    bundles = len(list((to / "fhir-r4b").iterdir()))
    medclip.score(films, tmp_path / "second", model=pack, **CALL, prompt="a tube")
    medclip.runs.export(tmp_path / "second", as_="sr", to=to, replace=to)
    assert [*(to / "fhir-r4b").iterdir()] == []
    medclip.runs.export(tmp_path / "second", as_="fhir-r4b", to=to, replace=to)
    texts = [path.read_text() for path in (to / "fhir-r4b").iterdir()]
    assert len(texts) == bundles
    assert all("diagnosticReport-replaces" in text for text in texts)
    assert not (to / "replaced").exists()


def test_a_folder_of_other_studies_is_named_as_such(
    films: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "others" / "1.dcm", 9, study_uid="1.2.3.9")
    medclip.score(tmp_path / "others", tmp_path / "other", model=pack, **CALL, export="sr")
    medclip.score(films, tmp_path / "second", model=pack, **CALL)
    assert main(["export", str(tmp_path / "second"), "--as", "sr", "--replace", str(tmp_path / "other")]) == 0
    assert "No study has an earlier result there" in capsys.readouterr().out


def test_results_that_are_there_are_written_anew_where_an_earlier_run_is_named_later(
    films: Path, pack: Path, tmp_path: Path
) -> None:
    medclip.score(films, tmp_path / "first", model=pack, **CALL, task="chest_xray_view", export="sr")
    medclip.score(films, tmp_path / "second", model=pack, **CALL, prompt="a tube", export=["sr", "fhir-r4b"])
    plain, bundles = reports_in(tmp_path / "second" / "results"), tmp_path / "second" / "results" / "fhir-r4b"
    before = bytes_of(bundles)
    medclip.runs.export(tmp_path / "second", as_="sr", replace=tmp_path / "first")
    first, second = (reports_in(tmp_path / name / "results") for name in ("first", "second"))
    for key, report in second.items():
        assert set(named(report)) == {str(plain[key].SOPInstanceUID), str(first[key].SOPInstanceUID)}
    assert bytes_of(bundles) == before


@pytest.mark.parametrize(
    ("options", "sentence", "reason"),
    [
        ({"export": "sr", "replace": "gone"}, "no earlier results here", Reason.MISSING_FILE),
        ({"replace": "gone"}, "no results for other systems are asked for", Reason.WRONG_USE),
    ],
)
def test_what_replaces_nothing_is_refused_before_anything_is_read(
    films: Path, pack: Path, tmp_path: Path, options: dict[str, Any], sentence: str, reason: Reason
) -> None:
    with pytest.raises(MedclipError, match=sentence) as refused:
        medclip.score(films, tmp_path / "out", model=pack, **options)
    assert refused.value.reason is reason
    assert not (tmp_path / "out").exists()


def test_a_draft_of_a_run_that_was_stopped_is_none_that_went_out(tmp_path: Path) -> None:
    result, headers = drawn_study(tmp_path / "in")
    folder = ResultsFolder(tmp_path / "to", ("sr",), lambda name: tmp_path / "in" / name)
    place = folder.place("sr", result.key)
    place.parent.mkdir(parents=True)
    place.write_bytes(structured_report(result, headers, ALGORITHM, CREATED))
    assert folder.job(result, ["sr"], ALGORITHM, CREATED)[-1] == {"sr": []}
    (aside,) = folder.job(result, ["sr"], ALGORITHM, LATER)[-1]["sr"]
    assert (aside.parent.parent.name, place.exists()) == ("replaced", False)

"""Results for other systems: a file a study, the same bytes after a stop, nothing old beside new, nothing unasked."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medclip.api.score import score
from medclip.errors import MedclipError, Reason
from medclip.export import results_folder
from medclip.export.source_headers import GONE, NO_HEADER, encode_study
from medclip.export.study_result import StudyResult
from tests.kits.loaded_python import Programs
from tests.kits.results import bytes_of, in_folder
from tests.kits.scoring import PLANTED, digests, write_dicom, write_png

pytest.importorskip("highdicom")
ALL = ("sr", "fhir-r4b", "fhir-r5")
CALL: dict[str, Any] = {"modality": "xray", "workers": 1}
"""Of these tests; PNGs are taken for X-rays."""


def test_each_study_has_a_file_of_each_form_and_those_without_a_header_have_no_sr(
    pack: Path, studies: Path, tmp_path: Path
) -> None:
    run = score(studies, tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", *ALL))
    keys = {row["study"] for row in run.scores.to_pylist()}
    assert len(keys) == run.counts["studies"] == 7
    assert {p.stem for p in (tmp_path / "to" / "fhir-r4b").iterdir()} == keys
    reports = sorted((tmp_path / "to" / "sr").iterdir())
    assert len(reports) == 2
    assert run.exported == {
        "folder": str(tmp_path / "to"),
        "written": {"sr": 2, "fhir-r4b": 7, "fhir-r5": 7},
        "without": {"sr": {NO_HEADER: 5}},
    }
    for path in reports:
        report = pydicom.dcmread(path)
        assert report.PatientID == PLANTED["PatientID"]
        probabilities = [
            float(item.MeasuredValueSequence[0].NumericValue)
            for item in walk(report)
            if item.get("ValueType") == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "122157"
        ]
        table = [row["probability"] for row in run.scores.to_pylist() if row["study"] == path.stem]
        assert probabilities == pytest.approx(table, abs=1e-6)


def walk(item: Any) -> list[Any]:
    return [item, *(below for child in item.get("ContentSequence", ()) for below in walk(child))]


def test_the_folder_is_its_owners_alone_and_the_tables_are_as_without_it(
    pack: Path, studies: Path, tmp_path: Path
) -> None:
    score(studies, tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", *ALL))
    score(studies, tmp_path / "plain", model=pack, **CALL)
    assert digests(tmp_path / "out") == digests(tmp_path / "plain")
    for path in (tmp_path / "to", *(tmp_path / "to").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_call_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_700_000_000, 1_700_000_900, 60))
    real_now, real_write = results_folder._now, results_folder.write_file

    def now() -> Any:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(next(clock)))
        return real_now()

    monkeypatch.setattr(results_folder, "_now", now)
    calls = {"model": pack, **CALL}
    score(studies, tmp_path / "out", export=in_folder(tmp_path / "whole", *ALL), **calls)
    clock = iter(range(1_700_000_000, 1_700_000_900, 60))  # the second run begins at the same time and is stopped twice
    for num_files in (3, 5):
        left = num_files

        def stopping(target: Path, content: bytes) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            real_write(target, content)

        monkeypatch.setattr(results_folder, "write_file", stopping)
        with pytest.raises(KeyboardInterrupt):
            score(studies, tmp_path / "out", export=in_folder(tmp_path / "to", *ALL), **calls)
    assert 0 < len(bytes_of(tmp_path / "to")) < len(bytes_of(tmp_path / "whole"))
    monkeypatch.setattr(results_folder, "write_file", real_write)
    run = score(studies, tmp_path / "out", export=in_folder(tmp_path / "to", *ALL), **calls)
    assert bytes_of(tmp_path / "to") == bytes_of(tmp_path / "whole")
    assert run.exported is not None
    assert run.exported["written"] == {"sr": 2, "fhir-r4b": 7, "fhir-r5": 7}


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_results_is_gone_on_with_to_the_same_bytes(
    programs: Programs, pack: Path, tmp_path: Path
) -> None:
    for number in range(16):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number + 1}")
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "MEDCLIP_HOME": str(tmp_path / "home")}

    def command(out: str, to: str) -> list[str]:
        asked = [argument for form in in_folder(tmp_path / to, *ALL) for argument in ("--export", form)]
        where = ["--out", str(tmp_path / out)]
        start = [programs.python, "-m", "medclip.cli.main", "score", str(tmp_path / "in"), "--model", str(pack)]
        return [*start, *where, *asked, "--workers", "1"]

    subprocess.run(command("out", "whole"), env=env, check=True, capture_output=True)
    num_kills = 0
    for least in (1, 12, 30):
        process = subprocess.Popen(command("out2", "to"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(bytes_of(tmp_path / "to")) <= least:
            time.sleep(0.005)
        num_kills += process.poll() is None
        process.kill()  # and with it the fork that works for it
        process.wait()
    assert num_kills >= 2
    subprocess.run(command("out2", "to"), env=env, check=True, capture_output=True)
    assert bytes_of(tmp_path / "to") == bytes_of(tmp_path / "whole")
    assert len(bytes_of(tmp_path / "to")) == 3 * 16 + 1


def test_a_second_call_writes_nothing_and_reads_no_header(
    pack: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(tmp_path / "to", "sr")}
    first = score(studies, tmp_path / "out", **calls)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")}
    monkeypatch.setattr(results_folder, "ReadingPool", None)
    again = score(studies, tmp_path / "out", **calls)
    assert again.exported == first.exported
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")} == before


def test_results_of_tables_that_are_others_by_now_are_written_anew(pack: Path, tmp_path: Path) -> None:
    folder, out, to = tmp_path / "in", tmp_path / "out", tmp_path / "to"
    write_dicom(folder / "1.dcm", 1)
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(to, "sr")}
    score(folder, out, **calls)
    (old,) = (to / "sr").iterdir()
    evidence = len(old.read_bytes())
    (to / "sr" / "notes.txt").write_text("a person's own")
    write_dicom(folder / "2.dcm", 2)
    score(folder, out, add=True, **calls)
    assert len(old.read_bytes()) > evidence  # the study has an image more
    assert (to / "sr" / "notes.txt").exists()
    write_png(folder / "3.png", 3)
    run = score(folder, out, add=True, **calls)
    assert run.exported is not None
    assert run.exported["without"] == {"sr": {NO_HEADER: 1}}


def test_a_file_that_went_since_it_was_scored_has_no_sr_and_the_run_says_so(pack: Path, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    write_dicom(tmp_path / "in" / "2.dcm", 2, study_uid="1.2.3.4")
    score(tmp_path / "in", tmp_path / "out", model=pack, **CALL)
    (tmp_path / "in" / "1.dcm").unlink()
    run = score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", "sr"))
    assert run.exported is not None
    assert (run.exported["written"], run.exported["without"]) == ({"sr": 1}, {"sr": {GONE: 1}})


def test_a_study_that_a_reading_process_dies_of_has_none_and_the_others_have_theirs(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.3.{number}")
    run = score(tmp_path / "in", tmp_path / "out", model=pack, **CALL)
    victim = min(row["study"] for row in run.scores.to_pylist())
    monkeypatch.setenv("MEDCLIP_TEST_VICTIM", victim)
    monkeypatch.setattr(results_folder, "encode_study", encode_or_die)
    run = score(tmp_path / "in", tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", "sr"))
    assert run.exported is not None
    assert (run.exported["written"], run.exported["without"]) == ({"sr": 1}, {"sr": {"decoder_crashed": 1}})


def encode_or_die(result: StudyResult, *arguments: Any) -> dict[str, bytes | str]:
    if result.key == os.environ["MEDCLIP_TEST_VICTIM"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode_study(result, *arguments)


def test_reading_processes_that_write_results_import_no_torch() -> None:
    code = "import sys, medclip.export.source_headers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_that_are_given_one_by_one_have_results_too(pack: Path, tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / "in" / "1.dcm", 1)]
    run = score(paths, tmp_path / "out", model=pack, **CALL, export=in_folder(tmp_path / "to", "fhir-r5"))
    assert run.exported is not None
    assert run.exported["written"] == {"fhir-r5": 1}
    (file,) = (tmp_path / "to" / "fhir-r5").iterdir()
    assert PLANTED["PatientID"] in json.dumps(json.loads(file.read_text()))


def test_results_of_another_run_are_not_replaced(pack: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_dicom(tmp_path / name / "1.dcm", 1)
    calls: dict[str, Any] = {"model": pack, **CALL, "export": in_folder(tmp_path / "to", "sr")}
    score(tmp_path / "one", tmp_path / "out", **calls)
    before = bytes_of(tmp_path / "to")
    with pytest.raises(MedclipError, match="another folder of results: the run differs") as refused:
        score(tmp_path / "one", tmp_path / "out2", prompt="a tube", **calls)
    assert refused.value.reason is Reason.OUTPUT_IN_USE
    assert bytes_of(tmp_path / "to") == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"export": "hl7"}, "results have no format 'hl7'"),
        ({"export": ["sr=to", "fhir-r5=other"]}, "results go to one folder in a call, not to 2"),
        ({"export": "sr:chest_xray_view:pa"}, "what is drawn is named of heat maps alone, not of sr"),
        ({"export": "csv=to"}, "CSV tables lie beside the others"),
        ({"hash_paths": True}, "paths are hashed"),
        ({"export": "sr=in/results"}, "would take them for new files"),
        ({"export": "sr=out"}, "this is the output folder"),
        ({"export": "sr=file"}, "this is a file"),
        ({"export": "sr=full"}, "holds 1 other file and no folder of results"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    pack: Path, tmp_path: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(MedclipError, match=words):
        score("in", "out", model=pack, **{"export": "sr=to", **changes})
    assert not os.path.exists("out")

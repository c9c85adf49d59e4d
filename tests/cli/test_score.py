"""`medclip score`: exit codes, JSON, and what a person reads."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from medclip.cli.main import main
from medclip.files.pseudonyms import load_key
from medclip.settings import Settings
from tests.kits.scoring import make_pack, small_folder, write_dicom, write_png


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


def _score(*arguments: object) -> int:
    return main(["score", *map(str, arguments), "--workers", "1"])


def test_it_exits_with_0_when_all_is_scored_and_3_when_files_failed(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "good" / "1.dcm", 1)
    assert _score(tmp_path / "good", "--out", tmp_path / "out1", "--model", pack) == 0
    assert "1 file: 1 scored in 1 study." in capsys.readouterr().out
    small_folder(tmp_path / "mixed")
    assert _score(tmp_path / "mixed", "--out", tmp_path / "out2", "--model", pack) == 3
    captured = capsys.readouterr()
    assert "failed: truncated" in captured.out
    assert "Reading and scoring: 11 of 11" in captured.err


def test_the_place_of_the_report_cannot_drive_the_terminal(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    assert _score(tmp_path / "in", "--out", tmp_path / "out\x1b[31m", "--model", pack) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "out\\x1b[31m/report.html" in text


def test_an_output_that_cannot_be_written_is_one_sentence_and_exit_code_2(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    for out in ("/proc/foo", tmp_path / ("a" * 300)):
        assert _score(tmp_path / "in", "--out", out, "--model", pack) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert "bug" not in said


def test_results_for_other_systems_are_counted_with_those_that_have_none_and_why(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    write_png(tmp_path / "in" / "2.png", 2)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--modality", "xray")
    asked = ("--export", f"sr={tmp_path / 'to'}", "--export", f"fhir-r5={tmp_path / 'to'}")
    assert _score(*arguments, *asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "DICOM SR: 1 study; 1 without (no DICOM header 1)" in lines
    assert "FHIR R5: 2 studies" in lines
    assert lines[-1] == f"Results: {tmp_path / 'to'}"
    assert _score(*arguments, *asked, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert (results["written"], results["without"]) == ({"sr": 1, "fhir-r5": 2}, {"sr": {"no DICOM header": 1}})
    assert _score(*arguments, "--export", "sr=") == 2
    assert "no folder for them" in capsys.readouterr().err


def test_json_prints_the_counts_and_nothing_else(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_key(Settings())  # a new one would be said
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--task", "chest_xray_view", "--json")
    assert _score(*arguments) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["files"], said["scored"], said["exit_code"]) == (1, 1, 0)
    assert Path(said["report"]).is_file()
    assert captured.err == ""


def test_a_few_studies_have_their_answers_in_the_terminal_and_in_json_as_the_report_has_them(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "JANE.dcm", 1)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--task", "chest_xray_view")
    assert _score(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Study 1: X-ray, file 1"
    assert _score(*arguments, "--json") == 0
    printed = capsys.readouterr().out
    assert "JANE" not in printed
    (study,) = json.loads(printed)["answers"]
    (answer,) = study["answers"]
    table = parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    likeliest = max(table, key=lambda row: row["probability"])
    assert (study["study"], answer["class"]) == (likeliest["study"], likeliest["class"])
    assert answer["probability"] == likeliest["probability"]
    report = (tmp_path / "out" / "report.html").read_text()
    shown = f"{answer['class_title']} {100 * answer['probability']:.0f} %"
    assert shown in lines[2]
    assert f'<th scope="row">{answer["class_title"]}</th>' in report
    assert f">{100 * answer['probability']:.0f} %</td>" in report


def test_of_many_studies_one_line_says_where_the_answers_are(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        write_png(tmp_path / "in" / f"{seed}.png", seed)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--modality", "xray")
    assert _score(*arguments, "--group-by", "file") == 0
    printed = capsys.readouterr().out
    assert f"Answers: {tmp_path / 'out' / 'scores.parquet'}, and study by study in the report." in printed
    assert "Study 1" not in printed
    assert _score(*arguments, "--group-by", "file", "--json") == 0
    assert "answers" not in json.loads(capsys.readouterr().out)


def test_wrong_use_exits_with_2_and_one_sentence(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "gone",), "no such file or folder"),
        ((tmp_path / "empty",), "no file in this folder"),
        ((tmp_path / "empty", "--task", "stroke"), "Tasks are: "),
        ((tmp_path / "empty", "--modality", "xrai"), "Modalities are: "),
    ):
        assert _score(*arguments, "--out", tmp_path / "out", "--model", pack) == 2
        captured = capsys.readouterr().err
        assert said in captured
        assert "Traceback" not in captured
    assert not (tmp_path / "out").exists()


def test_another_order_writes_the_report_anew_and_computes_nothing(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        write_png(tmp_path / "in" / f"{seed}.png", seed)
    arguments = (
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--model",
        pack,
        "--modality",
        "xray",
        "--group-by",
        "file",
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("report:\n  sort_by: chest_xray_view:pa\n")
    assert _score(*arguments, "--recipe", recipe) == 0
    assert "Sorted by the probability of" in (tmp_path / "out" / "report.html").read_text()
    scores = (tmp_path / "out" / "scores.parquet").read_bytes()
    capsys.readouterr()
    for order in ("chest_xray_findings:effusion", None):
        again = () if order is None else ("--sort-by", order)
        assert main(["report", str(tmp_path / "out"), *again]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.html'}"
        report = (tmp_path / "out" / "report.html").read_text()
        assert ("Sorted by the probability of <strong>Pleural effusion</strong>" in report) == (order is not None)
        keys = re.findall(r'title="Keyed hash of the study">(\w+)<', report)
        rows = [
            row
            for row in parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
            if row["class"] == "effusion"
        ]
        if order:
            rows.sort(key=lambda row: -row["probability"])
        assert keys == [row["study"] for row in rows]
    assert (tmp_path / "out" / "scores.parquet").read_bytes() == scores


@pytest.mark.parametrize(
    ("named", "answer"),
    [
        ("chest_view:pa", "no task of this run. Did you mean 'chest_xray_view'?"),
        ("chest_xray_findings:efusion", "no class of the task chest_xray_findings. Did you mean 'effusion'?"),
        (
            "chest_xray_view",
            "has 3 classes; studies are sorted by one, named as TASK:CLASS. Its classes are: ap, pa, la",
        ),
        ("stroke", "no task of this run. Its tasks are: "),
        ("a pacemaker: old", "no task of this run. Did you mean 'prompt:a pacemaker: old'?"),
        ("effusion", "no task of this run. Did you mean 'chest_xray_findings:effusion'?"),
        ("prompt:a pacemaker", "no class of the task prompt. Did you mean 'a pacemaker: old'?"),
    ],
)
def test_a_mistyped_order_is_asked_back_before_anything_is_read(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str, answer: str
) -> None:
    write_png(tmp_path / "in" / "1.png", 1)
    asked = ("--task", "chest_xray_view", "--task", "chest_xray_findings", "--prompt", "a pacemaker: old")
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, *asked)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"report": {"sort_by": named}}))
    assert _score(*arguments, "--recipe", recipe) == 2
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert _score(*arguments, "--modality", "xray") == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out"), "--sort-by", named]) == 2
    assert answer in capsys.readouterr().err


def test_studies_can_be_sorted_by_a_sentence_of_ones_own(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--prompt", "a heart: large")
    assert _score(*arguments) == 0
    for named in ("prompt", "prompt:a heart: large"):
        assert main(["report", str(tmp_path / "out"), "--sort-by", named]) == 0
        report = (tmp_path / "out" / "report.html").read_text()
        assert "Sorted by the probability of <strong>a heart: large</strong> (In your own words)" in report


def test_ctrl_c_says_that_finished_studies_are_kept(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.runs.units.chunk import ChunkWork

    def interrupt(self: ChunkWork) -> None:
        raise KeyboardInterrupt

    write_dicom(tmp_path / "in" / "1.dcm", 1)
    with monkeypatch.context() as patched:
        patched.setattr(ChunkWork, "finish", interrupt)
        assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 130
    said = capsys.readouterr().err
    assert "No study was finished yet; run the same command again" in said
    assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 0


def test_ctrl_c_after_a_commit_says_that_finished_studies_are_kept(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.scoring import scoring_run

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_dicom(tmp_path / "in" / "1.dcm", 1)
    monkeypatch.setattr(scoring_run, "write_results", interrupt)
    assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 130
    assert "Finished studies are kept" in capsys.readouterr().err


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_run_writes_is_its_owners_alone_and_a_folder_that_exists_keeps_its_mode(
    tmp_path: Path, exists: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("no image")
    out = tmp_path / "above" / "out"
    if exists:
        out.mkdir(parents=True)
        out.chmod(0o755)
    before = os.umask(0o022)
    try:
        assert main(["score", str(tmp_path / "in"), "--out", str(out)]) == 0
    finally:
        assert os.umask(before) == 0o022, "the caller's is as it was"
    assert out.stat().st_mode & 0o777 == (0o755 if exists else 0o700)
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"files.parquet", "ledger.sqlite", "report.html", "run.json"} <= {path.name for path in written}
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


def test_a_file_that_may_not_be_read_is_a_row_and_exit_code_3(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dicom(tmp_path / "1.dcm", 1)
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode, **k: Path(p) != path and access(p, mode, **k))
    assert _score(path, "--out", tmp_path / "out", "--model", pack) == 3
    assert "1 failed: permission denied" in capsys.readouterr().out


def test_opposites_that_are_not_one_for_each_prompt_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--prompt", "a", "--prompt", "b", "--against", "c")
    assert _score(tmp_path, "--out", tmp_path / "out", *words) == 2
    assert "come in pairs: 2 and 1 were given" in capsys.readouterr().err


def test_rows_of_the_table_that_name_nothing_here_are_counted_in_one_line(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    write_dicom(tmp_path / "other" / "2.dcm", 2)
    (tmp_path / "t.csv").write_text("file\nin/1.dcm\nother/2.dcm\n")
    assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--table", tmp_path / "t.csv") == 0
    assert "Rows of the table that name no file here: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["full", "closed", "none"])
def test_a_standard_error_that_takes_nothing_does_not_stop_a_run(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = Full() if broken == "full" else io.StringIO()
    stream.close() if broken == "closed" else None
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    monkeypatch.setattr(sys, "stderr", None if broken == "none" else stream)
    assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 0
    assert _score(tmp_path / "gone", "--out", tmp_path / "out2", "--model", pack) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.nightly)]
)
def test_a_scheduler_and_a_person_stop_a_run_alike_and_it_goes_on(pack: Path, tmp_path: Path, number: int) -> None:
    for n in range(600):
        write_dicom(tmp_path / "in" / f"{n}.dcm", n)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "medclip.cli.main", "score", tmp_path / "in", "--out", out, "--model", pack]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if (out / "ledger.sqlite").exists():
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "medclip: interrupted." in shown
    assert "run the same command again to go on" in shown
    assert "Traceback" not in shown
    assert _score(tmp_path / "in", "--out", out, "--model", pack) == 0

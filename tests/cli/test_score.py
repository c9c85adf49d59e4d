"""`medclip score`: exit codes, JSON, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.cli.main import main
from medclip.cli.progress import PlainProgress, duration
from tests.scoring.kit import make_pack, small_folder, write_dicom


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


def test_json_prints_the_counts_and_nothing_else(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "in" / "1.dcm", 1)
    arguments = (tmp_path / "in", "--out", tmp_path / "out", "--model", pack, "--task", "chest_xray_view", "--json")
    assert _score(*arguments) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["files"], said["scored"], said["exit_code"]) == (1, 1, 0)
    assert Path(said["report"]).is_file()
    assert captured.err == ""


def test_wrong_use_exits_with_2_and_one_sentence(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "gone",), "no such file or folder"),
        ((tmp_path / "empty",), "no file in this folder"),
        ((tmp_path / "empty", "--task", "stroke"), "All tasks: "),
        ((tmp_path / "empty", "--modality", "xrai"), "The modalities are: "),
    ):
        assert _score(*arguments, "--out", tmp_path / "out", "--model", pack) == 2
        captured = capsys.readouterr().err
        assert said in captured
        assert "Traceback" not in captured
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_that_finished_studies_are_kept(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medclip.scoring.chunk import ChunkWork

    def interrupt(self: ChunkWork) -> None:
        raise KeyboardInterrupt

    write_dicom(tmp_path / "in" / "1.dcm", 1)
    with monkeypatch.context() as patched:
        patched.setattr(ChunkWork, "finish", interrupt)
        assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert _score(tmp_path / "in", "--out", tmp_path / "out", "--model", pack) == 0


def test_plain_progress_says_a_line_at_the_end_of_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    shown.stage("Reading", 1000)
    for _ in range(1000):
        shown.step()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Reading: 1000"
    assert lines[-1] == "Reading: 1000 of 1000"
    assert len(lines) < 20


def test_durations_are_in_the_unit_a_person_would_use() -> None:
    assert [duration(s) for s in (0.2, 45, 600, 9000)] == ["1 s", "45 s", "10 min", "2.5 h"]

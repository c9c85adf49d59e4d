"""`medclip view`: what it says, and that it refuses in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.make_phantoms import ct_series
from medclip.cli.main import main
from tests.kits.scoring import write_dicom, write_png


def _view(path: Path, out: Path, *options: str) -> int:
    return main(["view", str(path), "--out", str(out), *options])


def test_of_several_things_it_says_which_one_it_drew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_dicom(tmp_path / "in" / f"{number}.dcm", number, study_uid=f"1.2.{number + 1}")
    assert _view(tmp_path / "in", tmp_path / "x.png", "--number", "2") == 0
    assert capsys.readouterr().out.startswith("2 of 3: --number N for another\nX-ray image: 1 file, 1 view, ")
    assert _view(tmp_path / "in" / "0.dcm", tmp_path / "x.png", "--overwrite") == 0
    assert "--number" not in capsys.readouterr().out


def test_a_warning_of_burned_in_text_is_in_the_text_and_in_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct_series(tmp_path / "ct", num_slices=3, size=48, BurnedInAnnotation="YES")
    assert _view(tmp_path / "ct", tmp_path / "x.png") == 0
    said = "the header says that text is burned into the pixels: look before you share"
    assert f"Warning: {said}." in capsys.readouterr().out
    assert _view(tmp_path / "ct", tmp_path / "x.png", "--json", "--overwrite") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["warning"], found["headers"]["burned_in"]) == (said, True)


def test_the_name_of_the_image_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_png(tmp_path / "a.png", 1)
    assert _view(path, tmp_path / "x\x1b[31m.png", "--modality", "xray") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "x\\x1b[31m.png" in text


def test_a_wrong_output_or_window_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_png(tmp_path / "a.png", 1)
    for out, options in (
        (path, ()),
        (tmp_path, ()),
        (Path("/proc/x.png"), ()),
        (tmp_path / f"{'a' * 300}.png", ()),
        (tmp_path / "x.png", ("--window", "foo")),
    ):
        assert _view(path, out, "--modality", "xray", *options) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert "bug" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_a_file_that_may_not_be_read_has_a_reason_and_no_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_png(tmp_path / "a.png", 1)
    opened = Path.open

    def denied(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", denied)
    assert _view(path, tmp_path / "x.png") == 2
    said = capsys.readouterr().err
    assert said == f"medclip: {path}: the file may not be read; check its permissions.\n"

"""`medclip evaluate`: exit codes, JSON, and what a person reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from medclip.cli.evaluate import print_evaluated
from medclip.cli.main import main
from tests.kits.evaluation import SUITE, small_data
from tests.kits.scoring import make_pack


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_pack(folder / "tiny")
    small_data(folder / "data")
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def run(place: Path, *more: object, data: Path | None = None) -> int:
    named = ["--model", place / "tiny", "--suite", place / "suite.yaml", "--data", data or place / "data"]
    return main(["evaluate", *map(str, [*named, "--workers", 1, *more])])


def test_it_prints_the_table_and_exits_with_3_when_an_image_could_not_be_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "--out", tmp_path / "out") == 3
    said = capsys.readouterr()
    assert "small · tiny 1" in said.out
    assert "not read:" in said.out
    assert f"Results: {tmp_path / 'out'}" in said.out
    assert "eyes: 7" in said.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "evaluate.json",
        "predictions.parquet",
        "run.json",
        "sets",
    ]


def test_it_exits_with_0_when_all_images_were_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--dataset", "chests") == 0
    said = capsys.readouterr().out
    assert "Not asked for: eyes." in said
    assert "Results" not in said


def test_json_is_one_object_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--json", "--dataset", "eyes", "--dataset", "chests") == 3
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert said.err == ""
    assert [s["id"] for s in values["sets"]] == ["eyes", "chests"]
    assert values["num_problems"] == 1


@pytest.mark.parametrize("what", ["set", "data", "label", "device"])
def test_wrong_use_is_one_line_and_exit_code_2(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "eyes" / "strange").mkdir()
    wrong = {
        "set": (["--dataset", "ears"], None),
        "data": ([], tmp_path / "gone"),
        "label": (["--dataset", "eyes"], tmp_path / "data"),
        "device": (["--device", "toaster"], None),
    }
    options, data = wrong[what]
    assert run(place, *options, data=data) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "bug" not in said


@pytest.mark.parametrize("out", ["suite.yaml/x", "x" * 300, "/proc/x"])
def test_a_place_where_nothing_can_be_written_is_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    assert run(place, "--dataset", "chests", "--json", "--out", place / out) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "cannot be written" in said


def test_a_set_that_does_not_fit_is_named_and_the_others_are_measured(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "eyes" / "strange").mkdir()
    assert run(place, data=tmp_path / "data") == 3
    said = capsys.readouterr().out
    assert "Unusable: 1 of 2 sets" in said
    assert "eyes/strange: the folder's name is 'strange'" in said
    assert "Average over 1 of 2 sets" in said
    assert run(place, "--json", data=tmp_path / "data") == 3
    values = json.loads(capsys.readouterr().out)
    assert [u["id"] for u in values["unusable"]] == ["eyes"]
    assert [s["id"] for s in values["sets"]] == ["chests"]


def test_a_name_in_the_figures_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    result = SimpleNamespace(lines=lambda: ["pack\x1b[2J: 0.5"], folder=None, num_problems=0, unusable=())
    assert print_evaluated(result, False, {}) == 0
    assert capsys.readouterr().out == "pack\\x1b[2J: 0.5\n"


def test_prompt_sensitivity_and_another_pack_are_options_of_the_command(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--dataset", "chests", "--prompt-sensitivity", "--compare", place / "tiny", "--num-resamples", 50)
    assert run(place, *asked) == 0
    printed = capsys.readouterr().out
    assert "tiny 1 less tiny 1, on the same images and patients" in printed
    assert "one sentence for each class, so that there is nothing to vary" in printed
    assert run(place, *asked, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["compared"]["sets"][0]["difference"]["value"] == 0

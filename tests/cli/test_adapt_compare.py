"""`medclip adapt compare`: the command's options reach the comparison, and its exit code says whether all went well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.cli.main import main
from tests.kits.few_shot import table
from tests.kits.scoring import make_pack


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    pack, labels = make_pack(folder / "tiny"), table(folder / "data")
    return [
        "adapt",
        "compare",
        "--model",
        str(pack),
        "--labels",
        str(labels),
        "--label",
        "shape",
        "--shots",
        "1",
        "--shots",
        "2",
    ]


def test_it_writes_page_and_tables_and_prints_the_figures(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--method", "zero-shot", "--method", "ridge", "--num-seeds", "1"]) == 0
    for name in ("report.html", "results.csv", "paired.csv", "runs.parquet", "predictions.parquet", "compare.json"):
        assert (out / name).is_file()
    shown = capsys.readouterr().out
    assert "Balanced accuracy" in shown
    assert "ridge" in shown
    assert "report.html" in shown


def test_json_is_one_object_and_a_failed_method_gives_exit_code_3(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["--method", "ridge", "--method", "svd:lr=1e30", "--num-seeds", "1", "--json"]
    assert main([*command, "--out", str(tmp_path / "out"), *asked]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out)["failures"][0]["method"] == "svd:lr=1e30"
    assert shown.err == ""


@pytest.mark.parametrize(
    "wrong",
    [
        ["--method", "nonsense"],
        ["--method", "knn:nonsense=1"],
        ["--method", "ridge", "--method", "svd:layers=99"],
        ["--label", "no_such_column"],
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    command: list[str], wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*command, "--out", str(tmp_path / "out"), *wrong]) == 2
    assert capsys.readouterr().err.startswith("medclip: ")


@pytest.mark.parametrize("shots", ["one", "0"])
def test_shots_are_whole_numbers(command: list[str], shots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*command, "--out", str(tmp_path / "out"), "--shots", shots]) == 2
    assert "Invalid value for '--shots'" in " ".join(capsys.readouterr().err.split())


def test_a_recipe_names_what_is_compared_and_the_command_line_overrides_it(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("method: [zero-shot, ridge]\nnum_seeds: 3\ntest_share: 0.3\n")
    asked = ["--recipe", str(recipe), "--num-seeds", "1", "--json"]
    assert main([*command, "--out", str(tmp_path / "out"), *asked]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["seeds"] == [0]
    assert {cell["method"] for cell in values["cells"]} == {"zero-shot", "ridge"}

"""The command line of `medclip monitor`."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from medclip.cli.main import main
from tests.kits.watched import write_run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Results of before, and later ones in which pneumonia has higher scores."""
    return (
        write_run(tmp_path / "before", patients=range(100)),
        write_run(tmp_path / "later", patients=range(200, 300), seed=1, shift=1.5),
    )


def test_a_clear_change_is_exit_code_3_and_a_sentence_and_no_change_is_0(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, later = map(str, runs)
    out = tmp_path / "out"
    assert main(["monitor", later, "--before", before, "--out", str(out), "--num-resamples", "200"]) == 3
    printed = capsys.readouterr().out
    assert "1 run compared with before." in printed
    assert "large:  Chest: pneumonia: mean probability" in printed
    assert f"Page: {out / 'report.html'}" in printed
    copytree(before, again := str(tmp_path / "again"))
    same = ["monitor", again, "--before", before, "--out", str(out), "--num-resamples", "200"]
    assert main(same) == 0
    assert "none differs from the reference" in capsys.readouterr().out


def test_json_is_printed_and_nothing_else(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, later = map(str, runs)
    copytree(later, again := str(tmp_path / "again"))
    arguments = ["monitor", later, "--before", before, "--compare", again, "--num-resamples", "100", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 3
    read = json.loads(capsys.readouterr().out)
    assert read["by"] == "run"
    assert read["num_paired"] == {"both": 100, "only_new": 0, "only_old": 0}
    assert {one["num_to_yes"] for one in read["compared"]} == {0}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--period", "week"], "no file of these results has a week"),
        (["--period", "day"], "period is one of week, month and run"),
        (["--min-probability", "1.5"], "Invalid value for '--min-probability'"),
        ([], "there is one run only"),
        (["--before", "nowhere"], "no finished scoring run"),
    ],
)
def test_wrong_use_exits_with_2_and_one_sentence(
    arguments: list[str],
    sentence: str,
    runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["monitor", str(runs[0]), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_where_every_period_is_too_small_nothing_was_compared_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, later = (write_run(tmp_path / name, patients=range(5), seed=n) for n, name in enumerate(("may", "june")))
    arguments = ["monitor", str(later), "--before", str(before), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "Nothing was compared: 20 patients are needed" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2

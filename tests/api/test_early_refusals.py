"""What is wrong with a call is said before anything is read: every source below leads nowhere, and is not asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.cli.main import main
from medclip.errors import MedclipError, Reason

CALLS: dict[str, Any] = {
    "adapt": lambda **more: medclip.adapt("nowhere.csv", "flu", **more),
    "compare": lambda **more: medclip.compare("nowhere.csv", "flu", **{"out": "new", **more}),
    "evaluate": lambda **more: medclip.evaluate("nowhere", **more),
    "score": lambda **more: medclip.score(".", **more),  # a path where nothing is is refused first of all
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(verb: str, **more: Any) -> MedclipError:
    with pytest.raises(MedclipError) as refused:
        CALLS[verb](**more)
    assert [path.name for path in Path().iterdir() if path.name != "full"] == []
    return refused.value


@pytest.mark.parametrize("verb", ["adapt", "compare", "evaluate"])
def test_a_full_folder_and_a_device_that_is_not_there_are_refused_before_anything_is_read(verb: str):
    Path("full").mkdir()
    Path("full", "thesis.txt").touch()
    assert refusal(verb, out="full").reason is Reason.OUTPUT_IN_USE
    assert "the device 'gpu'" in refusal(verb, device="gpu").message


@pytest.mark.parametrize("verb", ["adapt", "evaluate", "score"])
def test_no_reading_process_is_refused_in_every_verb_in_the_words_of_the_commands(verb: str, capsys: Any):
    for workers in (0, -1):
        error = refusal(verb, workers=workers)
        assert error.message == f"files are read by 1 process or more, not by {workers}."
    Path("full").mkdir()
    assert main(["score", "full", "--out", "out", "--workers", "-1"]) == 2
    assert error.message in capsys.readouterr().err
    with pytest.raises(MedclipError, match="not by 0"):
        medclip.Settings(workers=0)


def test_a_file_in_place_of_the_data_folder_is_told_what_is_expected():
    Path("full").touch()
    with pytest.raises(MedclipError, match="this is a file; the data of a suite is a folder") as refused:
        medclip.evaluate("full")
    assert refused.value.reason is Reason.WRONG_USE


def test_a_mistyped_path_is_refused_before_anything_heavy_is_imported():
    code = (
        "import sys; from medclip.cli.main import main; code = main(['score', 'nowhere', '--out', 'new']); "
        "print(code, sorted({'numpy', 'torch', 'pyarrow', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert "nowhere: there is no such file or folder. Check the path." in done.stderr

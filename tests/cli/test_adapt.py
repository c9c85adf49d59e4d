"""The command `medclip adapt`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medclip.adaptation.methods import of_labels
from medclip.cli.main import main
from tests.kits.adapt_tables import make_table, tiny

__all__ = ["tiny"]


def arguments(tiny: Path, table: Path, out: Path, *more: str) -> list[str]:
    named = {"model": tiny, "labels": table, "label": "finding", "method": "tip", "shots": 2, "workers": 1, "out": out}
    return ["adapt", *(part for key, value in named.items() for part in (f"--{key}", str(value))), *more]


def test_it_says_who_was_learned_from_and_how_good_it_is(tiny: Path, tmp_path: Path, capsys):
    table = make_table(tmp_path, patients=18)
    assert main(arguments(tiny, table, tmp_path / "pack")) == 0
    said = capsys.readouterr().out
    assert "Finding: clear or hazy" in said
    assert "36 labelled files of 36 patients: 28 to learn from and 8 to test on" in said
    assert "Shots: clear 2, hazy 2; 4 files of 4 patients, and 4 further ones to choose settings with" in said
    assert "balanced accuracy" in said
    assert "On 8 files of 8 test patients; 95 % intervals resample patients." in said
    assert "Unlike the published code: β is searched further than published" in said
    assert "MRN" not in said
    assert main(["models", "show", str(tmp_path / "pack")]) == 0
    shown = capsys.readouterr().out
    assert "adapted with Tip-Adapter from 2 patients of each class (4 files in all), on tiny 7" in shown


def test_it_says_what_was_chosen_on_what_and_what_that_was_worth(tiny: Path, tmp_path: Path, capsys):
    table = make_table(tmp_path, patients=8)
    assert main(arguments(tiny, table, tmp_path / "pack", "--method", "clip-adapter", "--set", "epochs=2")) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.split("\n") if line.startswith("Settings: "))
    assert re.fullmatch(
        r"Settings: lr 0\.[0-9]+, chosen on val: log loss \d\.\d{3}, zero-shot \d\.\d{3}; 8 images at each of 3 rates",
        line,
    )


def test_what_svd_changed_is_listed_with_sentences_and_refused_of_other_ways(tiny: Path, tmp_path: Path, capsys):
    table = make_table(tmp_path, patients=8)
    svd = ["--method", "svd", "--set", "steps=2", "--set", "lr=0.01", "--changes"]
    assert main(arguments(tiny, table, tmp_path / "pack", *svd, "--json")) == 0
    values = json.loads(capsys.readouterr().out)
    assert 0 < len(values["changes"]) <= 8
    first = values["changes"][0]
    assert first["part"]["layer"].startswith("visual.")
    assert first["part"]["change"] > 0
    assert first["effect"] > 0
    assert 0 < sum(share for _, share in first["sentences"]) <= 1
    assert main(arguments(tiny, table, tmp_path / "other", "--changes")) == 2
    assert "singular values of svd; tip has none" in capsys.readouterr().err


def test_json_is_one_object_and_a_file_that_cannot_be_read_gives_exit_code_3(tiny: Path, tmp_path: Path, capsys):
    table = make_table(tmp_path, patients=8)
    for file in (tmp_path / "clear").iterdir():
        if file.name < "02":
            file.write_bytes(b"")
    assert main(arguments(tiny, table, tmp_path / "pack", "--json", "--checkpoint", str(tmp_path / "small"))) == 3
    out = capsys.readouterr().out
    values = json.loads(out)
    assert values["problems"].keys() == {"empty_file"}
    assert len(values["shots_taken"]) == 8
    assert {s["role"] for s in values["shots_taken"]} == {"train", "val"}
    assert values["figures"]["balanced_accuracy"].keys() == {"adapted", "zero_shot", "gain"}
    assert "MRN" not in out
    assert (tmp_path / "small" / "adapted.json").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "magic"], "there is no method named 'magic'"),
        (["--set", "steps"], "--set takes KEY=VALUE"),
        (["--set", "colour=red"], "no such option"),
        (["--task", "chest_xray_view"], "is no class of the task"),
        (["--out", "."], "the"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(more: list[str], said: str, tiny: Path, tmp_path: Path, capsys):
    table = make_table(tmp_path, patients=4)
    assert main(arguments(tiny, table, tmp_path / "pack", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("medclip: ")
    assert said in error


def test_help_names_every_method(capsys):
    assert main(["adapt", "--help"]) == 0
    said = "".join(capsys.readouterr().out.replace("│", " ").split())
    names = [method.name for method in of_labels()]
    assert ",".join(names).replace(",full", "orfull") in said
    assert "ofmapsmap-probe" in said
    assert "Default:svd;" in said

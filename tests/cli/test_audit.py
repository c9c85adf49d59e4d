"""The command `medclip audit`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import medclip
from medclip.cli.main import main
from tests.kits.audit_tables import audit_table

QUICK = ("--num-resamples", "100", "--num-permutations", "100")


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Scores and labels as two CSV files."""
    table = audit_table(150, splits=True)
    table[["image", "flu_score"]].rename(columns={"flu_score": "flu"}).to_csv(tmp_path / "model-a.csv", index=False)
    table.drop(columns="flu_score").to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "model-a.csv", tmp_path / "labels.csv"


def command(tables: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    return ["audit", str(tables[0]), "--labels", str(tables[1]), "--by", "sex", "--out", str(out), *QUICK, *more]


def test_it_writes_a_page_and_tables_and_says_what_was_found(tables, tmp_path: Path, capsys):
    out = tmp_path / "out"
    more = ("--where", "split=test", "--choose-where", "split=val", "--by", "age", "--age-bins", "0,40,60")
    assert main(command(tables, out, *more)) == 0
    said = capsys.readouterr()
    assert "model-a" in said.out
    assert said.out.startswith("What was found: ")
    assert "Page:" in said.out
    assert {"report.html", "model_card_section.md", "audit.json", "metrics.csv", "gaps.parquet", "thresholds.json"} <= {
        f.name for f in out.iterdir()
    }
    everything = said.out + said.err + "".join(f.read_text(errors="replace") for f in out.iterdir() if f.is_file())
    assert "img3" not in everything
    assert "fair model" not in everything


def test_the_same_command_gives_the_same_bytes(tables, tmp_path: Path):
    for name in ("one", "two"):
        assert main(command(tables, tmp_path / name)) == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_json_is_one_object(tables, tmp_path: Path, capsys):
    assert main(command(tables, tmp_path / "out", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == ["flu"]
    assert found["tables"]["gaps"]


def test_another_model_is_compared_by_its_name(tables, tmp_path: Path, capsys):
    other = tmp_path / "b.csv"
    other.write_bytes(tables[0].read_bytes())
    assert main(command(tables, tmp_path / "out", "--compare", f"second={other}", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["model-a", "second"]


def test_files_of_one_name_in_two_folders_need_names_and_a_path_may_hold_an_equals_sign(tables, tmp_path: Path, capsys):
    for folder in ("x=1", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.csv").write_bytes(tables[0].read_bytes())
    two = [part for f in ("x=1", "y") for part in ("--compare", str(tmp_path / f / "s.csv"))]
    assert main(command(tables, tmp_path / "out", *two)) == 2
    assert "'s' is there twice" in capsys.readouterr().err
    assert main(command(tables, tmp_path / "out", *two[:2], "--json")) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["model-a", "s"]


def test_a_place_that_cannot_take_the_results_is_refused_before_anything_is_measured(tables, tmp_path: Path, capsys):
    assert main(command(tables, tables[0])) == 2
    assert "the audit is a folder" in capsys.readouterr().err
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "report.html").write_text("mine")
    assert main(command(tables, tmp_path / "used")) == 2
    assert "1 other file and no audit; nothing was changed" in capsys.readouterr().err
    assert (tmp_path / "used" / "report.html").read_text() == "mine"


def test_a_leak_ends_with_exit_code_6_after_everything_is_written(tables, tmp_path: Path, capsys):
    table = audit_table(150, splits=True)
    table.loc[table.index[0], "split"] = "test"
    table.loc[table.index[1], "split"] = "val"
    table.drop(columns="flu_score").to_csv(tables[1], index=False)
    assert main(command(tables, tmp_path / "out", "--where", "split=test", "--threshold", "0.4")) == 6
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--by", "planet"], "there is no column 'planet'"),
        (["--policy", "best", "--choose-where", "split=val", "--where", "split=test"], "no rule for choosing"),
        (["--threshold", "0.5", "--choose-where", "split=val"], "not from two of them"),
        (["--where", "split"], "--where takes COLUMN=VALUE"),
        (["--bins", "tube=a,b"], "--bins takes numbers"),
        (["--value", "sex=M"], "--value takes COLUMN:VALUE=MEANING"),
        (["--long", "flu"], "--long takes two columns"),
        (["--policy", "f1", "--threshold", "0.4"], "needs other patients to choose on"),
        (["--threshold", "7"], "but scores are probabilities"),
        (["--threshold", "nan"], "is not a finite number"),
        (["--masked", "no.csv"], "need the column that says where the device is"),
        (["--attacker", "--study", "image"], "--study and --attacker: this is asked of embeddings"),
        (["--key-file", "no.key"], "there is no such key file"),
        (["--compare", "b=missing.csv"], "no such file or folder of scores"),
        (["--horizon", "3"], "a horizon needs times to events"),
        (["--scores-are", "odds"], "is one of probabilities, logits and any, not 'odds'"),
        (["--choose-where", "split=val"], "are also in the data that thresholds are chosen on"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(tables, tmp_path: Path, capsys, more: list[str], said: str):
    assert main(command(tables, tmp_path / "out", *more)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def recipe(tables: tuple[Path, Path], folder: Path, more: str = "") -> Path:
    """Write the command of `command` as a recipe."""
    path = folder / "audit.yaml"
    lines = f"scores: {tables[0]}\nlabels: {tables[1]}\nby: sex\nnum-resamples: 100\nnum-permutations: 100\n{more}"
    path.write_text(lines, encoding="utf-8")
    return path


def test_a_recipe_gives_the_bytes_of_the_command(tables, tmp_path: Path):
    options = "--where split=test --choose-where split=val --by age --age-bins 0,40,60 --value sex:F=W --value sex:M=N"
    assert main(command(tables, tmp_path / "one", *options.split())) == 0
    more = "by: [sex, age]\nage_bins: [0, 40, 60]\nwhere: {split: test}\nchoose_where: {split: val}\n"
    more += "value: {sex: {F: W, M: N}}\n"
    path = recipe(tables, tmp_path, f"out: {tmp_path / 'two'}\n")
    path.write_text(path.read_text().replace("by: sex\n", more))
    assert main(["audit", str(path)]) == 0
    assert main(["audit", "--recipe", str(path), "--out", str(tmp_path / "three")]) == 0
    for file in (tmp_path / "two").iterdir():
        assert file.read_bytes() == (tmp_path / "three" / file.name).read_bytes(), file.name
    for file in (tmp_path / "one").iterdir():
        if file.name not in ("report.html", "audit.json"):  # these name the recipe
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    one, two = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("one", "two"))
    assert two["provenance"].pop("recipe_file")["name"] == path.name
    assert one["provenance"].pop("recipe_file") is None
    assert one["sealed"].pop("page") != two["sealed"].pop("page")
    assert one == two


def test_options_of_the_command_and_arguments_in_python_override_the_recipe(tables, tmp_path: Path, capsys):
    path = recipe(tables, tmp_path, f"out: {tmp_path / 'of the recipe'}\nseed: 3\n")
    assert main(["audit", str(path), "--out", str(tmp_path / "out"), "--seed", "0", "--by", "age", "--json"]) == 0
    assert not (tmp_path / "of the recipe").exists()
    settings = json.loads(capsys.readouterr().out)
    assert settings["attributes"] == ["age"]
    assert settings["provenance"]["seed"] == 0
    result = medclip.audit(path, by=["age"], out=tmp_path / "out", overwrite=True)
    assert result.attributes == ("age",)
    assert result.provenance["seed"] == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("nun_resamples: 5\n", "Did you mean 'num_resamples'?"),
        ("seed: many\n", "seed does not take 'many'"),
        ("out: page\nwhere: split\n", "--where takes COLUMN=VALUE"),
        ("", "--out FOLDER"),
        ("- 1\n", "this is not YAML"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_sentence(tables, tmp_path: Path, capsys, more: str, words: str):
    assert main(["audit", str(recipe(tables, tmp_path, more))]) == 2
    assert words in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_named_as_missing(tmp_path: Path, capsys):
    assert main(["audit", str(tmp_path / "gone.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no such recipe" in capsys.readouterr().err


def test_help_has_groups_and_the_common_options_first(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["audit", "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 45
    assert main(["audit", "--help-all"]) == 0
    text = capsys.readouterr().out
    panels = [line.split("─ ")[1].split(" ─")[0] for line in text.splitlines() if "╭─ " in line]
    assert panels[:4] == ["Arguments", "Common options", "Which column is what", "What labels mean"]
    common = text.split("Common options")[1].split("╰")[0]
    assert re.findall(r"│ (--[a-z-]+)", common) == ["--labels", "--by", "--label", "--patient", "--out", "--seed"]


def test_a_model_card_and_checklists_are_written_where_they_are_asked_for_and_go_where_they_are_not(
    tables, tmp_path: Path, capsys
):
    out = tmp_path / "out"
    assert main(command(tables, out, "--as", "chai", "--as", "tripod", "--as", "claim")) == 0
    assert (out / "applied_model_card.xml").read_text(encoding="utf-8").startswith("<?xml")
    assert "## " not in (out / "claim.md").read_text(encoding="utf-8")
    assert "| 23a |" in (out / "tripod_ai.md").read_text(encoding="utf-8")
    assert main(command(tables, out, "--overwrite")) == 0
    assert not (out / "tripod_ai.md").exists()
    capsys.readouterr()
    assert main(command(tables, tmp_path / "other", "--as", "chia")) == 2
    assert "Did you mean 'chai'?" in capsys.readouterr().err

"""The command `medclip audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medclip.cli.main import main
from tests.kits.audit_tables import audit_table

QUICK = ("--num-resamples", "100", "--permutations", "100")


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
    assert "Gaps" in said.out
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
    assert "results need a folder" in capsys.readouterr().err
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "report.html").write_text("mine")
    assert main(command(tables, tmp_path / "used")) == 2
    assert "holds files that are not of an audit" in capsys.readouterr().err
    assert (tmp_path / "used" / "report.html").read_text() == "mine"


def test_a_leak_ends_with_exit_code_1_after_everything_is_written(tables, tmp_path: Path, capsys):
    table = audit_table(150, splits=True)
    table.loc[table.index[0], "split"] = "test"
    table.loc[table.index[1], "split"] = "val"
    table.drop(columns="flu_score").to_csv(tables[1], index=False)
    assert main(command(tables, tmp_path / "out", "--where", "split=test", "--threshold", "0.4")) == 1
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--by", "planet"], "there is no column 'planet'"),
        (["--policy", "best", "--choose-where", "split=val", "--where", "split=test"], "no rule for choosing"),
        (["--threshold", "0.5", "--choose-where", "split=val"], "not from two of them"),
        (["--where", "split"], "--where takes NAME=VALUE"),
        (["--bins", "tube=a,b"], "--bins takes numbers"),
        (["--value", "sex=M"], "--value takes COLUMN:VALUE=MEANING"),
        (["--long", "flu"], "--long takes two columns"),
        (["--policy", "f1", "--threshold", "0.4"], "needs other patients to choose on"),
        (["--threshold", "7"], "but scores are probabilities"),
        (["--threshold", "nan"], "is not a finite number"),
        (["--masked", "no.csv"], "need the column that says where the device is"),
        (["--attacker", "--study", "image"], "study, attacker: this is asked of embeddings"),
        (["--key-file", "no.key"], "there is no such key file"),
        (["--compare", "b=missing.csv"], "no such file or folder of scores"),
        (["--horizon", "3"], "a horizon needs times to events"),
        (["--scores-are", "odds"], "it is one of: probabilities, logits, any"),
        (["--choose-where", "split=val"], "are also in the data that thresholds are chosen on"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(tables, tmp_path: Path, capsys, more: list[str], said: str):
    assert main(command(tables, tmp_path / "out", *more)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()

"""`medclip pairs select`, `intersect` and `union` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medclip
from medclip.cli.main import main
from medclip.shards.selection import read_selection

TABLE = """file,caption,patient,modality,source,width,height
a.png,A nodule in the left lobe.,Doe^Jane,xray,s,300,300
b.png,CT,Doe^Jane,ct,s,300,300
c.png,No effusion on the right side.,Roe^John,xray,s,300,300
d.png,Another view of the effusion.,Roe^John,xray,s,300,300
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "select.yaml").write_text("seed: 1\nsteps:\n  - basic: {}\n  - cap: {num: 1}\n")
    (tmp_path / "none.yaml").write_text("steps: [{basic: {more_words_than: 99}}]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def select(*more: str, steps: str = "select.yaml", out: str = "s.parquet") -> int:
    return main(["pairs", "select", "t.csv", "--steps", steps, "--out", out, *more])


def test_what_is_kept_is_printed_behind_the_caution_and_no_patient_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Caution: Every pair of the modality ct is dropped: 1 by basic."
    assert lines[1] == "s.parquet: 2 of 4 pairs kept (50 %)."
    assert lines[3].split() == ["basic", "4", "1", "3"]
    assert "modality xray  3      2     67 %" in lines
    selection = read_selection(folder / "s.parquet")
    assert selection.table.column("key").to_pylist() == ["a.png", "b.png", "c.png", "d.png"]
    assert selection.steps == {"seed": 1, "steps": [{"basic": {}}, {"cap": {"num": 1}}]}
    assert b"Doe" not in (folder / "s.parquet").read_bytes()
    assert select() == 2
    assert select("--overwrite") == 0


def test_json_has_the_counts_of_each_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert select("--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["steps"][0]["facts"]["fails"]["few words"] == 1
    assert value["by"]["modality"] == {"xray": {"pairs": 3, "kept": 2}, "ct": {"pairs": 1, "kept": 0}}
    assert value["digest"] == read_selection(folder / "s.parquet").digest


def test_a_selection_of_nothing_is_written_and_has_a_code_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert select(steps="none.yaml") == 3
    assert capsys.readouterr().out.startswith("Caution: Nothing is kept: 4 by basic.")
    assert not read_selection(folder / "s.parquet").kept_N.any()


def test_an_unknown_step_is_refused_before_the_pairs_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").unlink()
    (folder / "bad.yaml").write_text("steps: [{basik: {}}]\n")
    assert select(steps="bad.yaml") == 2
    assert "Did you mean 'basic'?" in " ".join(capsys.readouterr().err.split())
    assert not (folder / "s.parquet").exists()


def test_selections_are_intersected_and_united(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert select() == 0
    assert select(steps="none.yaml", out="none.parquet") == 3
    assert main(["pairs", "union", "s.parquet", "none.parquet", "--out", "either.parquet"]) == 0
    assert read_selection(folder / "either.parquet").kept_N.sum() == 2
    assert main(["pairs", "intersect", "s.parquet", "none.parquet", "--out", "both.parquet"]) == 3
    assert main(["pairs", "intersect", "s.parquet", "--out", "one.parquet"]) == 2
    assert "two selections or more" in capsys.readouterr().err


def test_python_takes_steps_as_a_mapping_and_returns_the_rows(folder: Path) -> None:
    report = medclip.pairs.select("t.csv", steps={"steps": ["basic"]}, out="s.parquet")
    assert (report.num_kept, report.out) == (3, Path("s.parquet"))
    again = medclip.pairs.union(["s.parquet", "s.parquet"], out="u.parquet")
    assert again.selection.digest == report.selection.digest


LATIN_1 = "file,caption,patient,modality,width,height\na.png,Erguß im linken Unterlappen rechts.,P1,xray,300,300\n"


@pytest.mark.parametrize("verb", ["select", "rewrite", "cluster"])
def test_a_table_in_latin_1_is_refused_with_the_option_that_reads_it(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.csv").write_text(LATIN_1, encoding="latin-1")
    more = {"select": ["--steps", "select.yaml"], "rewrite": [], "cluster": []}[verb]
    call = ["pairs", verb, "t.csv", "--out", "out", *more]
    assert main(call) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "line 2 of the file is not UTF-8 text." in error
    assert "--encoding cp1252" in error
    assert main([*call, "--encoding", "latin1000"]) == 2
    assert "names no encoding of text" in " ".join(capsys.readouterr().err.split())
    code = main([*call, "--encoding", "latin-1"])
    error = capsys.readouterr().err
    assert "UTF-8" not in error
    if verb != "cluster":  # there is no image of it
        assert code == 0, error


def test_a_table_that_a_step_names_is_read_by_the_encoding_too(folder: Path) -> None:
    (folder / "labels.csv").write_text("key,primary\na.png,Röntgen\n", encoding="latin-1")
    (folder / "concept.yaml").write_text("steps: [{concept: {labels: labels.csv, keep: [Röntgen]}}]", encoding="utf-8")
    assert select(steps="concept.yaml") == 2
    assert select("--encoding", "latin-1", steps="concept.yaml") == 0
    assert read_selection(folder / "s.parquet").kept_N.tolist() == [True, False, False, False]

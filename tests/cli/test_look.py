"""`medclip pairs look` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import medclip
from medclip.cli.main import main
from medclip.settings import Settings
from medclip.shards.writing.build import Form, build_shards
from tests.kits.leakage import film
from tests.kits.shards import KEY

NUM = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = ["file,caption,patient,modality,source"]
    for n in range(NUM):
        Image.fromarray(film(n if n < NUM - 1 else 0, 100, 100)).save(tmp_path / f"{n}.png")
        lines.append(f"{n}.png,A nodule of {n} mm.,Doe^{n},xray,here")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "e.csv").write_text("\n".join([lines[0], lines[2]]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def look(*more: str) -> int:
    return main(["pairs", "look", "t.csv", "--out", "look", "--workers", "1", *more])


def test_cautions_lead_and_no_patient_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look("--against", "e.csv") == 0
    output = capsys.readouterr().out
    assert output.startswith("Caution: 1 pair (17 %) must not be trained on where e.csv is an evaluation set: 1 by")
    assert "In 2 pairs (33 %) an image stands that another patient’s pair shows, too" in " ".join(output.split())
    assert "6 pairs of 6 patients: " in output
    assert "Doe^" not in output
    assert "Doe^" not in (folder / "look" / "look.html").read_text()


def test_json_is_what_python_returns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look("--json", "--examples", "0") == 0
    printed = json.loads(capsys.readouterr().out)
    returned = medclip.pairs.look("t.csv", "other", examples=0, workers=1).to_dict()
    assert printed | {"out": "other"} == json.loads(json.dumps(returned))


def test_a_look_is_replaced_on_demand_alone_and_other_folders_never(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look() == 0
    assert look() == 2
    assert "holds a look at pairs already" in capsys.readouterr().err
    assert look("--overwrite", "--no-thumbnails") == 0
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("x")
    assert main(["pairs", "look", "t.csv", "--out", "full"]) == 2
    assert main(["pairs", "look", "t.csv", "--out", "new", "--metadata", "gone.csv"]) == 2
    assert not (folder / "new").exists()


def test_shards_are_looked_at_like_the_table_that_they_were_built_of(folder: Path) -> None:
    build_shards(folder / "t.csv", folder / "s", Form(key=KEY), settings=Settings(workers=1))
    of_shards, of_table = (medclip.pairs.look(place, f"of_{place}", workers=1) for place in ("s", "t.csv"))
    assert of_shards.num_patients == of_table.num_patients == NUM
    assert of_shards.copies.num_copies == of_table.copies.num_copies == 1
    assert [c.affirmed for c in of_shards.concepts.concepts] == [c.affirmed for c in of_table.concepts.concepts]


def test_a_pack_measures_alignment_and_counts_tokens(folder: Path) -> None:
    look = medclip.pairs.look("t.csv", "look", model="medclip-mini", workers=1, examples=1)
    assert look.alignment is not None
    (films,) = look.alignment.modalities
    assert films.pairs == NUM
    assert look.num_cut == 0
    assert {one.end for one in look.examples} == {"worst", "best"}
    page = (folder / "look" / "look.html").read_text()
    assert "Alignment by medclip-mini" in page
    assert any("too few patients (6) to tell" in one.text for one in look.findings)


def test_a_table_in_latin_1_is_read_by_its_encoding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "file,caption,patient,modality,source\n0.png,Ödem.,P1,xray,Zürich\n1.png,Erguß.,P2,xray,Zürich\n"
    (folder / "t.csv").write_text(words, encoding="latin-1")
    assert look() == 2
    assert not (folder / "look").exists()
    assert look("--encoding", "latin-1") == 0
    assert "Zürich" in (folder / "look" / "counts.csv").read_text(encoding="utf-8")


def test_what_is_of_a_table_is_refused_with_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_shards(folder / "t.csv", folder / "shards", Form(key=KEY), settings=Settings(workers=1, home=folder / "h"))
    capsys.readouterr()
    for option, value in (("--encoding", "latin-1"), ("--images", ".")):
        assert main(["pairs", "look", "shards", "--out", "look", option, value]) == 2
        assert f"Leave out {option}" in " ".join(capsys.readouterr().err.split())
    mixed = ["pairs", "look", "shards", "--against", "e.csv", "--encoding", "latin-1", "--out", "mixed"]
    assert main([*mixed, "--workers", "1"]) == 0

"""`medclip slides`: what the stages print, in words and as JSON, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medclip.cli.main import main
from tests.kits.slides import draw_section, make_pathology_pack, write_pyramid


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "a.tiff", draw_section())
    write_pyramid(folder / "glass.tiff", np.full((1500, 1900, 3), 244, np.uint8))
    return folder


def test_stages_print_how_slides_ended_and_exit_with_0_where_none_failed(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = str(tmp_path / "o")
    assert main(["slides", "tissue", str(slides), "--out", out, "--workers", "1", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["slides"], read["done"], read["skipped"], read["failed"]) == (2, 1, 1, 0)
    assert read["reasons"] == [{"status": "skipped", "reason": "no_tissue", "slides": 1}]
    pack = str(make_pathology_pack(tmp_path / "pack"))
    command = ["slides", "embed", str(slides), "--out", out, "--model", pack, "--workers", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 slides: 1 done, 1 skipped." in printed
    assert "skipped: no tissue" in printed
    assert "patches a second; work: read" in printed
    assert "The model waited" in printed
    assert main([*command, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["patches"], read["lost_patches"], read["time"]) == (14, 0, {})


def test_patches_are_searched_in_the_store_and_shown_on_a_page(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, pack = str(tmp_path / "o"), str(make_pathology_pack(tmp_path / "pack"))
    assert main(["slides", "embed", str(slides), "--out", out, "--model", pack, "--workers", "1", "--json"]) == 0
    capsys.readouterr()
    command = ["search", out, "a gland", "--model", pack, "--num-hits", "2"]
    page, table = tmp_path / "p.html", tmp_path / "p.csv"
    assert main([*command, "--images", str(slides), "--html", str(page), "--out", str(table)]) == 0
    printed = capsys.readouterr().out
    assert "2 hits among 14 patches." in printed
    assert page.read_text().count("data:image/jpeg") == 2
    assert main([*command, "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    for hit in hits:
        name = f"{hit['slide']}@{hit['top_um']:g},{hit['left_um']:g}"
        assert name in printed
        assert hit["slide"] in table.read_text()
        assert hit["caution"] is None
    assert main(["search", out, "a CT of the lung", "--model", pack, "--num-hits", "2", "--json"]) == 0
    beyond = "Not learned: the prompt speaks of CT, and the model was trained on pathology images"
    read = json.loads(capsys.readouterr().out)
    assert [hit["caution"] for hit in read["hits"]] == [beyond, beyond]
    assert read["notes"][0] == f"{beyond}."
    like = f"{hits[0]['slide']}@{hits[0]['top_um']:g},{hits[0]['left_um']:g}"
    assert main(["search", out, "--like", like, "--model", pack, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 13


def test_vectors_are_exported_and_counts_printed(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, pack = str(tmp_path / "o"), str(make_pathology_pack(tmp_path / "pack"))
    assert main(["slides", "embed", str(slides), "--out", out, "--model", pack, "--workers", "1", "--json"]) == 0
    command = ["slides", "export", out, "--out", str(tmp_path / "e")]
    capsys.readouterr()
    assert main(command) == 0
    assert "as anndata." in capsys.readouterr().out
    assert main([*command, "--overwrite", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["counts"], read["exit_code"]) == ({"done": 1, "skipped": 1}, 0)
    assert [(tmp_path / "e" / name).is_file() for name in read["written"]] == [True]
    assert main(command) == 2  # there is an export


def test_a_slide_without_scale_makes_the_exit_code_3_and_one_that_is_given_for_all_makes_it_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    write_pyramid(tmp_path / "in" / "a.tiff", draw_section(), mpp=None)
    command = ["slides", "patches", str(tmp_path / "in"), "--workers", "1", "--no-geojson"]
    assert main([*command, "--out", str(tmp_path / "o")]) == 3
    assert "failed: no scale" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "p"), "--reading", "mpp_um=0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["patches"] == 14
    assert not list((tmp_path / "p" / "patches").glob("*.geojson"))


def test_a_file_that_fails_and_is_no_slide_is_told_of_and_one_with_a_slides_name_has_a_row(
    slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tiff").write_bytes((slides / "a.tiff").read_bytes())
    (tmp_path / "in" / "empty.dcm").write_bytes(b"")
    (tmp_path / "in" / "empty.svs").write_bytes(b"")
    (tmp_path / "in" / "text.svs").write_text("a note")
    command = ["slides", "tissue", str(tmp_path / "in"), "--out", str(tmp_path / "o"), "--workers", "1"]
    assert main(command) == 3
    printed = capsys.readouterr().out
    assert "3 slides: 1 done, 2 failed." in printed
    assert "failed: empty file" in printed
    assert "1 file in the folder is of no slide.\n1 of them failed; files.parquet says why." in printed

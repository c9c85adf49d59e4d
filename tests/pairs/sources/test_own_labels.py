"""Labels of one's own, end to end: a task file, captions from labels, shards, captions drawn in a spawned process."""

from __future__ import annotations

import csv
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.cli.main import main
from medclip.shards.reading.samples import ShardReader
from medclip.text.captions.draw import draw_caption
from medclip.text.vocabulary.task import VARIABLE
from tests.kits.shards import KEY, write

TASK = """
kind: multilabel
modality: ultrasound
classes:
  - {name: cyst, prompts: [a cyst]}
  - {name: stone, prompts: [a stone with a shadow]}
"""
CELLS = ("1", "0", "-1", "")


def drawn(folder: Path) -> list[list[str]]:
    reader = ShardReader(folder, "train")
    rng = np.random.default_rng(0)
    return [[draw_caption(reader[i].record, rng) for _ in range(20)] for i in range(len(reader))]


@pytest.fixture
def table(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "kidney_signs.yaml").write_text(TASK)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tasks"))
    rng = np.random.default_rng(0)
    rows = []
    for i, cell in enumerate(CELLS):
        Image.fromarray(rng.integers(0, 255, (80, 90), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        label = {"label:kidney_signs:cyst": cell, "label:kidney_signs:stone": "1"}
        rows.append({"file": f"{i}.png", "patient": f"p{i}", "modality": "ultrasound"} | label)
    return write(tmp_path / "table.csv", rows)


def test_labels_of_ones_own_become_captions_shards_and_draws_in_a_spawned_process(table, capsys):
    key = table.with_name("key")
    key.write_bytes(KEY)
    captioned, out = table.with_name("captioned.csv"), table.with_name("shards")
    assert main(["shards", "check", str(table)]) == 0
    said = capsys.readouterr().out
    assert "label kidney_signs cyst: present 1, absent 1, uncertain 1" in said
    assert (
        main(["pairs", "captions", str(table), "--from", "labels", "--out", str(captioned), "--num-captions", "4"]) == 0
    )
    with captioned.open(newline="") as f:
        first, second, unsure, _ = (row["captions"].split("\n") for row in csv.DictReader(f))
    assert all(len(said) == 4 for said in (first, second, unsure))
    assert any("cyst" in s for s in first)
    assert not any("cyst" in s for s in unsure)
    options = ["--splits", "train=1", "--key-file", str(key), "--workers", "1"]
    assert main(["shards", "build", str(captioned), "--out", str(out), *options]) == 0
    reader = ShardReader(out, "train")
    labels = sorted(str(reader[i].record.labels["kidney_signs"].get("cyst")) for i in range(4))
    assert labels == ["0", "1", "None", "None"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(drawn, (out,)) == drawn(out)


def test_without_the_variable_the_error_names_it(table, monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE)
    assert main(["shards", "check", str(table)]) == 2
    said = capsys.readouterr().err
    assert "there is no task named 'kidney_signs'" in said
    assert VARIABLE in said

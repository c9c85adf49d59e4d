"""Embeddings that are open already stand in the place of their folder, in each verb that takes a folder of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import medclip
from medclip.embeddings.open_embeddings import Embeddings
from medclip.settings import Settings
from tests.kits.adapt_tables import make_table, tiny

__all__ = ["tiny"]
SUITE = """
name: own
title: A set
groups:
  - {id: chests, title: Chest}
sets:
  - {id: set, group: chests, modality: xray, classes: [{name: ap, prompts: [ap]}, {name: pa, prompts: [pa]}]}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_table(tmp_path_factory.mktemp("data"), ("ap", "pa"), patients=10, sex="F")
    frame = pd.read_csv(path)
    frame.assign(pa=(frame.finding == "pa").astype(int), label=frame.finding).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module", params=["names", "hashed names"])
def opened(
    tiny: Path, table: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Embeddings:
    out, hashed = tmp_path_factory.mktemp("embedded") / "e", request.param == "hashed names"
    return medclip.embed(table.parent, out, model=tiny, modality="xray", group_by="file", hash_paths=hashed, workers=1)


@pytest.fixture(autouse=True)
def no_image_is_read(opened: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "medclip.models.encoding.unit_reader.UnitReader.read", lambda *_, **__: pytest.fail("an image was read")
    )


def test_a_pack_is_adapted_from_them(tiny: Path, table: Path, opened: Embeddings) -> None:
    run = medclip.adapt(table, "finding", model=tiny, method="tip", shots=2, images=opened)
    assert not run.problems
    assert run.test.numbers


def test_methods_are_compared_on_them(tiny: Path, table: Path, opened: Embeddings, tmp_path: Path) -> None:
    result = medclip.compare(
        table,
        "finding",
        out=tmp_path / "c",
        model=tiny,
        method="zero-shot",
        shots=1,
        num_seeds=1,
        num_resamples=20,
        images=opened,
        settings=Settings(workers=1),
    )
    assert result.cells


def test_a_model_is_evaluated_on_them(tiny: Path, table: Path, opened: Embeddings, tmp_path: Path) -> None:
    root, hashed = tmp_path / "suite", opened.hashes_paths
    shutil.copytree(table.parent, root / "set")
    (root / "set" / "labels.csv").write_bytes(table.read_bytes())
    stored = medclip.embed(root, model=tiny, modality="xray", group_by="file", hash_paths=hashed, workers=1)
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    result = medclip.evaluate(root, model=tiny, suite=suite, images=stored, num_resamples=20, workers=1)
    assert result.sets[0].num_read == result.sets[0].num_images > 1


def test_a_model_is_audited_on_them(tiny: Path, table: Path, opened: Embeddings) -> None:
    result = medclip.audit(
        table,
        by=["sex"],
        label=["pa"],
        task="chest_xray_view",
        model=tiny,
        embeddings=opened,
        modality="xray",
        num_resamples=100,
        num_permutations=100,
        settings=Settings(workers=1),
    )
    assert result.labels == ("pa",)

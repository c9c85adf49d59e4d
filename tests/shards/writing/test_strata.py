"""What a table says beside labels for the drawing of samples: strata, and how a mammogram was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from examples.make_phantoms import ecg_record
from medclip.adapters.registry import preprocessing_of
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from tests.kits.shards import KEY

SETTINGS = Settings(workers=1)


def build(folder: Path, **columns: list[str]) -> Path:
    """Build shards of four films."""
    rng = np.random.default_rng(0)
    for n in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(folder / f"{n}.png")
    fixed = {"file": [f"{n}.png" for n in range(4)], "patient": list("abcd"), "modality": ["xray"] * 4}
    table = pd.DataFrame(fixed | {"split": ["train"] * 4} | columns)
    build_shards(table, folder / "s", Form(key=KEY), images=folder, settings=SETTINGS)
    return folder / "s"


def test_strata_come_back_as_columns_of_all_samples(tmp_path: Path) -> None:
    shards = build(tmp_path, stratum=["ill", "well", "", "ill"], source=["x", "x", "y", "y"])
    with ShardReader(shards, "train") as reader:
        known = reader.columns
        assert known.strata == ("", "ill", "well")
        drawn = [(known.sources[s], known.strata[k]) for s, k in zip(known.source_N, known.stratum_N, strict=True)]
        assert sorted(drawn) == [("x", "ill"), ("x", "well"), ("y", ""), ("y", "ill")]
        assert "stratum" not in reader.rows[0]


def test_a_table_without_strata_makes_the_shards_that_it_made_before(tmp_path: Path) -> None:
    shards = build(tmp_path)
    assert "stratum" not in pq.read_schema(shards / "samples.parquet").names
    with ShardReader(shards, "train") as reader:
        assert reader.columns.strata == ("",)
        assert not reader.columns.stratum_N.any()
        assert "view_kind" not in reader.record(0)[1]


def test_a_subtracted_mammogram_is_known_as_one(tmp_path: Path) -> None:
    shards = build(tmp_path, modality=["mammography"] * 4, view_kind=["subtracted", "", "", ""])
    with ShardReader(shards, "train") as reader:
        kinds = [reader.record(i)[1].get("view_kind") for i in range(4)]
    assert sorted(kinds, key=str) == [None, None, None, "subtracted"]


def test_of_an_ecg_shards_of_images_hold_what_an_image_model_is_shown(tmp_path: Path) -> None:
    record = ecg_record(tmp_path / "ecg")
    table = pd.DataFrame({"file": [str(record)], "patient": ["a"], "modality": ["ecg"], "split": ["train"]})
    report = build_shards(table, tmp_path / "shards", Form(key=KEY), settings=SETTINGS)
    assert report.num_samples == 5
    assert set(report.preprocessing) == {"ecg:signal", "ecg:drawn"}
    assert report.preprocessing["ecg:drawn"] == preprocessing_of("ecg:drawn")
    with ShardReader(tmp_path / "shards", "train") as reader:
        shapes = {reader[i].image.shape for i in range(5)}
        assert len({reader.key(i) for i in range(5)}) == 5
    assert len(shapes) == 2, "four cuttings of three leads, and the rhythm strip"

"""Boxes and masks of a table become shares of the stored image; what lies outside is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.errors import MedclipError, Reason
from medclip.sample import View
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.writing.build import Form, build_shards
from medclip.shards.writing.regions import boxes_in, regions_of

SETTINGS = Settings(workers=1)


def build(folder: Path, **cells: str) -> Path:
    """Write shards of two films of 100 x 80 pixels, of which the first has these cells."""
    for number in range(2):
        pixels = np.random.default_rng(number).integers(20, 200, (80, 100), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    rows = [{"file": f"{n}.png", "patient": str(n), "modality": "xray", "split": "train"} for n in range(2)]
    rows[0] |= cells
    table = pd.DataFrame(rows).fillna("")
    build_shards(table, folder / "s", Form(max_side=50, key=b"k" * 32), images=folder, settings=SETTINGS)
    return folder / "s"


def regions(shards: Path) -> list[tuple[tuple[float, ...], ...]]:
    with ShardReader(shards, "train") as reader:
        parts = [reader.unpack(n, reader.raw(n)) for n in range(len(reader))]
        return sorted(reader.understand(n, part)[0].regions for n, part in enumerate(parts))


def test_boxes_and_masks_travel_as_shares_of_the_image(tmp_path: Path) -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[20:40, 50:60] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    Image.fromarray(0 * mask).save(tmp_path / "empty.png")
    shards = build(tmp_path, regions="10 8 30 40; 0, 0, 100, 80", region_masks="m.png\nempty.png")
    expected = ((0.1, 0.1, 0.3, 0.5), (0.0, 0.0, 1.0, 1.0), (0.5, 0.25, 0.6, 0.5))
    none, of_first = regions(shards)
    assert none == ()
    assert np.allclose(of_first, expected)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"regions": "10 8 101 40"}, "A region reaches beyond the image of 100 x 80 pixels (width x height)."),
        ({"regions": "-1 8 50 40"}, "A region reaches beyond the image of 100 x 80 pixels (width x height)."),
        ({"region_masks": "other.png"}, "The mask has 8 x 9 pixels, and its image 80 x 100."),
        ({"region_masks": "gone.png"}, "A mask of the row is not there."),
    ],
)
def test_regions_outside_the_image_are_a_reject_with_its_sentence(
    tmp_path: Path, cells: dict[str, str], words: str
) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "other.png")
    (reject,) = pq.read_table(build(tmp_path, **cells) / "rejects.parquet").to_pylist()
    assert reject["message"].startswith(words)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("10 8 30", "`regions` is not understood."),
        ("left lung", "`regions` is not understood."),
        ("10 8 10 40", "`regions` has a box without an area."),
        ("10 8 nan 40", "`regions` has a box without an area."),
        (";".join(["1 1 2 2"] * 11), "`regions` names 11 regions."),
    ],
)
def test_a_cell_that_is_no_boxes_is_refused(cell: str, words: str) -> None:
    with pytest.raises(MedclipError) as refused:
        boxes_in(cell)
    assert (refused.value.reason, refused.value.message) == (Reason.TABLE_INVALID, words)


def test_a_box_follows_the_part_that_an_adapter_shows() -> None:
    view = View(np.zeros((40, 50, 1), np.uint8), (0, 255), part=(20, 10, 60, 60), part_of=(80, 100), flipped=(1,))
    shares = regions_of([view], [(10, 20, 20, 40), (0, 0, 9, 9), (50, 50, 70, 70)], [], SETTINGS)
    assert np.allclose(shares, [(0.8, 0.0, 1.0, 0.5), (0.0, 0.75, 0.2, 1.0)])


def test_regions_are_of_single_images() -> None:
    view = View(np.zeros((4, 4, 1), np.uint8), (0, 255))
    with pytest.raises(MedclipError, match="its file shows several images"):
        regions_of([view, view], [(0, 0, 1, 1)], [], SETTINGS)


def test_a_sample_without_regions_has_no_such_key(tmp_path: Path) -> None:
    with ShardReader(build(tmp_path), "train") as reader:
        record = json.loads(reader.unpack(0, reader.raw(0))["json"])["record"]
    assert "regions" not in record

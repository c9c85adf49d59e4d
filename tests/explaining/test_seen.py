"""What is read of a unit: the pixels that scoring reads, names of slices and leads, places of tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.make_phantoms import slide
from medclip.adapters.base import source_of
from medclip.explaining.seen import read_seen
from medclip.models.inputs.preprocess import Preprocess
from medclip.runs.units.read_unit import read
from medclip.sample import Kind, Modality
from medclip.settings import Settings
from tests.kits.ecg import heart, write_wfdb
from tests.kits.volumes import scene, write_series

SETTINGS, SQUARE = Settings(workers=1), Preprocess(size_px=64)


def test_slices_of_a_volume_are_named_by_their_number_and_read_as_scoring_reads_them(tmp_path: Path):
    voxels = scene((20, 40, 40))
    write_series(tmp_path / "ct", voxels, [(0, 0, 2 * n) for n in range(20)])
    source = source_of(tmp_path / "ct", SETTINGS)
    seen = read_seen(source, Modality.CT, SQUARE, SETTINGS)
    np.testing.assert_array_equal(seen.images, read(source, Modality.CT, SQUARE, SETTINGS).images)
    assert seen.kind is Kind.VOLUME
    numbers = [int(label.removeprefix("slice ")) for label in seen.labels]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == len(seen.images) == len(seen.shown)
    assert {image.shape[2] for image in seen.shown} == {1}, "three windows are no colours"


def test_tiles_of_a_slide_have_a_place_on_its_overview(tmp_path: Path):
    source = source_of(slide(tmp_path / "slide.tiff"), SETTINGS)
    seen = read_seen(source, Modality.PATHOLOGY, SQUARE, SETTINGS)
    assert seen.overview is not None
    assert len(seen.boxes) == len(seen.images)
    height, width = seen.overview.shape[:2]
    brighter = []
    for (top, left, bottom, right), tile in zip(seen.boxes, seen.shown, strict=True):
        assert 0 <= top < bottom
        assert 0 <= left < right
        rows, columns = slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))
        brighter.append((seen.overview[rows, columns].mean(), tile.mean()))
    place, tile = np.array(brighter).T
    assert np.abs(place - tile).mean() < 12, "the overview shows at a tile's place what the tile shows"


def test_an_ecg_is_seen_in_cuttings_that_name_their_leads(tmp_path: Path):
    (tmp_path / "ecg").mkdir()
    source = source_of(write_wfdb(tmp_path / "ecg", heart(5000)).parent, SETTINGS)
    seen = read_seen(source, Modality.ECG, SQUARE, SETTINGS)
    assert seen.labels[0] == "leads I, II, III"
    assert seen.labels[-1] == "rhythm strip, lead II"
    assert len(seen.images) == 5

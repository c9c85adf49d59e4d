"""Order, captions and augmentation are functions of (seed, epoch, index) and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.imaging.geometry import letterbox
from medclip.sample import Modality
from medclip.shards.read import ShardReader
from medclip.text.captions import CaptionRecord
from medclip.training.augment import Change, apply_change, draw_change, names_a_side
from medclip.training.data import Batches, label_key, order_of_epoch
from medclip.training.recipe import Augment

STILL = Change(zoom=1.0, shift=(0.0, 0.0), rotate_deg=0.0, gain=1.0, gamma=1.0, flip=False)


def _batches(shards: Path, **options: object) -> Batches:
    settings = {"batch_size": 6, "size_px": 32, "seed": 1, "augment": Augment(flip=0.5)} | options
    return Batches(ShardReader(shards, "train"), **settings)  # type: ignore[arg-type]


@given(size=st.integers(1, 50), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_epoch_is_a_permutation_of_its_own(size: int, seed: int, epoch: int) -> None:
    order = order_of_epoch(size, seed, epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert np.array_equal(order, order_of_epoch(size, seed, epoch))


def test_batches_from_the_middle_equal_those_of_a_run_from_the_start(shards: Path) -> None:
    whole = list(_batches(shards).training(0, 7))
    late = list(_batches(shards, workers=1, cache=False).training(4, 7))
    assert len(whole) == 7
    for a, b in zip(whole[4:], late, strict=True):
        assert a.texts == b.texts
        assert a.label_keys == b.label_keys
        assert np.array_equal(a.images, b.images)


def test_a_sample_gets_new_words_and_pixels_in_each_epoch(shards: Path) -> None:
    data = _batches(shards)
    made = [data.sample(epoch, 0) for epoch in range(6)]
    assert len({text for _, text, _ in made}) > 1
    assert len({image.tobytes() for image, _, _ in made}) == 6
    assert len({key for _, _, key in made}) == 1


def test_turning_augmentation_off_does_not_change_the_captions(shards: Path) -> None:
    off = Augment(crop_scale=(1, 1), rotate_deg=0, brightness=0, contrast=0)
    texts = [[t for b in _batches(shards, augment=a).training(0, 3) for t in b.texts] for a in (Augment(), off)]
    assert texts[0] == texts[1]


def test_validation_is_in_order_letterboxed_and_always_the_same(shards: Path) -> None:
    data = _batches(shards, augment=None)
    first, again = list(data.validation(8)), list(data.validation(8))
    assert [len(b.texts) for b in first] == [6, 2]
    assert [b.texts for b in first] == [b.texts for b in again]
    assert np.array_equal(first[1].images[1], letterbox(data.reader[7].image, 32))


@given(seed=st.integers(0, 10_000), may_flip=st.booleans())
def test_drawn_changes_stay_within_the_recipe(seed: int, may_flip: bool) -> None:
    settings = Augment(flip=0.5)
    change = draw_change(settings, np.random.default_rng(seed), may_flip=may_flip)
    assert 0.7 <= change.zoom**2 <= 1.0001
    assert abs(change.rotate_deg) <= settings.rotate_deg
    assert 0.8 <= change.gain <= 1.2
    assert may_flip or not change.flip


@pytest.mark.parametrize("shape", [(32, 32), (32, 20), (20, 32)])
def test_no_change_is_the_letterbox(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(apply_change(image, STILL, 32), letterbox(image, 32))


def test_a_flip_mirrors_and_a_turn_by_180_degrees_turns() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(apply_change(image, replace(STILL, flip=True), 32), image[:, ::-1])
    turned = apply_change(image, replace(STILL, rotate_deg=180.0), 32)
    assert np.abs(turned.astype(int) - image[::-1, ::-1]).max() <= 1


def test_a_crop_in_the_corner_shows_that_corner() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[32:, 32:] = 100, 200
    corner = replace(STILL, zoom=0.5)
    assert apply_change(image, replace(corner, shift=(-1.0, -1.0)), 32)[4:-4, 4:-4].min() == 100
    assert apply_change(image, replace(corner, shift=(1.0, 1.0)), 32)[4:-4, 4:-4].min() == 200


@given(gain=st.floats(0.5, 1.5), gamma=st.floats(0.5, 2.0))
def test_black_stays_black_whatever_is_done_to_the_grey_values(gain: float, gamma: float) -> None:
    image = np.zeros((20, 20, 1), np.uint8)
    assert not apply_change(image, replace(STILL, gain=gain, gamma=gamma), 32).any()


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Opacity in the left lower lobe.", True),
        ("RIGHT breast, CC view", True),
        ("consolidation RLL", True),
        ("R CC", True),
        ("fundus photograph OD", True),
        ("dextrocardia", True),
        ("bilateral infiltrates", False),
        ("a chest x-ray without pneumonia, bright and clear", False),
        ("brain MRI", False),
    ],
)
def test_a_caption_that_names_a_side_is_recognised(text: str, side: bool) -> None:
    assert names_a_side(text) is side


def test_label_keys_are_equal_for_the_same_statements_only() -> None:
    a = CaptionRecord(Modality.XRAY, view="PA", labels={"t": {"x": 1, "y": 0}}, age_years=3)
    b = CaptionRecord(Modality.XRAY, view="PA", labels={"t": {"y": 0, "x": 1}}, age_years=70)
    c = CaptionRecord(Modality.XRAY, view="AP", labels={"t": {"x": 1, "y": 0}})
    assert label_key(a) == label_key(b) != label_key(c)
    assert label_key(replace(a, generic=True)) == label_key(replace(c, generic=True)) != label_key(a)

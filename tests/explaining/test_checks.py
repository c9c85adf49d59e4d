"""Curves, random weights and the middle of the image: what they are of maps whose truth is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medclip.explaining.explain_unit import (
    Occlusions,
    centre_prior,
    curves,
    randomisation,
    rank_correlation,
    shuffle_weights,
)
from medclip.explaining.explanation import image_share, share_on_padding
from medclip.explaining.maps import compute_maps
from medclip.imaging.geometry import placement
from tests.kits.explaining import SIDE, linear_target, model_of, tower


def _reading_a_corner() -> Any:
    """Return a model whose only feature is how bright the upper left quarter is."""
    encode = lambda images: np.stack([[i[:8, :8].mean() / 255] for i in np.asarray(images)])  # noqa: E731
    return SimpleNamespace(encode_image=encode, preprocess=SimpleNamespace(together=np.stack))


def test_the_score_follows_a_true_map_sooner_than_chance_and_a_false_one_later():
    image = np.zeros((16, 16, 3), np.uint8)
    image[2:6, 2:6] = 255
    truth = np.zeros((4, 4), np.float32)
    truth[:2, :2] = [[4, 3], [2, 1]]
    target = linear_target(np.ones(1))
    inside = np.ones((4, 4), bool)
    for grid, sign in ((truth, 1), (-truth, -1)):
        by_order = {c.order: c for c in curves(Occlusions(_reading_a_corner(), image, inside), grid, target)}
        assert set(by_order) == {"map", "random", "centre"}
        own, random = by_order["map"], by_order["random"]
        assert sign * (own.insertion_area - random.insertion_area) > 0
        assert sign * (random.deletion_area - own.deletion_area) > 0
        assert random.insertion == pytest.approx(random.deletion[::-1]), "an order and its reverse"
        assert len(own.insertion) == 21
        assert own.insertion[0] == own.deletion[-1]
        assert own.insertion[-1] == own.deletion[0]


def test_no_set_of_patches_goes_through_the_model_twice_and_padding_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    inside = np.ones((4, 4), bool)
    inside[3] = False
    shown = []
    model = _reading_a_corner()
    encode = model.encode_image
    model.encode_image = lambda images: shown.extend(images) or encode(images)
    occlusions, target = Occlusions(model, image, inside), linear_target(np.ones(1))
    grid = np.random.default_rng(1).random((4, 4)).astype(np.float32)
    first = curves(occlusions, grid, target)
    assert all(np.array_equal(one[12:], image[12:]) for one in shown)
    assert len({one.tobytes() for one in shown}) == len(shown) < 6 * 12
    num = len(shown)
    assert curves(occlusions, grid, linear_target(2 * np.ones(1)))[0].insertion != first[0].insertion
    assert len(shown) == num, "another score of the same image costs nothing but the order of its own map"


def test_the_middle_of_the_image_is_that_of_what_is_no_padding():
    inside = np.zeros((8, 8), bool)
    inside[:, 2:5] = True
    prior = centre_prior(inside)
    assert np.unravel_index(prior.argmax(), prior.shape)[1] == 3
    assert not prior[:, [0, 1, 5, 6, 7]].any()


def test_random_weights_change_the_map_and_leave_the_model_as_it_is():
    visual, images = tower("open_clip"), np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE))
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    model, target = model_of(visual), linear_target(np.random.default_rng(1).normal(size=16))
    (maps,) = compute_maps(model, images, [target])
    (results,) = randomisation(model, images, [maps], 0)
    assert 1 < len(results) <= 8
    assert "resblocks" not in results[0].from_block, "the head goes first"
    assert abs(results[-1].correlation or 0) < 0.9
    (other,) = compute_maps(model, images, [linear_target(np.random.default_rng(2).normal(size=16))])
    both = randomisation(model, images, [other, maps], 0)
    assert both[1] == results, "what else is asked changes nothing"
    assert both[0] != results
    for name, value in visual.state_dict().items():
        assert torch.equal(value, before[name])


def test_shuffled_weights_are_the_same_numbers_elsewhere():
    parameter = torch.nn.Parameter(torch.arange(12.0).view(3, 4))
    shuffle_weights(parameter, torch.Generator().manual_seed(0))
    assert sorted(parameter.flatten().tolist()) == list(range(12))
    assert parameter.flatten().tolist() != list(range(12))


def test_a_map_that_is_even_has_no_correlation():
    assert rank_correlation(np.ones((2, 2)), np.arange(4).reshape(2, 2)) is None
    assert rank_correlation(np.arange(4), -np.arange(4)) == pytest.approx(-1)


def test_padding_is_counted_where_there_is_no_image():
    wide = placement(50, 100, 64, "longest")
    grid = np.ones((4, 4), np.float32)
    np.testing.assert_allclose(image_share((4, 4), wide)[:, 0], [0, 1, 1, 0])
    assert share_on_padding(grid, wide) == pytest.approx(0.5)
    assert share_on_padding(0 * grid, wide) == 0
    assert share_on_padding(grid, placement(50, 100, 64, "shortest")) == 0

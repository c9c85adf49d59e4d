"""Maps of small towers: they peak where the evidence was planted, and say why they are empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.explaining.explainers import EXPLAINERS
from medclip.explaining.maps import compute_maps, scaled
from medclip.explaining.target import logit_target
from tests.kits.explaining import SIDE, linear_target, model_of, tower


def _reader_of_patches() -> Any:
    """Return a tower to which a black patch is nothing: no positions, no biases, and blocks that pass on the mean.

    Its class token is something: else the direction of its answer, all that a cosine sees, would hang on nothing.
    """
    visual: Any = tower("open_clip")
    for key, parameter in visual.named_parameters():
        if key.endswith("bias") or key == "positional_embedding" or "c_proj" in key:
            nn.init.zeros_(parameter)
    for block in visual.transformer.resblocks:
        nn.init.zeros_(block.attn.in_proj_weight[:64])
        nn.init.eye_(block.attn.in_proj_weight[64:])
        nn.init.eye_(block.attn.out_proj.weight)
    return visual


def _one_patch(side: int, patch: int, row: int, column: int) -> np.ndarray:
    image = np.zeros((1, 3, side, side), np.float32)
    pixels = np.random.default_rng(0).normal(size=(3, patch, patch))
    image[0, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 4 * pixels
    return image


def _direction(visual: nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        lit, black = (visual(torch.from_numpy(x))[0].numpy() for x in (image, 0 * image))
    unit = lit / np.linalg.norm(lit)
    return 10 * (unit - black / max(1e-9, np.linalg.norm(black)))


@pytest.mark.parametrize(
    "method", [n for n, row in EXPLAINERS.items() if row.towers == ("transformer",) and row.follows_gradient]
)
def test_a_logit_that_hangs_on_one_patch_peaks_there(method: str):
    visual = _reader_of_patches()
    hits = 0
    for row, column in ((0, 0), (1, 3), (2, 1), (3, 2)):
        image = _one_patch(SIDE, 8, row, column)
        (maps,) = compute_maps(model_of(visual), image, [linear_target(_direction(visual, image))], method)
        hits += np.unravel_index(maps.grids[0].argmax(), (4, 4)) == (row, column)
    assert hits == 4


@pytest.mark.parametrize("method", [name for name, row in EXPLAINERS.items() if "convolution" in row.towers])
def test_a_convolution_sees_it_at_the_same_place(method: str):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 8, 8, bias=False), nn.ReLU(), nn.Conv2d(16, 16, 1, bias=False), nn.ReLU()]
    visual = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)).eval()
    for row, column in ((0, 0), (2, 3)):
        image = _one_patch(SIDE, 8, row, column)
        target = linear_target(_direction(visual, image))
        (maps,) = compute_maps(model_of(visual), image, [target], method)
        assert np.unravel_index(maps.grids[0].argmax(), (4, 4)) == (row, column)
        assert (maps.layer, maps.empty) == ("3", ("",))


def test_a_scaled_score_draws_the_same_map_and_a_constant_changes_nothing():
    visual, image = tower("open_clip"), np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE))
    direction = np.random.default_rng(2).normal(size=16)
    plain, larger = compute_maps(model_of(visual), image, [linear_target(d) for d in (direction, 5 * direction)])
    weights = direction.astype(np.float32)[:, None]
    raised = logit_target("", "", "", lambda f: f @ weights + 9, 0, exclusive=False)
    (moved,) = compute_maps(model_of(visual), image, [raised])
    for number in range(2):
        np.testing.assert_allclose(scaled(plain.grids[number]), scaled(larger.grids[number]), atol=1e-4)
        np.testing.assert_allclose(plain.grids[number], moved.grids[number], atol=1e-6)
    np.testing.assert_allclose(moved.scores_V, plain.scores_V + 9, atol=1e-5)


def test_images_of_a_unit_do_not_change_each_others_maps():
    visual, images = tower("timm mean"), np.random.default_rng(3).normal(size=(5, 3, SIDE, SIDE))
    target = linear_target(np.random.default_rng(4).normal(size=16))
    (together,) = compute_maps(model_of(visual, batch_size=3), images, [target])
    for number in range(5):
        (alone,) = compute_maps(model_of(visual), images[number : number + 1], [target])
        np.testing.assert_allclose(alone.grids[0], together.grids[number], atol=1e-5)


@pytest.mark.parametrize("name", ["open_clip", "resnet"])
def test_a_score_that_no_pixel_moves_has_an_empty_map_that_says_so(name: str):
    side = SIDE if name == "open_clip" else 64
    image = np.random.default_rng(5).normal(size=(1, 3, side, side))
    (maps,) = compute_maps(model_of(tower(name)), image, [linear_target(np.zeros(16))])
    assert maps.empty == ("zero gradient",)
    assert not maps.grids[0].any()


def test_attention_cannot_be_followed_where_there_is_none():
    with pytest.raises(MedclipError, match="follows attention") as caught:
        compute_maps(model_of(tower("resnet")), np.zeros((1, 3, 64, 64)), [linear_target(np.ones(16))], "rollout")
    assert caught.value.reason is Reason.WRONG_USE


def test_the_score_of_exclusive_classes_is_their_log_odds_and_the_map_follows_the_logit_less_the_mean_of_the_others():
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(8, 3)).astype(np.float32)
    features = rng.normal(size=(4, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for logits in (lambda f: f @ weights, lambda f: np.tanh(2 * f @ weights)):
        target = logit_target("a", "others", "t", logits, 1, exclusive=True)
        values = np.exp(np.asarray(logits(features), np.float64))
        share = values[:, 1] / values.sum(1)
        np.testing.assert_allclose(target.score(features), np.log(share / (1 - share)), atol=1e-5)
        step = 1e-2 * np.eye(8, dtype=np.float32)
        ahead, behind = (np.asarray(logits(features[0] + sign * step), np.float64) for sign in (1, -1))
        slope = (ahead - behind) @ [-0.5, 1.0, -0.5] / 2e-2
        np.testing.assert_allclose(target.direction(features[0]), slope, atol=1e-2)

"""Relevance is divided as in the published rules, and reaches every layer of a transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from medclip.errors import MedclipError
from medclip.models.layer_bits import (
    allocate_bits,
    copy_relevance,
    layer_relevance,
    linear_layers,
    linear_relevance,
    product_relevance,
    sum_relevance,
)


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(golden / "quant_lrp.npz").items()}


@pytest.mark.golden
@pytest.mark.parametrize("alpha", [1, 2])
def test_a_linear_layer_divides_relevance_as_in_the_published_code(alpha: int, values: dict[str, Tensor]):
    shares = linear_relevance(values["lrp_R"], values["lrp_x"], values["lrp_lin_w"], alpha)
    torch.testing.assert_close(shares, values[f"lrp_lin_alpha{alpha}"], atol=1e-5, rtol=0)


@pytest.mark.golden
def test_sums_and_products_divide_relevance_as_in_the_published_code(values: dict[str, Tensor]):
    of_a, of_b = sum_relevance(values["lrp_add_R"], values["lrp_add_a"], values["lrp_add_b"], by_image=False)
    torch.testing.assert_close(of_a, values["lrp_add_Ra"], atol=1e-5, rtol=0)
    torch.testing.assert_close(of_b, values["lrp_add_Rb"], atol=1e-5, rtol=0)
    of_a, of_v = product_relevance(values["lrp_mm_R"], values["lrp_mm_A"], values["lrp_mm_V"])
    torch.testing.assert_close(2 * of_a, values["lrp_mm_RA_unhalved"], atol=1e-5, rtol=0)
    torch.testing.assert_close(2 * of_v, values["lrp_mm_RV_unhalved"], atol=1e-5, rtol=0)


def test_by_hand_what_does_not_speak_for_an_output_has_no_relevance():
    weight, one = torch.tensor([[1.0, -1.0]]), torch.ones(1, 1)
    assert linear_relevance(one, torch.tensor([[2.0, 1.0]]), weight).tolist() == [[1, 0]]
    torch.testing.assert_close(
        linear_relevance(one, torch.tensor([[2.0, -1.0]]), weight), torch.tensor([[2 / 3, 1 / 3]])
    )
    assert copy_relevance(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0])).tolist() == [
        4,
        0,
    ]


def open_clip_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=32, patch_size=8, width=32, layers=3, heads=2, mlp_ratio=4.0, output_dim=16
    ).eval()


def test_the_scores_of_all_layers_add_up_to_one_and_images_do_not_meet():
    tower = open_clip_vit()
    images, directions = torch.randn(3, 3, 32, 32), torch.randn(3, 16)
    scores = layer_relevance(tower, images, directions)
    assert list(scores) == list(linear_layers(tower))
    assert len(scores) == 12
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    assert min(scores.values()) > 0
    alone = [layer_relevance(tower, images[n : n + 1], directions[n : n + 1]) for n in range(3)]
    for name, score in scores.items():
        assert score == pytest.approx(np.mean([of_image[name] for of_image in alone]), rel=1e-3)


def test_a_tower_of_timm_has_scores_too_and_a_convolutional_one_has_none():
    tower = timm.create_model("test_vit", num_classes=8).eval()
    scores = layer_relevance(tower, torch.randn(1, 3, 160, 160), torch.randn(1, 8))
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(MedclipError, match="class token"):
        linear_layers(timm.create_model("test_efficientnet"))


def test_by_hand_the_linear_objective_gives_all_to_few_and_noise_to_each_its_share():
    for objective, bits in (("linear", (8, 6, 4)), ("noise", (6, 6, 6))):
        assert allocate_bits([0.6, 0.3, 0.1], [1, 1, 1], choices=(4, 6, 8), mean_bits=6, objective=objective) == bits


def test_the_budget_is_kept_and_fixed_layers_keep_their_bits():
    relevance, sizes = np.random.default_rng(0).random(20), np.arange(1, 21) * 100
    bits = np.array(allocate_bits(relevance, sizes, mean_bits=5, fixed={0: 8, 19: 8}))
    assert bits[0] == bits[19] == 8
    assert (bits * sizes).sum() <= 5 * sizes.sum()
    assert set(bits) <= {4, 5, 6, 7, 8}
    with pytest.raises(MedclipError, match="no layer can have so few bits"):
        allocate_bits(relevance, sizes, mean_bits=3)


def test_of_layers_of_one_size_those_of_most_relevance_stay_in_float32():
    bits = allocate_bits([0.1, 0.4, 0.2, 0.3], [1, 1, 1, 1], choices=(8, 32), mean_bits=20)
    assert bits == (8, 32, 8, 32)

"""Three levels: the reconstructed total, weights that leave a path out, and how the weights are shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medclip.objectives.levels import level_weights, levels_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.softened import softened_loss
from tests.kits.objectives import check_golden, unit


@pytest.mark.parametrize("share", ["0.0", "0.1", "0.2"])
def test_the_total_is_that_of_the_formula(share: str, golden: Path) -> None:
    images = {"G": "global_image", "L": "local_image", "R": "roi"}
    texts = {"S": "summary", "T": "text", "A": "attr"}
    with np.load(golden / "spec_pyramidclip_softened.npz") as g:
        of_images, of_texts = (
            {level: torch.tensor(g[name], dtype=torch.float32) for level, name in names.items()}
            for names in (images, texts)
        )
        weights = level_weights(float(g["lam"]), float(g["mu"]))
        value = levels_loss(of_images, of_texts, float(g["logit_scale"]), float(share), weights)
        check_golden(value, g[f"total_a{share}"])


def test_the_pairs_weigh_one_together_and_regions_never_meet_attributes() -> None:
    weights = level_weights(0.25, 0.25)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["GS"] == weights["LT"] == 2 * weights["RS"] == 2 * weights["LA"]
    assert "RA" not in weights


def test_without_weight_regions_and_attributes_get_no_gradient() -> None:
    images, texts = (
        {level: unit(6, 8, seed + i).float().requires_grad_() for i, level in enumerate(levels)}
        for seed, levels in ((0, "GLR"), (3, "STA"))
    )
    levels_loss(images, texts, 7.0, 0.1, level_weights(0, 0)).backward()
    assert images["R"].grad is None
    assert texts["A"].grad is None
    assert all(float(images[level].grad.abs().sum()) > 0 for level in "GL")  # type: ignore[union-attr]
    assert all(float(texts[level].grad.abs().sum()) > 0 for level in "ST")  # type: ignore[union-attr]


def test_each_pair_leaves_out_the_samples_that_lack_its_own_text() -> None:
    feature_BD = torch.nn.functional.normalize(torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0)), dim=2)
    images, texts = dict(zip("GLR", feature_BD[:3], strict=True)), dict(zip("STA", feature_BD[3:], strict=True))
    pairs = {text: Pairs(valid_B=torch.arange(5) != n) for n, text in enumerate("STA")}
    weights = level_weights(0.2, 0.3)
    wanted = sum(
        weight * softened_loss(images[of[0]], texts[of[1]], 10.0, 0.1, similarity=0.0, pairs=pairs[of[1]])
        for of, weight in weights.items()
    )
    torch.testing.assert_close(levels_loss(images, texts, 10.0, 0.1, weights, pairs=pairs), wanted)

"""A transformer that merges tokens computes what ToMe's patch of timm computes, with the tower's own weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer as OpenClipViT
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.merging_tower import pitome_tower, tome_merging, tome_tower, with_merging


@pytest.fixture(scope="module")
def of_tome(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "tome.npz"))


@pytest.fixture
def tiny(of_tome: dict[str, np.ndarray]) -> VisionTransformer:
    vit = VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=32,
        depth=4,
        num_heads=2,
        num_classes=5,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
    )
    weights = {name[4:]: torch.tensor(value) for name, value in of_tome.items() if name.startswith("vit/")}
    vit.load_state_dict(weights)
    return vit.eval()


def num_tokens_by_block(tower: nn.Module, images: torch.Tensor) -> list[int]:
    """Return how many tokens the MLP of each block takes."""
    counts: list[int] = []
    mlps = [module for name, module in tower.named_modules() if name.endswith(".mlp")]
    hooks = [mlp.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[1])) for mlp in mlps]
    with torch.inference_mode():
        tower(images)
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "removed", "proportional"),
    [
        ("plain", (0, 0, 0, 0), True),
        ("r0", (0, 0, 0, 0), True),
        ("r8_prop", (8, 8, 8, 8), True),
        ("r8_noprop", (8, 8, 8, 8), False),
        ("r8_decreasing", (16, 10, 5, 0), True),
    ],
)
def test_a_tower_of_timm_computes_what_the_published_patch_does(
    name: str, removed: tuple[int, ...], proportional: bool, tiny: VisionTransformer, of_tome: dict[str, np.ndarray]
):
    merged = with_merging(tiny, tome_merging(removed, proportional=proportional))
    with torch.inference_mode():
        outputs = merged(torch.tensor(of_tome["vit_image"]))
    np.testing.assert_allclose(outputs, of_tome[f"vit_out_{name}"], atol=1e-4)
    if name == "r8_prop":
        assert num_tokens_by_block(merged, torch.tensor(of_tome["vit_image"])) == [57, 49, 41, 33]


def open_clip_vit() -> OpenClipViT:
    torch.manual_seed(0)
    return OpenClipViT(
        image_size=32, patch_size=4, width=32, layers=3, heads=2, mlp_ratio=4.0, output_dim=16, ls_init_value=0.5
    ).eval()


@pytest.mark.parametrize("proportional", [True, False])
def test_a_tower_of_open_clip_that_merges_nothing_is_the_tower(proportional: bool):
    tower, images = open_clip_vit(), torch.randn(2, 3, 32, 32)
    same = with_merging(tower, tome_merging((0, 0, 0), proportional=proportional))
    with torch.inference_mode():
        np.testing.assert_allclose(same(images), tower(images), atol=1e-5)


@pytest.mark.parametrize("way", [tome_tower, pitome_tower])
def test_fewer_tokens_are_left_after_each_block_and_weights_are_shared(way: Any):
    tower, images = open_clip_vit(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = tower(images)
        merged = way(tower)
        vectors = merged(images)
        assert torch.equal(tower(images), before)
    first, second, third = num_tokens_by_block(merged, images)
    assert 65 > first > second > third
    cosines = nn.functional.cosine_similarity(vectors, before)
    assert 0.9 < cosines.min() < 0.999999
    known = {parameter.data_ptr() for parameter in tower.parameters()}
    assert all(parameter.data_ptr() in known for parameter in merged.parameters())


def test_a_transformer_inside_another_module_is_found_and_replaced_there():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = open_clip_vit()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.trunk(x)

    tower, images = Wrapped().eval(), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        inside = pitome_tower(tower.trunk)(images)
        np.testing.assert_allclose(pitome_tower(tower)(images), 2 * inside, atol=1e-5)


def test_several_threads_compute_at_once():
    merged = tome_tower(open_clip_vit())
    batches = [torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]

    def compute(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return merged(batch)

    alone = list(map(compute, batches))
    with ThreadPoolExecutor(4) as threads:
        assert all(map(torch.equal, alone, threads.map(compute, batches)))


def test_a_tower_without_a_class_token_or_without_tokens_is_refused():
    for tower in (
        timm.create_model("test_efficientnet"),
        timm.create_model("test_vit", global_pool="avg", class_token=False),
        timm.create_model("test_vit", global_pool="avg"),
    ):
        with pytest.raises(MedclipError, match="class token") as caught:
            tome_tower(tower)
        assert caught.value.reason is Reason.WRONG_USE

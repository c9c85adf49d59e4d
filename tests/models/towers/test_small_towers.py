"""The small towers of MobileCLIP, and ViTamin: built by name, trained, packed, loaded, and read by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

import medclip
from medclip.errors import MedclipError, Reason
from medclip.explaining.tower import trace, with_gradient
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.depths import stage_maps
from medclip.models.towers.layers import fold_batch_norm
from medclip.models.towers.tokens import image_tokens
from tests.kits.training import make_shards, tiny_recipe

TEXTS: dict[str, Any] = {"vocab_size": 300, "embed_dim": 16, "text_width": 16, "text_heads": 2, "text_layers": 1}


def _visual(name: str, size_px: int) -> Any:
    torch.manual_seed(0)
    model = build_clip(default_config(image_tower=name, size_px=size_px, **TEXTS))
    return model.visual.eval().requires_grad_(False)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("name", [n for n in open_clip.list_models() if n.startswith(("MobileCLIP", "ViTamin"))])
def test_each_architecture_of_open_clip_is_built_without_weights(name: str):
    with torch.device("meta"):
        model = build_clip(open_clip.get_model_config(name) or {})
    num = sum(parameter.numel() for parameter in model.parameters())
    assert num == {"ViTamin-S": 62_469_185, "MobileCLIP2-S0": 74_835_073}.get(name, num)


@pytest.mark.parametrize(
    ("name", "num"),
    [
        ("vitamin_small_224", 21_877_696),
        ("vitamin_base_224", 87_132_032),
        ("vitamin_large_224", 332_531_616),
        ("fastvit_mci0", 10_882_176),
    ],
)
def test_parameters_of_a_trunk_are_as_many_as_published(name: str, num: int):
    with torch.device("meta"):
        trunk = timm.create_model(name, num_classes=0)
    assert sum(parameter.numel() for parameter in trunk.parameters()) == num


@pytest.mark.parametrize("name", ["fastvit_mci0", "fastvit_t8"])
def test_a_tower_that_attends_among_the_places_of_a_map_is_read_at_its_last_map(name: str):
    traced = trace(_visual(name, 64), with_gradient(torch.rand(1, 3, 64, 64)))
    assert (traced.is_transformer, traced.grid, traced.num_before) == (False, (2, 2), 0)
    assert traced.layer == "trunk.final_conv"


def test_vitamin_has_a_place_for_each_token_and_none_before():
    visual = _visual("vitamin_small_224", 64)
    assert visual.trunk.pos_embed.shape == (1, 16, 384)
    traced = trace(visual, with_gradient(torch.rand(1, 3, 64, 64)))
    assert (traced.is_transformer, traced.grid, traced.num_before, len(traced.blocks)) == (True, (4, 4), 0, 14)


@pytest.mark.parametrize("size", [224, 64])
def test_vitamin_has_maps_of_four_stages_and_its_tokens_are_the_last(size: int):
    visual, images = _visual("vitamin_small_224", size), torch.rand(1, 3, size, size)
    with torch.no_grad():
        maps = stage_maps(visual, images)
        tokens = image_tokens(visual, images, pool=False).tokens_BLD
    shapes = {stride: tuple(each.shape[1:]) for stride, each in maps.items()}
    channels = {2: 64, 4: 64, 8: 128, 16: 384}
    assert shapes == {stride: (of, size // stride, size // stride) for stride, of in channels.items()}
    torch.testing.assert_close(maps[16].flatten(2).transpose(1, 2), tokens)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert [*stage_maps(visual, grey, [16, 4])] == [4, 16]
    assert not visual.trunk.patch_embed.backbone.stem._forward_hooks


def test_a_convolutional_tower_has_a_map_for_each_size():
    visual = _visual("resnet10t", 64)
    with torch.no_grad():
        maps = stage_maps(visual, torch.rand(2, 3, 64, 64))
    assert [each.shape[2] for each in maps.values()] == [64 // stride for stride in maps]
    assert [*maps] == sorted(maps)
    with pytest.raises(MedclipError, match="no map of stride 3") as refused:
        stage_maps(visual, torch.rand(1, 3, 64, 64), [3])
    assert refused.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize("batch", [torch.rand(1, 3, 64, 64), {"patches": torch.rand(1, 4, 768)}])
def test_a_tower_of_one_map_has_none_by_stage(batch: object):
    with pytest.raises(MedclipError, match="no maps by stage") as refused:
        stage_maps(_visual("test_vit", 64), batch)
    assert refused.value.reason is Reason.NOT_SUPPORTED_YET


@pytest.mark.parametrize(("name", "num_left"), [("fastvit_mci0", 2), ("mobileone_s0", 0)])
def test_branches_become_one_convolution_with_the_same_vectors(name: str, num_left: int):
    """Two normalisations of `fastvit_mci0` stand before attention, with no convolution to go into."""
    visual, images = _visual(name, 64), torch.rand(2, 3, 64, 64)
    for module in visual.modules():  # as after a training: no branch is normalised by zeros and ones
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.1, 0.1)
    merged = fold_batch_norm(visual, images[:1])
    convolutions = [sum(isinstance(m, torch.nn.Conv2d) for m in tower.modules()) for tower in (visual, merged)]
    assert convolutions[1] < convolutions[0]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in merged.modules()) == num_left
    with torch.no_grad():
        before, after = visual(images), merged(images)
    assert float((before - after).abs().max()) <= 1e-4 * max(1.0, float(before.abs().max()))


@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("vitamin_small_224", marks=pytest.mark.slow)])
def test_a_small_tower_is_trained_packed_loaded_and_read_by_place(name: str, tmp_path: Path):
    recipe = tiny_recipe(make_shards(tmp_path))
    recipe["data"]["workers"] = 1
    recipe["model"] |= {"image_tower": name, "size_px": 64}
    recipe["train"] |= {"epochs": 1, "max_steps": 1}
    run = medclip.pretrain(recipe, out=tmp_path / "run")
    assert run.pack is not None
    model = medclip.models.load(run.pack)
    image = model.preprocess.fit(np.asarray(Image.open(tmp_path / "images" / "1.png").convert("RGB")))
    seen = model.encode_tokens(model.preprocess.together([image]))
    side = 2 if name == "fastvit_t8" else 4
    assert (seen.grid, seen.tokens_BLD.shape[:2], seen.before_BPD.shape[1]) == ((side, side), (1, side * side), 0)
    np.testing.assert_allclose(model.encode_image([image]), seen.pooled_BD, atol=1e-4)

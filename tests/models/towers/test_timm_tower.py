"""An image tower alone is timm's own, pooled by name; register tokens never enter a mean."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip
from tests.kits.image_only import ARGUMENTS, PATCH_PX, SIZE_PX, TOWER, WIDTH, image_only_config


def _pixels() -> torch.Tensor:
    return torch.randn(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))


def _tower(config: dict[str, Any]) -> Any:
    model = build_clip(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


@pytest.mark.parametrize("pooling", ["token", "avg", "map"])
def test_timms_own_poolings_give_the_features_of_timms_model(pooling: str) -> None:
    model = _tower(image_only_config(pooling))
    theirs = timm.create_model(TOWER, num_classes=0, global_pool=pooling, **ARGUMENTS).eval()
    theirs.load_state_dict(model.visual.trunk.state_dict())
    with torch.inference_mode():
        assert torch.equal(model.encode_image(_pixels()), theirs(_pixels()))


def test_the_mean_is_over_patches_alone_and_stands_behind_the_class_token() -> None:
    model = _tower(image_only_config("token+mean"))
    with torch.inference_mode():
        tokens = model.visual.trunk.forward_features(_pixels())
        features = model.encode_image(_pixels())
    patches = (SIZE_PX // PATCH_PX) ** 2
    assert tokens.shape[1] == 1 + 2 + patches
    assert torch.equal(features[:, :WIDTH], tokens[:, 0])
    assert torch.equal(features[:, WIDTH:], tokens[:, 3:].mean(1))
    mean = _tower(image_only_config("mean"))
    with torch.inference_mode():
        assert torch.equal(mean.encode_image(_pixels()), features[:, WIDTH:])


def test_a_layer_is_given_by_its_name() -> None:
    swiglu = build_clip(image_only_config(mlp_layer="SwiGLUPacked", act_layer="silu", mlp_ratio=2.0))
    block: Any = swiglu.visual.trunk.blocks[0]  # type: ignore[union-attr, index]
    assert type(block.mlp).__name__ == "GluMlp"
    assert isinstance(block.mlp.act, torch.nn.SiLU)


def test_an_image_of_another_size_than_the_towers_own_gets_its_grid() -> None:
    config = image_only_config()
    config["vision_cfg"]["image_size"] = 2 * SIZE_PX
    model: Any = build_clip(config).eval()
    assert model.encode_image(torch.zeros(1, 3, 2 * SIZE_PX, 2 * SIZE_PX)).shape == (1, WIDTH)


def _refusal(**vision_cfg: Any) -> str:
    config = image_only_config()
    config["vision_cfg"] |= vision_cfg
    with pytest.raises(MedclipError) as caught:
        build_clip(config)
    assert caught.value.reason is Reason.PACK_INVALID
    return str(caught.value)


def test_what_cannot_be_built_is_refused_in_a_sentence() -> None:
    assert "33 pixels wide, which is no multiple of its patches of 8" in _refusal(image_size=33)
    assert "timm_pool is None" in _refusal(timm_pool=None)
    assert "timm cannot build its image tower 'vit_tiny_patch16_2244'" in _refusal(
        timm_model_name="vit_tiny_patch16_2244"
    )
    assert "hub model" in _refusal(timm_model_name="hf-hub:paige-ai/Virchow")
    assert "the layer 'os.system'" in _refusal(timm_model_args={**ARGUMENTS, "mlp_layer": "os.system"})
    assert "has no class token" in _refusal(timm_model_args={**ARGUMENTS, "class_token": False}, timm_pool="token+mean")
    assert "Token pooling needs the class token" in _refusal(timm_model_args={**ARGUMENTS, "class_token": False})
    assert "has no patch tokens" in _refusal(timm_model_name="resnet18", timm_model_args={}, timm_pool="mean")
    config = image_only_config("token+mean") | {"embed_dim": WIDTH}
    with pytest.raises(MedclipError, match=f"embed_dim is {WIDTH}.*gives {2 * WIDTH} numbers"):
        build_clip(config)


def test_arguments_cannot_make_timm_fetch_or_load_anything() -> None:
    more = {"pretrained": True, "checkpoint_path": "evil.pth", "num_classes": 7, "cache_dir": "/"}
    model: Any = build_clip(image_only_config(**more))
    assert model.visual.trunk.num_classes == 0

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from medclip.errors import MedclipError, Reason
from medclip.models.towers.build import build_clip
from medclip.models.towers.timm_tower import make_tubelets
from tests.kits.volume_models import SIZE_PX, WIDTH, ct_input, volume_config


def _tower(**more: Any) -> Any:
    torch.manual_seed(0)
    return build_clip(volume_config(ct_input(**more))).visual


def test_tokens_come_time_major_then_by_row_then_by_column() -> None:
    embed = _tower().trunk.patch_embed
    assert embed.grid_size == (4, 4, 4)
    assert embed.num_patches == 64
    clip = torch.zeros(1, 1, 8, SIZE_PX, SIZE_PX)
    clip[0, 0, 3, 9, 25] = 1.0  # second tubelet, second row, fourth column
    changed = (embed(clip) - embed(torch.zeros_like(clip))).abs().sum(-1)[0]
    assert changed.nonzero().flatten().tolist() == [1 * 16 + 1 * 4 + 3]


def test_a_clip_becomes_one_vector_and_every_tubelet_counts() -> None:
    tower = _tower(channels=3)
    clips = torch.randn(2, 3, 8, SIZE_PX, SIZE_PX)
    assert tower(clips).shape == (2, WIDTH)
    assert tower.trunk.pos_embed.shape == (1, 65, WIDTH)
    moved = clips.clone()
    moved[:, :, 6:] += 1
    assert (tower(moved) - tower(clips)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "values",
    [
        {"num_frames": 8, "tubelet": 3, "channels": 1},
        {"num_frames": 8, "tubelet": 2},
        {"num_frames": 8, "tubelet": 2, "channels": 1, "stride": 2},
        {"num_frames": "8", "tubelet": 2, "channels": 1},
    ],
)
def test_numbers_that_do_not_go_together_are_refused(values: dict[str, Any]) -> None:
    trunk = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    with pytest.raises(MedclipError) as caught:
        make_tubelets(trunk, values, 32)
    assert caught.value.reason is Reason.PACK_INVALID


def test_a_tower_that_is_no_plain_transformer_is_refused() -> None:
    config = volume_config(ct_input())
    config["vision_cfg"] |= {"timm_model_name": "test_efficientnet", "timm_model_args": {}, "timm_pool": "avg"}
    config["embed_dim"] = 256
    with pytest.raises(MedclipError, match="cannot take clips"):
        build_clip(config)

"""The image tower of a pack starts another one: at another size, under another pooling, and of tubes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.start_trunk import names_a_pack, read_trunk, start_trunk
from medclip.models.packs.pack import load_model
from medclip.models.towers.build import build_clip
from medclip.models.towers.patch_decoder import resize_positions
from medclip.models.towers.timm_tower import make_tubelets
from tests.kits.image_only import PATCH_PX, SIZE_PX, image_only_config, image_only_pack

MAE = {"reg_tokens": 0, "no_embed_class": False, "init_values": None, "dynamic_img_size": False}
"""Of a plain vision transformer."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack as masked pretraining makes it: mean of the patch tokens after the last norm."""
    return image_only_pack(tmp_path_factory.mktemp("mae") / "pack", config=image_only_config("mean", **MAE))


def built(pooling: str, **more: Any) -> Any:
    torch.manual_seed(7)
    return build_clip(image_only_config(pooling, **MAE | more)).eval().visual


def of_pack(pack: Path) -> Any:
    return load_model(pack).clip.visual


def tokens_after_blocks(trunk: Any, images: Tensor) -> Tensor:
    """Return the tokens before any norm or pooling."""
    tokens = trunk._pos_embed(trunk.patch_embed(images))
    for block in trunk.blocks:
        tokens = block(tokens)
    return tokens


def test_a_tower_of_the_same_size_gives_the_same_features(pack: Path) -> None:
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX)
    visual, own = built("mean"), of_pack(pack)
    start_trunk(visual.trunk, read_trunk(pack))
    with torch.no_grad():
        torch.testing.assert_close(visual(images), own(images))


def test_another_pooling_keeps_patches_and_blocks_and_begins_its_norm_anew(pack: Path) -> None:
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX)
    visual, own = built("avg"), of_pack(pack)
    start_trunk(visual.trunk, read_trunk(pack))
    with torch.no_grad():
        ours, theirs = (tokens_after_blocks(tower.trunk, images) for tower in (visual, own))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(visual.trunk.fc_norm.weight, torch.ones_like(visual.trunk.fc_norm.weight))


def test_positions_are_interpolated_to_a_larger_image(pack: Path) -> None:
    config = image_only_config("avg", **MAE)
    config["vision_cfg"]["image_size"] = 2 * SIZE_PX
    model: Any = build_clip(config)
    visual = model.visual
    start_trunk(visual.trunk, read_trunk(pack))
    side = SIZE_PX // PATCH_PX
    expected = resize_positions(read_trunk(pack).state["pos_embed"], (side, side), (2 * side, 2 * side))
    torch.testing.assert_close(visual.trunk.pos_embed.detach(), expected)


def test_a_clip_that_stands_still_is_embedded_as_the_image_is(pack: Path) -> None:
    visual, own = built("avg"), of_pack(pack)
    make_tubelets(visual.trunk, {"num_frames": 4, "tubelet": 2, "channels": 3}, SIZE_PX)
    start_trunk(visual.trunk, read_trunk(pack))
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX)
    clips = images[:, :, None].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        of_clips, of_images = visual.trunk.patch_embed(clips), own.trunk.patch_embed(images)
    torch.testing.assert_close(of_clips, of_images.repeat(1, 2, 1), atol=1e-5, rtol=1e-5)
    positions = visual.trunk.pos_embed.detach()
    torch.testing.assert_close(positions[:, 1:], own.trunk.pos_embed.detach()[:, 1:].repeat(1, 2, 1))


def test_another_architecture_is_refused_in_one_sentence(pack: Path) -> None:
    for more in ({"depth": 3}, {"mlp_ratio": 2.0}, {"patch_size": 16}):
        with pytest.raises(MedclipError, match="holds a vit_tiny_patch16_224") as refused:
            start_trunk(built("mean", **more).trunk, read_trunk(pack))
        assert refused.value.reason is Reason.RECIPE_INVALID


def test_names_of_packs_are_told_from_files(pack: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    assert names_a_pack("medclip-mini")
    assert names_a_pack(str(pack))
    assert not names_a_pack(str(file))
    assert not names_a_pack("imagenet")

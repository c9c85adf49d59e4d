"""Vision transformers with patches of any aspect ratio: equal to the plain tower on a square, blind to padding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.layers import layer_depths, lock_image, recompute_activations
from medclip.models.towers.native_aspect import (
    check_equal,
    interpolated_positions,
    make_native,
    patch_side,
)
from medclip.models.towers.tokens import place_patches, unpack_batch

OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "custom_text": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1},
}


def _of(name: str) -> dict[str, Any]:
    if not name.startswith("open_clip"):
        config = default_config(vocab_size=300, image_tower=name, text_layers=1)
        config["vision_cfg"] |= {"image_size": 160} if name == "test_vit" else {}
        config["vision_cfg"] |= {"timm_pool": "map", "timm_proj": "none"} if "siglip" in name else {}
        config["vision_cfg"] |= {"timm_pool": "token"} if "tiny" in name else {}
        return config
    config = copy.deepcopy(OPEN_CLIP)
    config["vision_cfg"] |= {"pool_type": "avg", "final_ln_after_pool": True} if name.endswith("avg") else {}
    return config


def _pair(name: str) -> tuple[nn.Module, nn.Module, int]:
    """Build a plain model, with positions that matter, and the native form of it."""
    config = _of(name)
    torch.manual_seed(0)
    plain: Any = build_clip(config).eval()
    for n, p in plain.visual.named_parameters():
        if "pos" in n or "cls" in n or "class" in n:
            nn.init.normal_(p, std=0.5)
    native: Any = copy.deepcopy(plain)
    make_native(native.visual, config["vision_cfg"].get("timm_model_name"), config["vision_cfg"]["image_size"])
    return plain, native, config["vision_cfg"]["image_size"]


TOWERS = ("vit_tiny_patch16_224", "test_vit", "open_clip", "open_clip avg")


@pytest.fixture(params=TOWERS, scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any, int]:
    return _pair(request.param)


def _patches(batch: int, num: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, num, side * side * 3, generator=torch.Generator().manual_seed(seed))


def test_features_of_a_square_image_are_the_plain_towers(pair: tuple[Any, Any, int]) -> None:
    plain, native, size = pair
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    side = patch_side(native.visual)
    count = size // side
    cut = image.view(2, 3, count, side, count, side).permute(0, 2, 4, 3, 5, 1).reshape(2, count * count, -1)
    with torch.no_grad():
        expected = plain.encode_image(image, normalize=True)
        features = native.encode_image(place_patches(cut, torch.tensor([[count, count]] * 2)), normalize=True)
    assert float((features - expected).abs().max()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_base_patch16_siglip_224", "vit_small_patch14_dinov2"])
def test_larger_towers_are_equal_too(name: str) -> None:
    plain, native, size = _pair(name)
    check_equal(native.visual, plain.visual, size)


def test_features_depend_neither_on_padding_nor_on_neighbours_nor_on_the_length(pair: tuple[Any, Any, int]) -> None:
    _, native, size = pair
    side = patch_side(native.visual)
    most = (size // side) ** 2
    grids = [(size // side, size // side), (most // 8, 8), (2, most // 2), (3, 1)]
    patches = _patches(4, most, side)
    other = patches.clone()
    for i, (rows, columns) in enumerate(grids):
        other[i, rows * columns :] = 1e3
    with torch.no_grad():
        together = native.encode_image(place_patches(patches, torch.tensor(grids)))
        padded = native.encode_image(place_patches(other, torch.tensor(grids)))
        alone = [
            native.encode_image(place_patches(patches[i : i + 1, : rows * columns], torch.tensor([[rows, columns]])))
            for i, (rows, columns) in enumerate(grids)
        ]
    largest = float(together.abs().max())
    assert float((together - padded).abs().max()) < 1e-6 * largest
    assert float((together - torch.cat(alone)).abs().max()) < 1e-5 * largest


def test_padding_gets_no_gradient_and_every_weight_of_the_tower_gets_one(pair: tuple[Any, Any, int]) -> None:
    native = copy.deepcopy(pair[1]).train()
    patches = _patches(2, 30, patch_side(native.visual)).requires_grad_()
    native.encode_image(place_patches(patches, torch.tensor([[4, 5], [2, 9]]))).square().sum().backward()
    assert patches.grad is not None
    assert not patches.grad[0, 20:].any()
    assert not patches.grad[1, 18:].any()
    assert patches.grad[1, :18].any(dim=1).all()
    assert all(p.grad is not None for p in native.visual.parameters())


@pytest.mark.parametrize("grid", [(14, 14), (20, 9), (4, 40), (1, 100), (7, 3), (30, 30)])
def test_positions_are_those_of_timm(grid: tuple[int, int]) -> None:
    table = torch.randn(1, 196, 8, generator=torch.Generator().manual_seed(0))
    expected = resample_abs_pos_embed(table, new_size=list(grid), num_prefix_tokens=0)
    places = place_patches(torch.zeros(1, grid[0] * grid[1], 3), torch.tensor([grid]))["patch_coord"]
    positions = interpolated_positions(table[0].view(14, 14, 8), places)
    assert float((positions - expected).abs().max()) < 1e-5


def test_positions_of_an_image_one_patch_wide_are_those_of_it_turned() -> None:
    """torch's own interpolation to one column reads its input in the wrong order (seen with 2.13)."""
    table = torch.randn(14, 14, 8, generator=torch.Generator().manual_seed(0))
    upright, lying = (
        interpolated_positions(t, place_patches(torch.zeros(1, 40, 3), torch.tensor([grid]))["patch_coord"])
        for t, grid in ((table, (40, 1)), (table.transpose(0, 1), (1, 40)))
    )
    assert torch.allclose(upright, lying, atol=1e-6)


def test_packed_images_are_normalised_by_channel_and_placed() -> None:
    budget = TokenBudget(2, 700)
    image = np.zeros((2, 2 * 600, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    packed = torch.from_numpy(np.stack([budget.pack(image), budget.pack(image.swapaxes(0, 1)[:6])]))
    batch = unpack_batch(packed, torch.tensor([0.0, 0.2, 0.5]), torch.tensor([1.0, 2.0, 0.25]))
    assert torch.allclose(batch["patches"][0, 599].view(4, 3), torch.tensor([0.0, 0.0, 2.0]))
    assert batch["patch_valid"].sum(dim=1).tolist() == [600, 3]
    assert batch["patch_coord"].amax(dim=1).tolist() == [[0, 599], [2, 0]]


def test_zeros_are_an_image_of_one_black_patch() -> None:
    batch = unpack_batch(torch.zeros(1, 5, 12, dtype=torch.uint8), torch.zeros(3), torch.ones(3))
    assert batch["patch_valid"].tolist() == [[True, False, False, False]]


def test_the_names_of_open_clips_weights_stay() -> None:
    plain, native, _ = _pair("open_clip")
    assert list(plain.state_dict()) == list(native.state_dict())


def test_a_native_config_builds_the_same_tower_again() -> None:
    for name in ("test_vit", "open_clip"):
        native = _pair(name)[1]
        config = _of(name)
        config["vision_cfg"]["native_aspect"] = True
        built: Any = build_clip(config)
        same, other = (getattr(m.visual, "trunk", m.visual) for m in (built, native))
        assert type(same) is type(other)
        built.load_state_dict(native.state_dict(), strict=True)


def test_groups_of_layers_are_those_of_the_plain_tower(pair: tuple[Any, Any, int]) -> None:
    plain, native, _ = pair

    def count(model: Any) -> dict[int, int]:
        depths = layer_depths(model)
        return {d: sum(1 for n in depths if n.startswith("visual.") and depths[n] == d) for d in depths.values()}

    assert count(native) == count(plain)
    locked = lock_image(copy.deepcopy(native), unlocked_groups=2)
    assert len(locked) == len(lock_image(copy.deepcopy(plain), unlocked_groups=2))


def test_activation_checkpointing_changes_no_gradient(pair: tuple[Any, Any, int]) -> None:
    grads = []
    for saved in (False, True):
        native = copy.deepcopy(pair[1]).train()
        if saved:
            recompute_activations(native)
        batch = place_patches(_patches(2, 30, patch_side(native.visual)), torch.tensor([[4, 5], [2, 9]]))
        native.encode_image(batch).square().sum().backward()
        grads.append([p.grad for p in native.visual.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "deit_tiny_patch16_224", "beit_base_patch16_224", "RN50"])
def test_other_towers_are_refused(name: str) -> None:
    config = copy.deepcopy(OPEN_CLIP)
    if name == "RN50":
        config["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    else:
        config = default_config(vocab_size=300, image_tower=name, text_layers=1)
    config["vision_cfg"]["native_aspect"] = True
    with pytest.raises(MedclipError, match="native_aspect") as caught:
        build_clip(config)
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_a_tower_whose_features_would_change_is_refused() -> None:
    native: Any
    plain, native, size = _pair("test_vit")
    with torch.no_grad():
        native.visual.trunk.embeds.pos_embed.mul_(1.01)
    with pytest.raises(MedclipError, match="would change"):
        check_equal(native.visual, plain.visual, size)

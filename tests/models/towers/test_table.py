"""The table of towers: a tower that the library does not have is one row, and a recipe names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import medclip
from medclip import lazy
from medclip.errors import MedclipError, Reason
from medclip.models.backends.known import BACKENDS
from medclip.models.backends.load import load_backend
from medclip.models.layer_bits import allocate_bits, layer_relevance, linear_layers
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.table import TOWERS, Tower, architecture_of, image_tower_of, text_tower_of
from medclip.models.towers.timm_tower import takes_pooling
from medclip.models.towers.tokens import Tokens
from tests.kits.training import make_shards, tiny_recipe

SIDE_PX = 16


class QuadrantTower(nn.Module):
    """The mean brightness of each square of `SIDE_PX` pixels, projected."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim or 8
        self.line = nn.Linear(3, self.dim)

    def encode_tokens(self, batch: Tensor, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
        map_BCHW = nn.functional.avg_pool2d(batch, SIDE_PX)
        tokens_BLD = map_BCHW.flatten(2).transpose(1, 2)
        seen_BLD = self.line(tokens_BLD)
        mask_BL = torch.ones(tokens_BLD.shape[:2], dtype=torch.bool)
        grids = (tuple(map_BCHW.shape[2:]),) * len(batch)
        return Tokens(seen_BLD if project else tokens_BLD, mask_BL, tokens_BLD[:, :0], grids, seen_BLD.mean(1))

    def forward(self, batch: Tensor) -> Tensor:
        return self.encode_tokens(batch).pooled_BD


def build_quadrants(section: Any, dim: int | None) -> QuadrantTower:
    return QuadrantTower(dim)


ROW = Tower("brightness by square", "quadrants", ("images",), build=build_quadrants)


@pytest.fixture
def quadrants(monkeypatch: pytest.MonkeyPatch) -> Tower:
    """A row of this file, behind those of the library."""
    monkeypatch.setitem(TOWERS, "quadrants", ROW)
    return ROW


def pretrained(folder: Path, **model: Any) -> tuple[Any, Path]:
    """Train for six steps by the public verb; return the loaded model and its pack."""
    recipe = tiny_recipe(make_shards(folder))
    recipe["data"]["workers"] = 1
    recipe["model"] |= model
    run = medclip.pretrain(recipe, out=folder / "run")
    assert run.pack is not None
    return medclip.models.load(run.pack), run.pack


def test_a_tower_of_this_file_is_trained_and_encoded_by_the_name_that_a_recipe_gives(quadrants: Tower, tmp_path: Path):
    model, pack = pretrained(tmp_path, image_tower="quadrants")
    assert isinstance(model.clip.visual, QuadrantTower)
    config = json.loads((pack / "open_clip_config.json").read_text())["model_cfg"]
    assert config["vision_cfg"] == {"image_size": 32, "quadrants": {}}
    assert architecture_of(config["vision_cfg"]) == "quadrants"
    image = tmp_path / "images" / "1.png"
    vector = model.embed_images([image], modality="xray")
    assert vector.shape == (1, 16)
    pixels = model.preprocess.fit(np.asarray(Image.open(image).convert("RGB")))
    seen = model.encode_tokens(model.preprocess.together([pixels]), project=True)
    assert (seen.grid, seen.tokens_BLD.shape) == ((2, 2), (1, 4, 16))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = QuadrantTower(16)
    assert not torch.equal(model.clip.visual.line.weight, fresh.line.weight)


def test_a_tower_of_another_package_opens_a_pack_that_is_refused_by_its_key_without(
    quadrants: Tower, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    _, pack = pretrained(tmp_path, image_tower="quadrants")
    monkeypatch.delitem(TOWERS, "quadrants")
    with pytest.raises(MedclipError, match=r"vision_cfg has the key 'quadrants', which no tower has.*medclip\.towers"):
        medclip.models.load(pack)
    with pytest.raises(MedclipError, match="has the key 'quadrants'"):
        build_clip({"vision_cfg": {"quadrants": {}}})
    brought = {"quadrants": f"{__name__}:ROW"}
    monkeypatch.setattr(lazy, "_entries", lambda group: brought if group == "medclip.towers" else {})
    assert isinstance(medclip.models.load(pack).clip.visual, QuadrantTower)


def test_a_row_with_a_key_of_its_own_is_taken_before_that_of_timm_wherever_it_stands(quadrants: Tower):
    assert list(TOWERS)[-1] == "quadrants"
    assert image_tower_of({"timm_model_name": "test_vit", "quadrants": {}}) is quadrants
    assert image_tower_of({"timm_model_name": "test_vit"}) is TOWERS["timm"]


def test_a_pooling_that_a_tower_does_not_have_is_refused_by_what_it_lacks(quadrants: Tower, tmp_path: Path):
    recipe = tiny_recipe(make_shards(tmp_path))

    def refusal(without_words: bool = False, **model: Any) -> str:
        changed = {**recipe, "model": {**recipe["model"], **model}}
        if without_words:
            kept = {"image_weights": None, "size_px": 32, **model}
            changed = {**{k: v for k, v in recipe.items() if k != "text"}, "model": kept, "objective": "masked"}
        with pytest.raises(MedclipError) as refused:
            medclip.pretrain(changed, out=tmp_path / "run")
        assert refused.value.reason is Reason.RECIPE_INVALID
        return str(refused.value)

    assert "'quadrants', which is a row of TOWERS" in refusal(image_tower="quadrants", image_pooling="token")
    assert "'test_efficientnet' has no class token" in refusal(image_tower="test_efficientnet", image_pooling="token")
    assert "'test_vit' has no attention pooling of its own" in refusal(image_tower="test_vit", image_pooling="map")
    assert "'resnet18' has no class token" in refusal(True, image_tower="resnet18", image_pooling="token")
    assert "'resnet18' has no attention pooling." in refusal(True, image_tower="resnet18", image_pooling="map")
    said = refusal(image_tower="test_vit", image_pooling="cls")
    assert "image_pooling: is 'cls', and must be token, avg or map (with words map only" in said
    assert "without words, mean or token+mean" in said
    assert takes_pooling("vit_base_patch16_siglip_224", "map", {}, words=True)
    assert takes_pooling("test_vit", "map", {}, words=False)


def test_every_row_says_what_it_takes_and_configs_name_one_each():
    signal = {"tower": "lead_patch", "size": "test", "patch": 10, "samples": 100}
    named = {
        "lens": {"lens": {}, "signal": signal, "timm_model_name": "test_vit"},
        "signal": {"signal": signal},
        "tubelet": {"tubelet": {}, "timm_model_name": "test_vit"},
        "native_aspect": {"native_aspect": True, "patch_size": 16},
        "timm": {"timm_model_name": "test_vit", "native_aspect": False, "signal": None},
        "open_clip": {"patch_size": 16},
    }
    for name, section in named.items():
        assert image_tower_of(section) is TOWERS[name], name
    assert [architecture_of(section) for section in named.values()] == [
        "test_vit",
        "lead_patch",
        "test_vit",
        "native_aspect",
        "test_vit",
        "",
    ]
    assert text_tower_of({"hf_model_name": "."}) is TOWERS["bert"]
    assert text_tower_of({"width": 8}) is TOWERS["text"]
    assert all(row.title and row.takes for row in TOWERS.values())


def test_a_tower_that_stands_with_words_alone_is_refused_without():
    with pytest.raises(MedclipError, match="of open_clip, which no model without words can have") as refused:
        build_clip({"vision_cfg": {"patch_size": 16}})
    assert refused.value.reason is Reason.PACK_INVALID
    config = default_config(vocab_size=300)
    with pytest.raises(MedclipError, match="for models with words"):
        build_clip({"vision_cfg": config["vision_cfg"] | {"native_aspect": True}})


def test_a_vit_trained_with_a_class_token_can_be_merged_and_gets_bits_by_layer(tmp_path: Path):
    model, pack = pretrained(tmp_path, image_tower="test_vit", image_pooling="token", size_px=64)
    vision_cfg = json.loads((pack / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    assert vision_cfg["timm_pool"] == "token"
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    plain = model.encode_tokens(images)
    for name in ("tome", "pitome"):
        merged = load_backend(model, BACKENDS[name])
        seen = merged.encode_tokens(images)
        np.testing.assert_array_equal(seen.pooled_BD, merged.encode_image(images))
        merges = name == "tome"  # of 16 patches a share of 95 % is all of them
        assert (seen.tokens_BLD.shape[1] < plain.tokens_BLD.shape[1]) is merges
    tower = model.image_tower
    relevance = layer_relevance(tower, model.normalise(images), torch.from_numpy(plain.pooled_BD))
    assert sum(relevance.values()) == pytest.approx(1)
    sizes = [weight.numel() for weight in linear_layers(tower).values()]
    bits = allocate_bits(list(relevance.values()), sizes, mean_bits=6)
    assert len(bits) == len(sizes)
    assert len(set(bits)) > 1
    with pytest.raises(MedclipError, match="image_pooling: mean is of a tower without words"):
        pretrained(tmp_path / "words", image_tower="test_vit", image_pooling="mean")

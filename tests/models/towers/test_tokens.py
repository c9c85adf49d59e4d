"""Tokens of every kind of tower: pooled as the tower does they are its vectors, and each has its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.imaging.geometry import TokenBudget
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.model import Model
from medclip.models.packs.card import IMPORTED, Card
from medclip.models.towers.build import build_clip, default_config
from medclip.models.towers.depths import level_tokens
from medclip.models.towers.merging_tower import pitome_tower, tome_tower
from medclip.models.towers.tokens import Tokens, image_tokens, text_tokens, unpack_batch
from medclip.text.tokenizers.tokenizer import train_tokenizer

TEXTS = {"vocab_size": 300, "context_length": 8, "embed_dim": 16, "text_width": 16, "text_heads": 2, "text_layers": 1}
OPEN_CLIP_VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
LENS = {"latents": 6, "width": 64, "token_width": 12, "depth": 1, "latent_heads": 2, "head_dim": 8}
CLIPS = {"num_frames": 4, "tubelet": 2, "channels": 1}
ALONE: dict[str, Any] = {"timm_model_name": "test_vit", "image_size": 160}
TOWERS: dict[str, tuple[dict[str, Any], bool, tuple[int, ...], tuple[int, ...] | None, int]] = {
    # vision_cfg, with words, shape of an input, grid, tokens before
    "timm ViT, mean": (
        {"timm_model_name": "test_vit", "timm_pool": "avg", "image_size": 160},
        True,
        (3, 160, 160),
        (10, 10),
        1,
    ),
    "timm ViT, class token": (
        {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
        True,
        (3, 160, 160),
        (10, 10),
        1,
    ),
    "timm ViT, attention": (
        {"timm_model_name": "vit_base_patch32_siglip_256", "timm_pool": "map", "timm_proj": "none", "image_size": 64},
        True,
        (3, 64, 64),
        (2, 2),
        0,
    ),
    "timm convolutional": (
        {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "image_size": 64},
        True,
        (3, 64, 64),
        (2, 2),
        0,
    ),
    "timm windows, channels last": (
        {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_pool": "avg", "image_size": 224},
        True,
        (3, 224, 224),
        (7, 7),
        0,
    ),
    "open_clip ViT": (OPEN_CLIP_VIT, True, (3, 32, 32), (4, 4), 1),
    "open_clip ViT, mean, norm behind": (
        OPEN_CLIP_VIT | {"pool_type": "avg", "final_ln_after_pool": True},
        True,
        (3, 32, 32),
        (4, 4),
        1,
    ),
    "open_clip ViT, attention": (
        OPEN_CLIP_VIT | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        True,
        (3, 32, 32),
        (4, 4),
        1,
    ),
    "open_clip ResNet": ({"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}, True, (3, 64, 64), (2, 2), 0),
    "alone, mean": (ALONE | {"timm_pool": "mean"}, False, (3, 160, 160), (10, 10), 1),
    "alone, token+mean": (ALONE | {"timm_pool": "token+mean"}, False, (3, 160, 160), (10, 10), 1),
    "tubelets": (ALONE | {"timm_pool": "avg", "image_size": 32, "tubelet": CLIPS}, False, (1, 4, 32, 32), (2, 2, 2), 1),
    "ECGs, all leads": (
        {"signal": {"tower": "joint_patch", "size": "test", "patch": 10, "samples": 100}},
        True,
        (1, 12, 100),
        (1, 10),
        0,
    ),
    "ECGs, by lead": (
        {"signal": {"tower": "lead_patch", "size": "test", "patch": 25, "samples": 100}},
        True,
        (1, 12, 100),
        (12, 4),
        0,
    ),
    "ECGs, residual": (
        {"signal": {"tower": "resnet1d", "size": "test", "samples": 100}},
        False,
        (1, 12, 100),
        (1, 7),
        0,
    ),
    "lens over ECGs": (
        ALONE | {"timm_pool": "avg", "lens": LENS, "signal": {"samples": 100, "patch": 10}},
        True,
        (1, 12, 100),
        None,
        1,
    ),
    "lens over volumes": (
        ALONE | {"timm_pool": "mean", "image_size": 32, "lens": LENS | {"patch_px": 8}, "tubelet": CLIPS},
        False,
        (1, 4, 32, 32),
        None,
        1,
    ),
}
PROJECTING = [
    "timm ViT, mean",
    "timm ViT, class token",
    "timm convolutional",
    "timm windows, channels last",
    "open_clip ViT",
    "open_clip ViT, mean, norm behind",
    "ECGs, all leads",
    "ECGs, by lead",
    "lens over ECGs",
]


def clip_of(vision_cfg: dict[str, Any], words: bool = True) -> Any:
    config = default_config(**TEXTS)  # type: ignore[arg-type]
    config["vision_cfg"] = {"timm_proj": "linear"} | vision_cfg if "timm_model_name" in vision_cfg else vision_cfg
    if not words:
        config = {"vision_cfg": {k: v for k, v in vision_cfg.items() if k != "timm_proj"}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_clip(config).eval()
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):  # so that a norm in the wrong place is seen
                nn.init.normal_(module.weight, 1, 0.3)
    return model


def inputs_of(shape: tuple[int, ...]) -> Tensor:
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    if shape[:2] == (1, 12):
        inputs[0, :, 3] = 0  # a lead that is missing
    return inputs


@pytest.mark.parametrize("name", TOWERS)
@torch.inference_mode()
def test_tokens_pooled_as_the_tower_does_are_its_vectors_and_each_has_its_place(name: str):
    vision_cfg, words, shape, grid, num_before = TOWERS[name]
    visual, inputs = clip_of(vision_cfg, words).visual, inputs_of(shape)
    seen = image_tokens(visual, inputs)
    torch.testing.assert_close(seen.pooled_BD, visual(inputs), rtol=0, atol=0)
    assert seen.grid == grid
    assert seen.before_BPD.shape[:2] == (2, num_before)
    if grid is not None:
        assert seen.tokens_BLD.shape[1] == math.prod(grid)
    assert seen.mask_BL.dtype == torch.bool
    assert seen.mask_BL.shape == seen.tokens_BLD.shape[:2]
    assert image_tokens(visual, inputs, pool=False).pooled_BD.shape == (2, 0)


LEVELS: dict[str, tuple[tuple[int, ...], int]] = {  # grid and channels of all depths together
    "timm ViT, mean": ((10, 10), 4 * 64),
    "timm ViT, class token": ((10, 10), 4 * 64),
    "timm ViT, attention": ((2, 2), 4 * 768),
    "timm convolutional": ((8, 8), 32 + 48 + 64),
    "timm windows, channels last": ((28, 28), 192 + 384 + 768),
    "open_clip ViT": ((4, 4), 2 * 32),
    "open_clip ViT, mean, norm behind": ((4, 4), 2 * 32),
}


@pytest.mark.parametrize("name", LEVELS)
@torch.inference_mode()
def test_tokens_of_several_depths_have_the_finest_grid_and_the_same_vectors(name: str):
    vision_cfg, words, shape, _, _ = TOWERS[name]
    visual, inputs = clip_of(vision_cfg, words).visual, inputs_of(shape)
    seen = level_tokens(visual, inputs)
    torch.testing.assert_close(seen.pooled_BD, visual(inputs))
    assert (seen.grid, seen.tokens_BLD.shape[2]) == LEVELS[name]
    assert seen.tokens_BLD.shape[1] == math.prod(LEVELS[name][0])
    moved = inputs.clone()
    moved[:, :, : shape[1] // 4, : shape[2] // 4] += 3
    changed = (level_tokens(visual, moved).tokens_BLD - seen.tokens_BLD).abs().mean(dim=(0, 2)).view(*LEVELS[name][0])
    assert changed[0, 0] > 1.2 * changed[-1, -1]  # a token is of its own place


def test_a_tower_without_depths_is_refused():
    with pytest.raises(MedclipError, match="maps of several depths") as refused:
        level_tokens(nn.Linear(2, 2), torch.zeros(1, 2))
    assert refused.value.reason is Reason.NOT_SUPPORTED_YET


@pytest.mark.parametrize("name", TOWERS)
@torch.inference_mode()
def test_a_linear_projection_is_that_of_a_token_pooled_alone_and_others_are_refused(name: str):
    vision_cfg, words, shape, _, _ = TOWERS[name]
    visual, inputs = clip_of(vision_cfg, words).visual, inputs_of(shape)
    if name not in PROJECTING:
        with pytest.raises(MedclipError, match="cannot project its tokens") as refused:
            image_tokens(visual, inputs, project=True)
        assert refused.value.reason is Reason.WRONG_USE
        return
    seen = image_tokens(visual, inputs, project=True)
    assert seen.tokens_BLD.shape[2] == 16
    if name in ("timm ViT, class token", "open_clip ViT"):  # what is pooled is one of them
        torch.testing.assert_close(seen.before_BPD[:, 0], seen.pooled_BD)
    elif name in ("timm convolutional", "timm windows, channels last"):  # all behind the mean is linear
        torch.testing.assert_close(seen.tokens_BLD.mean(1), seen.pooled_BD, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_token_has_the_place_that_it_is_seen_at():
    """A patch that changes changes the tokens there most: rows and columns are not mixed up."""
    for name in ("timm ViT, mean", "open_clip ViT", "timm windows, channels last"):
        vision_cfg, words, shape, grid, _ = TOWERS[name]
        assert grid is not None
        visual, inputs = clip_of(vision_cfg, words).visual, inputs_of(shape)
        other, side = inputs.clone(), shape[1] // grid[0]
        other[:, :, :side, -side:] = 3  # first row, last column
        moved_BL = (image_tokens(visual, other).tokens_BLD - image_tokens(visual, inputs).tokens_BLD).norm(dim=-1)
        assert set(moved_BL.argmax(1).tolist()) == {grid[1] - 1}, name
    visual, inputs = clip_of(*TOWERS["timm convolutional"][:2]).visual, inputs_of((3, 64, 64))
    map_BCHW = image_tokens(visual, inputs).tokens_BLD.transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(map_BCHW, visual.trunk.forward_features(inputs), rtol=0, atol=0)


@torch.inference_mode()
def test_missing_leads_are_masked_and_merged_tokens_have_no_place():
    vision_cfg, words, shape, _, _ = TOWERS["ECGs, by lead"]
    seen = image_tokens(clip_of(vision_cfg, words).visual, inputs_of(shape))
    assert (~seen.mask_BL).nonzero().tolist() == [[0, 12], [0, 13], [0, 14], [0, 15]]
    for name in ("timm ViT, class token", "open_clip ViT"):
        vision_cfg, words, shape, _, _ = TOWERS[name]
        visual, inputs = clip_of(vision_cfg, words).visual, inputs_of(shape)
        for merge in (tome_tower, pitome_tower) if name.startswith("timm") else (tome_tower,):
            merged = merge(visual)
            seen = image_tokens(merged, inputs)
            torch.testing.assert_close(seen.pooled_BD, merged(inputs), rtol=0, atol=0)
            assert seen.grids is None
            assert seen.tokens_BLD.shape[1] < image_tokens(visual, inputs).tokens_BLD.shape[1]
    assert len(repr(seen)) < 120


@pytest.mark.parametrize("name", ["open_clip ViT", "timm ViT, mean"])
@torch.inference_mode()
def test_images_of_native_aspect_have_grids_of_their_own(name: str):
    vision_cfg, words, _, _, _ = TOWERS[name]
    visual = clip_of(vision_cfg | {"native_aspect": True}, words).visual
    budget = TokenBudget(8 if name == "open_clip ViT" else 16, 12)
    side = budget.patch_px
    images = [
        np.random.default_rng(n).integers(0, 256, (r * side, c * side, 3), np.uint8)
        for n, (r, c) in enumerate([(2, 5), (3, 4)])
    ]
    packed = torch.from_numpy(np.stack([budget.pack(image) for image in images]))
    batch = unpack_batch(packed, torch.zeros(3), torch.ones(3))
    for project in (False, True):
        seen = image_tokens(visual, batch, project=project)
        torch.testing.assert_close(seen.pooled_BD, visual(batch), rtol=0, atol=0)
        assert seen.grids == ((2, 5), (3, 4))
        assert seen.grid is None
        assert seen.mask_BL.sum(1).tolist() == [10, 12]
    assert seen.tokens_BLD.shape[2] == 16


@torch.inference_mode()
def test_words_have_tokens_with_their_mask(tmp_path: Path):
    ids = torch.tensor([[1, 5, 6, 2, 0, 0, 0, 0], [1, 7, 2, 0, 0, 0, 0, 0]])
    for custom in (False, True):
        config = default_config(**TEXTS) | {"custom_text": custom, "vision_cfg": OPEN_CLIP_VIT}  # type: ignore[arg-type]
        clip: Any = build_clip(config).eval()
        for project in (False, True):
            seen = text_tokens(clip, ids, 0, project=project)
            torch.testing.assert_close(seen.pooled_BD, clip.encode_text(ids), rtol=0, atol=0)
            assert seen.mask_BL.sum(1).tolist() == [4, 3]
            assert (seen.tokens_BLD.shape, seen.grids) == ((2, 8, 16), None)
        ends = ids.argmax(1)
        torch.testing.assert_close(seen.tokens_BLD[torch.arange(2), ends], seen.pooled_BD)
    config["text_cfg"] |= {"embed_cls": True, "pad_id": 0, "output_tokens": False}
    clip = build_clip(config).eval()
    seen = text_tokens(clip, ids[:, :7], 0, project=True)
    torch.testing.assert_close(seen.pooled_BD, clip.encode_text(ids[:, :7]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.before_BPD[:, 0], seen.pooled_BD)


@pytest.mark.parametrize(("projection", "width"), [("linear", 16), ("mlp", 0), ("none", 0)])
@torch.inference_mode()
def test_words_of_a_bert_have_tokens_and_only_a_linear_projection_is_of_each(
    projection: Any, width: int, tmp_path: Path
):
    from transformers import BertConfig

    from medclip.models.towers.bert import bert_text_cfg

    sizes: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    hidden = 16 if projection == "none" else 24
    BertConfig(vocab_size=300, hidden_size=hidden, max_position_embeddings=16, **sizes).save_pretrained(tmp_path)
    text_cfg = bert_text_cfg(pooling="mean", projection=projection, context_length=8)
    clip: Any = build_clip({"embed_dim": 16, "vision_cfg": OPEN_CLIP_VIT, "text_cfg": text_cfg}, tmp_path).eval()
    ids = torch.tensor([[1, 5, 6, 2, 0, 0, 0, 0], [1, 7, 2, 0, 0, 0, 0, 0]])
    seen = text_tokens(clip, ids, 0)
    torch.testing.assert_close(seen.pooled_BD, clip.encode_text(ids), rtol=0, atol=0)
    assert seen.tokens_BLD.shape == (2, 8, hidden)
    assert seen.mask_BL.sum(1).tolist() == [4, 3]
    if width:
        assert text_tokens(clip, ids, 0, project=True).tokens_BLD.shape == (2, 8, width)
    else:
        with pytest.raises(MedclipError, match="cannot project"):
            text_tokens(clip, ids, 0, project=True)


def model_of(tmp_path: Path, vision_cfg: dict[str, Any], **values: Any) -> Model:
    tokenizer = train_tokenizer(["a chest x-ray of a lung"] * 20, tmp_path / "t", vocab_size=300, context_length=8)
    card = Card(name="tiny", version="1", summary="Random weights.", created_from={IMPORTED: "random"})
    preprocess = Preprocess(vision_cfg["image_size"], **values)
    return Model(clip_of(vision_cfg), tokenizer, preprocess, card, name="tiny", path=tmp_path)


@pytest.mark.parametrize("name", ["timm convolutional", "open_clip ViT"])
def test_a_model_encodes_tokens_beside_the_vectors_that_it_gives_to_the_bit(name: str, tmp_path: Path):
    model = model_of(tmp_path, TOWERS[name][0])
    size = model.preprocess.size_px
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), np.uint8)
    seen = model.encode_tokens(images)
    assert isinstance(seen, Tokens)
    np.testing.assert_array_equal(seen.pooled_BD, model.encode_image(images))
    assert seen.tokens_BLD.dtype == np.float32
    assert (len(seen.tokens_BLD), len(seen.mask_BL), len(seen.grids or ())) == (5, 5, 5)
    assert model.encode_tokens(images[:1], project=True).tokens_BLD.shape[2] == model.dim
    texts = ["a chest x-ray", "lung", "a chest x-ray of a lung"]
    words = model.encode_tokens(texts)
    np.testing.assert_array_equal(words.pooled_BD, model.encode_text(texts))
    lengths = words.mask_BL.sum(1)
    assert lengths[1] < lengths[0] < lengths[2]
    np.testing.assert_array_equal(model.encode_tokens("lung").tokens_BLD.shape, (1, 8, 16))


def test_what_has_no_tokens_is_refused(tmp_path: Path):
    model = model_of(tmp_path, OPEN_CLIP_VIT)
    black = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(MedclipError, match="encode_tokens was given uint8"):
        model.encode_tokens(black[:, :8])
    with pytest.raises(
        MedclipError, match=r"given uint8 \[32, 32, 3\]; it takes uint8 \[N, 32, 32, 3\].*image\[None\]"
    ):
        model.encode_tokens(black[0])
    with pytest.raises(MedclipError, match=r"given uint8 \[8, 32, 3\] for an image"):
        model.encode_tokens([black[0, :8]])
    with pytest.raises(MedclipError, match="no image and no text"):
        model.encode_tokens(black[:0])
    with pytest.raises(MedclipError, match="back-end that gives vectors alone"):
        model.with_image_tower(lambda batch: batch.flatten(1)).encode_tokens(black)
    with pytest.raises(MedclipError, match="class Linear has no tokens") as refused:
        image_tokens(nn.Linear(2, 2), torch.zeros(1, 2))
    assert refused.value.reason is Reason.NOT_SUPPORTED_YET

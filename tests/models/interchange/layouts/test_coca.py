"""CoCa's contrastive half: open_clip's, and CONCH's, whose pooling is written out here plainly a second time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.coca_model import CoCa
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from medclip.api.models import import_model
from medclip.errors import MedclipError, Reason
from medclip.models.packs.pack import load_model
from tests.kits.hf_models import TEXTS, randomise
from tests.kits.layouts import PIXELS, VIT, add_architecture, features, hub_folder, images, plain_state

COCA: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {
        "context_length": 20,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    "custom_text": True,
}


@pytest.mark.parametrize("bare", [False, True])
def test_the_contrastive_half_of_an_open_clip_coca_is_open_clips_own(tmp_path: Path, bare: bool) -> None:
    config = {k: v for k, v in COCA.items() if k != "custom_text"}
    theirs = randomise(CoCa(**config))
    options: dict[str, Any] = {}
    if bare:
        source = tmp_path / "coca.pt"
        torch.save(plain_state(theirs), source)
        options = {"architecture": add_architecture(tmp_path / "configs", "coca_tiny", COCA), **PIXELS}
    else:
        source = hub_folder(tmp_path / "coca", COCA, plain_state(theirs), "open_clip_model.safetensors")
    ours = load_model(import_model(source, tmp_path / "pack", **options))
    tokens = open_clip.SimpleTokenizer(context_length=20)(TEXTS)
    np.testing.assert_array_equal(ours.tokenizer.encode(TEXTS), tokens.numpy())
    image, text = features(theirs, ours.normalise(images()), tokens)
    np.testing.assert_allclose(ours.encode_image(images()), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(TEXTS), text, atol=1e-5)
    assert not [name for name in ours.clip.state_dict() if "decoder" in name]


WIDTH, JOINT, SIDE, LENGTH = 128, 64, 448, 24
"""Two heads of 64 in both towers, eight of 8 in the pool, 23 tokens and the class token."""
PATCH = 64


class Conch(nn.Module):
    """What CONCH's configuration asks for, attention written out; for the names of its state dict, too."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.visual = nn.Module()
        self.visual.trunk = timm.create_model(
            "vit_base_patch16_224",
            img_size=grid * PATCH,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            num_classes=0,
            dynamic_img_size=True,
        )
        for part, queries, width in (("contrast", 1, JOINT), ("caption", 5, WIDTH)):
            pool = nn.Module()
            pool.query = nn.Parameter(torch.randn(queries, width))
            pool.attn = nn.MultiheadAttention(width, 8, kdim=WIDTH, vdim=WIDTH)
            pool.ln_q, pool.ln_k = nn.LayerNorm(width), nn.LayerNorm(WIDTH)
            setattr(self.visual, f"attn_pool_{part}", pool)
            setattr(self.visual, f"ln_{part}", nn.LayerNorm(width))
        self.visual.proj_contrast = nn.Parameter(torch.randn(JOINT, JOINT))
        self.text = nn.Module()
        self.text.cls_emb = nn.Parameter(torch.randn(WIDTH))
        self.text.token_embedding = nn.Embedding(300, WIDTH)
        self.text.positional_embedding = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.text.text_projection = nn.Parameter(torch.randn(WIDTH, JOINT))
        self.text.ln_final = nn.LayerNorm(WIDTH)
        self.text.transformer = nn.Module()
        self.text.transformer.resblocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            block.attn = nn.MultiheadAttention(WIDTH, 2)
            block.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})
            self.text.transformer.resblocks.append(block)
        self.text_decoder = nn.Linear(3, 3)  # of which nothing may be taken


def _norm(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, allowed: Tensor | None = None) -> Tensor:
    """Attention of [B, L, D] by the book: softmax(q k / sqrt(d)) v in each head."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if allowed is not None:
        weights = weights.masked_fill(~allowed[:, None], -math.inf)
    return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)


def conch_image(model: Conch, pixels: Tensor) -> Tensor:
    """All tokens of the ViT, one query that looks at them, a norm, a projection."""
    s, pool = model.state_dict(), "visual.attn_pool_contrast"
    tokens = _norm(model.visual.trunk.forward_features(pixels), s, f"{pool}.ln_k")  # type: ignore[operator, union-attr]
    query = _norm(s[f"{pool}.query"], s, f"{pool}.ln_q")[None].expand(len(pixels), -1, -1)
    bias_q, bias_k, bias_v = s[f"{pool}.attn.in_proj_bias"].chunk(3)
    pooled = _attend(
        query @ s[f"{pool}.attn.q_proj_weight"].T + bias_q,
        tokens @ s[f"{pool}.attn.k_proj_weight"].T + bias_k,
        tokens @ s[f"{pool}.attn.v_proj_weight"].T + bias_v,
        8,
    )
    pooled = F.linear(pooled, s[f"{pool}.attn.out_proj.weight"], s[f"{pool}.attn.out_proj.bias"])[:, 0]
    return F.normalize(_norm(pooled, s, "visual.ln_contrast") @ s["visual.proj_contrast"], dim=-1)


def conch_text(model: Conch, tokens: Tensor) -> Tensor:
    """The class token after the text; it sees the token at place j when that at j - 1 is no padding, as in CONCH."""
    s = model.state_dict()
    tokens = tokens[:, :-1]  # the authors' placeholder goes
    length = tokens.shape[1] + 1
    cls = s["text.cls_emb"].expand(len(tokens), 1, -1)
    x = torch.cat([s["text.token_embedding.weight"][tokens], cls], dim=1) + s["text.positional_embedding"][:length]
    allowed = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(tokens), 1, 1)
    allowed[:, -1, 1:] = tokens != 0
    for i in range(2):
        b = f"text.transformer.resblocks.{i}"
        h = _norm(x, s, f"{b}.ln_1")
        q, k, v = F.linear(h, s[f"{b}.attn.in_proj_weight"], s[f"{b}.attn.in_proj_bias"]).chunk(3, dim=-1)
        seen = _attend(q, k, v, 2, allowed)
        x = x + F.linear(seen, s[f"{b}.attn.out_proj.weight"], s[f"{b}.attn.out_proj.bias"])
        h = F.linear(_norm(x, s, f"{b}.ln_2"), s[f"{b}.mlp.c_fc.weight"], s[f"{b}.mlp.c_fc.bias"])
        x = x + F.linear(F.gelu(h), s[f"{b}.mlp.c_proj.weight"], s[f"{b}.mlp.c_proj.bias"])
    return F.normalize(_norm(x[:, -1], s, "text.ln_final") @ s["text.text_projection"], dim=-1)


def write_tokenizer(file: Path) -> Any:
    """A byte-level tokenizer as CONCH's: lower case, <pad> first, begin and end around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<pad>", "<start_of_text>", "<end_of_text>", *alphabet, "ch", "no"]
    pairs: Any = models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[("c", "h"), ("n", "o")])
    backend: Any = Tokenizer(pairs)
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>", special_tokens=[("<start_of_text>", 1), ("<end_of_text>", 2)]
    )
    backend.add_special_tokens(pieces[:3])
    backend.save(str(file))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file), bos_token="<start_of_text>", eos_token="<end_of_text>", pad_token="<pad>"
    )


@pytest.mark.parametrize("grid", [7, 5])
def test_conch_is_what_its_configuration_says_written_out_plainly(tmp_path: Path, grid: int) -> None:
    theirs: Any = randomise(Conch(grid))
    folder = tmp_path / "conch"
    folder.mkdir()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    tokenizer = write_tokenizer(folder / "conch_byte_level_bpe_uncased.json")
    pack = import_model(folder, tmp_path / "pack")
    origin = json.loads((pack / "card.json").read_text())["created_from"]
    assert (origin["layout"], origin["pixels_from"]) == ("conch", "preset conch")
    ours = load_model(pack)
    ids = tokenizer(TEXTS, max_length=LENGTH - 1, truncation=True, padding="max_length", return_tensors="pt").input_ids
    np.testing.assert_array_equal(ours.tokenizer.encode(TEXTS), ids.numpy())
    if grid != SIDE // PATCH:  # the authors' loader resamples the grid of positions, bilinear
        own = theirs.visual.trunk.pos_embed
        grid_BDHW = own[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
        spread = F.interpolate(grid_BDHW, size=(SIDE // PATCH,) * 2, mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)
        theirs = randomise(Conch(SIDE // PATCH))
        theirs.load_state_dict(
            torch.load(folder / "pytorch_model.bin", weights_only=True)
            | {"visual.trunk.pos_embed": torch.cat([own[:, :1], spread], dim=1)}
        )
    pixels = images(SIDE, 2)
    with torch.inference_mode():
        image = conch_image(theirs, ours.normalise(pixels)).numpy()
        text = conch_text(theirs, F.pad(ids, (0, 1))).numpy()
    np.testing.assert_allclose(ours.encode_image(pixels), image, atol=1e-5)
    np.testing.assert_allclose(ours.encode_text(TEXTS), text, atol=1e-5)
    assert np.ptp(image, axis=0).max() > 1e-2
    assert np.ptp(text, axis=0).max() > 1e-2
    assert not [name for name in ours.clip.state_dict() if "caption" in name or "decoder" in name]


def test_a_conch_without_its_tokenizer_says_where_to_take_it(tmp_path: Path) -> None:
    torch.save(randomise(Conch(7)).state_dict(), tmp_path / "pytorch_model.bin")
    for source in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(MedclipError, match=r"conch_byte_level_bpe_uncased\.json") as caught:
            import_model(source, tmp_path / "out" / "pack")
        assert caught.value.reason is Reason.MISSING_FILE
        assert "--text-folder" in caught.value.hint
    write_tokenizer(tmp_path / "tokenizer.json").save_pretrained(tmp_path / "words")
    pack = import_model(tmp_path / "pytorch_model.bin", tmp_path / "out" / "pack", text_folder=tmp_path / "words")
    assert load_model(pack).tokenizer.encode(["no"]).shape == (1, LENGTH - 1)

"""Small CLIP and SigLIP models of transformers with random weights, saved by transformers itself."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

TEXTS = [
    "Chest X-ray: no PNEUMONIA.",
    "naïve   readers &amp; rays (µm)",
    "",
    "word after word " * 200,
    "H&E stained section,\n tumour in situ",
    "a_b ｆｕｌｌ ﬁne \t tab",
    "no",
    "①② … Σας",
]
"""Case, punctuation, broken entities, white space, letters that no vocabulary here knows, one far too long."""
CONTEXT = 16
SIZE = 48
MERGES = [("c", "h"), ("ch", "e"), ("s", "t</w>"), ("n", "o</w>"), ("r", "a"), ("ra", "y</w>")]
_WORDS = ["chest", "x", "ray", "no", "pneumonia", "naive", "readers", "rays", "word", "after", "stained", "section"]
_WORDS += ["tumour", "in", "situ", "lung", "heart", "left", "right", "fine"]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, norms and biases too, a value that is not the trivial one."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


def clip_vocabulary() -> dict[str, int]:
    characters = sorted(ByteLevel.alphabet())
    pieces = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in MERGES)]
    return {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}


def write_clip_tokenizer(folder: Path) -> None:
    """Write vocab.json and merges.txt, as OpenAI's and PLIP's folders have them."""
    (folder / "vocab.json").write_text(json.dumps(clip_vocabulary()))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def save_clip(folder: Path, *, activation: str = "quick_gelu", eos: int | None = None, **more: Any) -> CLIPModel:
    """Save a CLIP; the ratios of its MLPs are no whole numbers, and its norms add another epsilon than usual."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip_tokenizer(folder)
    vocabulary = clip_vocabulary()
    end = vocabulary["<|endoftext|>"]
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 41,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "hidden_act": activation,
        "eos_token_id": end if eos is None else eos,
        "bos_token_id": end - 1,
        "pad_token_id": end,
        "layer_norm_eps": 1e-4,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 50,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 8,
        "hidden_act": activation,
    }
    model = CLIPModel(CLIPConfig(projection_dim=24, text_config=text, vision_config=vision))
    randomise(model).save_pretrained(folder, **more)  # type: ignore[operator]
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return model


def train_pieces() -> bytes:
    """Train a small sentencepiece model of the kind that SigLIP has."""
    rng = random.Random(0)
    sentences = [" ".join(rng.choices(_WORDS, k=6)) for _ in range(400)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=44,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=3,
    )
    return written.getvalue()


def save_siglip(folder: Path, vocab_size: int, **more: Any) -> SiglipModel:
    """Save a SigLIP, without a tokenizer; `more` are entries of its `vision_config`."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": vocab_size,
        "intermediate_size": 71,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = {**sizes, "num_hidden_layers": 3, "intermediate_size": 119, "image_size": SIZE, "patch_size": 8, **more}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    randomise(model).save_pretrained(folder)  # type: ignore[operator]
    side = vision["image_size"]
    SiglipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return model


def images(n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def edit_config(folder: Path, **changes: Any) -> None:
    """Change config.json; a value that is a table is merged."""
    values = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(values))

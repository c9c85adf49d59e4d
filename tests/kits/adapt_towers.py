"""Small models of the other kinds of tower: a timm convolutional trunk with a text transformer, a ViT with a BERT."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medclip.adaptation.data.class_text import ClassText
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.model import Model
from medclip.models.packs.card import Card
from medclip.models.towers.build import build_clip, default_config
from medclip.text.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from tests.kits.adaptation import DIM, SIZE_PX, tiny_model

Kind = Literal["vit", "effnet", "bert"]


def model_of(kind: Kind, text: ClassText) -> Model:
    """Give a model with random weights, made anew each time: 32 px, 16 dimensions."""
    if kind == "vit":
        return tiny_model(text)
    with tempfile.TemporaryDirectory(prefix="medclip-kit-") as name, torch.random.fork_rng():
        torch.manual_seed(0)
        folder = Path(name)
        config, tokenizer = _effnet(folder, text) if kind == "effnet" else bert_tower(folder)
        clip = build_clip(config, folder)
        for module in clip.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        return Model(clip, tokenizer, Preprocess(SIZE_PX), Card(name=kind), name=kind, path=Path(kind))


def _effnet(folder: Path, text: ClassText) -> tuple[dict[str, Any], Any]:
    said = [s for of_class in (*text.positive(), *text.negative()) for s in of_class]
    tokenizer = train_tokenizer(said * 3, folder, vocab_size=400, context_length=16)
    config = default_config(
        vocab_size=tokenizer.vocab_size,
        context_length=16,
        embed_dim=DIM,
        size_px=SIZE_PX,
        image_tower="test_efficientnet",
        text_width=32,
        text_heads=2,
        text_layers=2,
    )
    return config, tokenizer


def bert_tower(folder: Path) -> tuple[dict[str, Any], Any]:
    """Give the config and the tokenizer of a ViT with a BERT of which every letter is a word piece."""
    letters = [*"abcdefghijklmnopqrstuvwxyz,.", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    bert = {
        "model_type": "bert",
        "vocab_size": 5 + len(letters),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(bert))
    text_cfg = {
        "hf_model_name": ".",
        "hf_tokenizer_name": "tokenizer",
        "hf_proj_type": "mlp",
        "context_length": 48,
        "hf_pooler_type": "cls_last_hidden_state_pooler",
    }
    vision = {
        "image_size": SIZE_PX,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    }
    config = {"embed_dim": DIM, "custom_text": True, "vision_cfg": vision, "text_cfg": text_cfg}
    return config, load_tokenizer(folder, text_cfg)

"""Small models with random weights in the layouts of public checkpoints: same classes, same files, same names."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import Tensor, nn

SENTENCES = [
    "Chest X-ray: no PNEUMONIA.",
    "naïve   readers &amp; rays (µm)",
    "",
    "word after word " * 200,
    "H&E stained section, tumour in situ",
]
WORDS = ["chest", "x", "ray", "pneu", "##monia", "no", "word", "after", "tumour", "naive"]
VIT = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
BPE_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
MEAN, STD = [0.481, 0.457, 0.408], [0.268, 0.261, 0.275]


def timm(name: str, **more: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 64} | more


TOWERS = {
    "vit": VIT,
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "patch_size": None},
    "timm_vit": timm("test_vit", image_size=160),
    "timm_effnet": timm("test_efficientnet", timm_pool="avg"),
    "timm_convnext": timm("test_convnext", timm_pool="avg"),
    "timm_own_head": timm("test_vit", timm_pool="token", timm_proj="", image_size=160),
}


def bert_folder(folder: Path, *, hidden: int = 32, layers: int = 2, **more: Any) -> Path:
    """PubMedBERT's files: config.json, vocab.txt and a tokenizer_config.json that says lower case."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters), *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    )
    config = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(config | more))
    return folder


def bert_text(name: str | Path, **more: Any) -> dict[str, Any]:
    """A `text_cfg` as BiomedCLIP has it."""
    return {
        "hf_model_name": str(name),
        "hf_tokenizer_name": str(name),
        "hf_model_pretrained": False,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
        **more,
    }


def random_model(config: dict[str, Any], seed: int = 0) -> nn.Module:
    """What open_clip builds of a config, with weights that are not the trivial ones."""
    values = dict(config)
    kind = CustomTextCLIP if values.pop("custom_text", False) or "hf_model_name" in values["text_cfg"] else CLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(**values).eval()
        for p in model.parameters():
            if p.ndim:
                p.data.add_(torch.randn_like(p) * 0.02)
    return model


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}


def hub_folder(folder: Path, config: dict[str, Any], state: dict[str, Tensor], weights: str) -> Path:
    """open_clip's Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder


PIXELS: dict[str, Any] = {"resize": "shortest", "mean": MEAN, "std": STD}
"""What `import_model` takes for weights that do not say how images are treated."""


def preset_file(folder: Path, *sizes: int) -> Path:
    """Write the same as a preset, for `load_start` and recipes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.yaml").write_text(json.dumps({"size": list(sizes or (32,)), **PIXELS}))
    return folder / "own.yaml"


def add_architecture(folder: Path, name: str, config: dict[str, Any]) -> str:
    """Make a name of open_clip's that stands for a small model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def images(size: int = 32, n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@torch.inference_mode()
def features(model: Any, pixels_BCHW: Tensor, tokens_BL: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit features of both towers."""
    model.eval()
    return (
        model.encode_image(pixels_BCHW, normalize=True).numpy(),
        model.encode_text(tokens_BL, normalize=True).numpy(),
    )

"""CLIP as transformers saves it (PLIP, PubMedCLIP, MONET): config.json of the type "clip".

The towers are open_clip's own ViT and text transformer; only names change, and query, key and value become one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.layouts.hf_names import (
    blocks,
    check_patches,
    converter,
    part_of,
    ratio,
    weights_of,
)
from medclip.models.interchange.layouts.layout import Layout, Place, Source, followed
from medclip.models.interchange.pixels import read_processor

if TYPE_CHECKING:
    from torch import Tensor

_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_ACTIVATIONS: Mapping[str, Any] = {"quick_gelu": None, "gelu": None, "gelu_pytorch_tanh": {"approximate": "tanh"}}
_HIGHEST = 2
"""`eos_token_id` of configs from before transformers' pull request 24773: the end token is then the highest id."""


def _matches(place: Place) -> bool:
    return place.config.get("model_type") == "clip"


def _read(place: Place) -> Source:
    text, vision = part_of(place, "text", _TEXT), part_of(place, "vision", _VISION)
    check_patches(vision, place)
    activation = text["hidden_act"]
    if activation != vision["hidden_act"] or activation not in _ACTIVATIONS:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its towers use {vision['hidden_act']!r} and {activation!r}; both must use one of "
            f"{', '.join(_ACTIVATIONS)}.",
            where=place.path / "config.json",
        )
    by_rank = text["eos_token_id"] == _HIGHEST
    config = {
        "embed_dim": place.config.get("projection_dim", 512),
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_details(vision),
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            **_details(text),
            "pool_type": "argmax" if by_rank else "eos",
            "eos_id": text["eos_token_id"],
            "hf_tokenizer_name": "tokenizer",
        },
    }

    convert = converter(_renamed, text["num_hidden_layers"], vision["num_hidden_layers"])
    pixels, refusal = followed(lambda: read_processor(place.path))
    return Source(config, weights_of(place), place.path, pixels, place.path, convert, LAYOUT.name, refusal)


def _details(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what open_clip's towers do not do unless a config says it."""
    details: dict[str, Any] = {"mlp_ratio": ratio(values)}
    if values["layer_norm_eps"] != 1e-5:
        details["norm_kwargs"] = {"eps": values["layer_norm_eps"]}
    if _ACTIVATIONS[values["hidden_act"]] is not None:
        details["act_kwargs"] = _ACTIVATIONS[values["hidden_act"]]
    return details


def _renamed(state: Mapping[str, Tensor], text_layers: int, image_layers: int) -> dict[str, Tensor]:
    image, text = "vision_model.", "text_model."
    names = {
        "visual.class_embedding": f"{image}embeddings.class_embedding",
        "visual.conv1.weight": f"{image}embeddings.patch_embedding.weight",
        "visual.positional_embedding": f"{image}embeddings.position_embedding.weight",
        "token_embedding.weight": f"{text}embeddings.token_embedding.weight",
        "positional_embedding": f"{text}embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    norms = {
        "visual.ln_pre": f"{image}pre_layrnorm",
        "visual.ln_post": f"{image}post_layernorm",
        "ln_final": f"{text}final_layer_norm",
    }
    names |= {f"{new}.{kind}": f"{old}.{kind}" for new, old in norms.items() for kind in ("weight", "bias")}
    return {
        **{new: state[old] for new, old in names.items()},
        **blocks(state, "vision_model", "visual.transformer.resblocks", image_layers),
        **blocks(state, "text_model", "transformer.resblocks", text_layers),
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "text_projection": state["text_projection.weight"].T.contiguous(),
    }


LAYOUT = Layout(
    "hf_clip",
    "Hugging Face CLIP",
    'a folder with config.json of model_type "clip", weights, and tokenizer.json or vocab.json and merges.txt',
    _matches,
    _read,
)

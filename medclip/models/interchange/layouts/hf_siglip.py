"""SigLIP and SigLIP 2 as transformers saves them (MedSigLIP): config.json of the type "siglip".

The image tower is timm's ViT with an attention pool, the text tower open_clip's transformer without a causal mask,
pooled at the last token. The scale and the bias of the logits stay with the pack.
Reference: Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "projection_size": None,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
_CUT = {(384, 14): 378}
"""google/siglip-so400m-patch14-384: its patches leave the last 6 of 384 pixels out."""
_NAMES = {
    1024: "vit_large_patch16_siglip_256",
    1152: "vit_so400m_patch14_siglip_224",
    1536: "vit_giantopt_patch16_siglip_256",
}
"""timm's names by width, which a model shows of itself; the sizes are stated beside and decide."""
_TANH = "gelu_pytorch_tanh"


def _matches(place: Place) -> bool:
    return place.config.get("model_type") in ("siglip", "siglip2")


def _read(place: Place) -> Source:
    if place.config["model_type"] == "siglip2":
        raise MedclipError(
            Reason.PACK_INVALID,
            "this is a SigLIP 2 of the NaFlex kind, which takes images of any shape as patches; medclip takes those of "
            "a fixed resolution.",
            where=place.path,
            hint="Its authors publish the same model for squares, such as siglip2-base-patch16-224.",
        )
    text, vision = part_of(place, "text", _TEXT), part_of(place, "vision", _VISION)
    if (vision["image_size"], vision["patch_size"]) not in _CUT:
        check_patches(vision, place)
    width, joint = vision["hidden_size"], text["projection_size"] or text["hidden_size"]
    for part, values in (("text", text), ("vision", vision)):
        if values["hidden_act"] != _TANH:
            raise MedclipError(
                Reason.PACK_INVALID,
                f"its {part} tower uses {values['hidden_act']!r}; a SigLIP uses {_TANH!r}.",
                where=place.path / "config.json",
            )
    if not vision["vision_use_head"] or width != joint:
        pool = "" if vision["vision_use_head"] else "has no attention pool and "
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its image tower {pool}makes {width} numbers, its text tower {joint}; both must make as many.",
            where=place.path / "config.json",
        )
    config = {
        "embed_dim": width,
        "custom_text": True,
        "init_logit_bias": -10.0,
        "vision_cfg": {
            "image_size": vision["image_size"],
            "timm_model_name": _NAMES.get(width, "vit_base_patch16_siglip_224"),
            "timm_pool": "map",
            "timm_proj": "none",
            "timm_model_args": {
                "img_size": vision["image_size"],
                "patch_size": vision["patch_size"],
                "embed_dim": width,
                "depth": vision["num_hidden_layers"],
                "num_heads": vision["num_attention_heads"],
                "mlp_ratio": ratio(vision),
                "act_layer": "gelu_tanh",
                "norm_eps": vision["layer_norm_eps"],
            },
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": ratio(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": text["layer_norm_eps"]},
            "act_kwargs": {"approximate": "tanh"},
            "hf_tokenizer_name": "tokenizer",
        },
    }

    convert = converter(_renamed, text["num_hidden_layers"], vision["num_hidden_layers"])
    pixels, refusal = followed(lambda: read_processor(place.path))
    return Source(config, weights_of(place), place.path, pixels, place.path, convert, LAYOUT.name, refusal)


def _renamed(state: Mapping[str, Tensor], text_layers: int, image_layers: int) -> dict[str, Tensor]:
    image, pool, text = "vision_model.", "vision_model.head.", "text_model."
    modules = {
        "visual.trunk.patch_embed.proj": f"{image}embeddings.patch_embedding",
        "visual.trunk.norm": f"{image}post_layernorm",
        "visual.trunk.attn_pool.proj": f"{pool}attention.out_proj",
        "visual.trunk.attn_pool.norm": f"{pool}layernorm",
        "visual.trunk.attn_pool.mlp.fc1": f"{pool}mlp.fc1",
        "visual.trunk.attn_pool.mlp.fc2": f"{pool}mlp.fc2",
        "text.ln_final": f"{text}final_layer_norm",
        "text.text_projection": f"{text}head",
    }
    names = {f"{new}.{kind}": f"{old}.{kind}" for new, old in modules.items() for kind in ("weight", "bias")} | {
        "visual.trunk.attn_pool.latent": f"{pool}probe",
        "text.token_embedding.weight": f"{text}embeddings.token_embedding.weight",
        "text.positional_embedding": f"{text}embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    }
    renamed = {new: state[old] for new, old in names.items()}
    renamed["visual.trunk.pos_embed"] = state[f"{image}embeddings.position_embedding.weight"][None]
    for kind in ("weight", "bias"):
        joined = state[f"{pool}attention.in_proj_{kind}"]
        width = len(joined) // 3
        renamed[f"visual.trunk.attn_pool.q.{kind}"] = joined[:width]
        renamed[f"visual.trunk.attn_pool.kv.{kind}"] = joined[width:]
    return {
        **renamed,
        **blocks(state, "vision_model", "visual.trunk.blocks", image_layers, timm=True),
        **blocks(state, "text_model", "text.transformer.resblocks", text_layers),
    }


LAYOUT = Layout(
    "hf_siglip",
    "Hugging Face SigLIP",
    'a folder with config.json of model_type "siglip", weights, and spiece.model or tokenizer.json',
    _matches,
    _read,
)

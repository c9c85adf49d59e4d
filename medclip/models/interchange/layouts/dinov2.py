"""DINOv2 as transformers saves it, with and without register tokens (RAD-DINO): config.json of the type "dinov2".

It becomes timm's ViT with layer scale. The vector of an image is its class token behind the last norm, transformers'
`pooler_output`. Where the image processor makes images of another size than the position table is for, the table is
resampled as transformers does it in every forward pass.
Reference: Oquab et al., DINOv2, TMLR 2024; Darcet et al., Vision transformers need registers, ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.layouts.hf_names import check_patches, converter, settings_of, weights_of
from medclip.models.interchange.layouts.layout import CONFIG, Layout, Place, Source, followed
from medclip.models.interchange.pixels import read_processor
from medclip.models.towers.table import ARGUMENTS

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "num_register_tokens": 0,
}
_WITH_REGISTERS = {**_DEFAULTS, "patch_size": 16, "num_register_tokens": 4}
_TYPES = {"dinov2": _DEFAULTS, "dinov2_with_registers": _WITH_REGISTERS}
"""What transformers takes where a config says nothing, by `model_type`."""


def _matches(place: Place) -> bool:
    return place.architecture is None and place.config.get("model_type") in _TYPES


def _read(place: Place) -> Source:
    values = settings_of(place.config, _TYPES[place.config["model_type"]], place)
    check_patches(values, place)
    if values["hidden_act"] != "gelu":
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its activation is {values['hidden_act']!r}; that of a DINOv2 is 'gelu'.",
            where=place.path / CONFIG,
        )
    pixels, refusal = followed(lambda: read_processor(place.path))
    size = pixels.get("size", values["image_size"])
    check_patches({**values, "image_size": size}, place)
    registers = values["num_register_tokens"]
    arguments: dict[str, Any] = {
        "img_size": size,
        "patch_size": values["patch_size"],
        "embed_dim": values["hidden_size"],
        "depth": values["num_hidden_layers"],
        "num_heads": values["num_attention_heads"],
        "qkv_bias": values["qkv_bias"],
        "mlp_ratio": values["mlp_ratio"],
        "init_values": 1e-5,
        "norm_eps": values["layer_norm_eps"],
    }
    if registers:
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    if values["use_swiglu_ffn"]:
        inner = (int(int(values["hidden_size"] * values["mlp_ratio"]) * 2 / 3) + 7) // 8 * 8
        gated = (2 * inner + 0.5) / values["hidden_size"]
        arguments |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "mlp_ratio": gated}
    vision_cfg = {
        "image_size": size,
        "timm_model_name": "vit_base_patch14_dinov2",
        "timm_pool": "token",
        ARGUMENTS: arguments,
    }

    convert = converter(partial(_renamed, values=values, size=size))
    return Source(
        {"vision_cfg": vision_cfg}, weights_of(place), place.path, pixels, place.path, convert, LAYOUT.name, refusal
    )


_MODULES = {"norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.output.dense"}
_MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_GATED_MLP = {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}


def _renamed(state: Mapping[str, Tensor], values: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    import torch

    if "embeddings.mask_token" in state:
        state["embeddings.mask_token"]  # of the pre-training alone
    kinds = ("weight", "bias")
    renamed = {f"patch_embed.proj.{kind}": state[f"embeddings.patch_embeddings.projection.{kind}"] for kind in kinds}
    renamed |= {f"norm.{kind}": state[f"layernorm.{kind}"] for kind in kinds}
    positions_1LD = _resampled(state["embeddings.position_embeddings"], values, size)
    renamed["cls_token"] = state["embeddings.cls_token"]
    if values["num_register_tokens"]:  # timm gives positions to patches alone then
        renamed["reg_token"] = state["embeddings.register_tokens"]
        renamed["cls_token"] = renamed["cls_token"] + positions_1LD[:, :1]
        positions_1LD = positions_1LD[:, 1:]
    renamed["pos_embed"] = positions_1LD
    modules = _MODULES | (_GATED_MLP if values["use_swiglu_ffn"] else _MLP)
    for layer in range(values["num_hidden_layers"]):
        source, block = f"encoder.layer.{layer}", f"blocks.{layer}"
        for kind in kinds if values["qkv_bias"] else ("weight",):
            parts = [state[f"{source}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
        for new, old in modules.items():
            renamed |= {f"{block}.{new}.{kind}": state[f"{source}.{old}.{kind}"] for kind in kinds}
        for scale in (1, 2):
            renamed[f"{block}.ls{scale}.gamma"] = state[f"{source}.layer_scale{scale}.lambda1"]
    return {f"visual.trunk.{name}": value for name, value in renamed.items()}


def _resampled(positions_1LD: Tensor, values: Mapping[str, Any], size: int) -> Tensor:
    """Return the position table for images of another size, as transformers resamples it; the class token's stays."""
    from torch.nn.functional import interpolate

    if size == values["image_size"]:
        return positions_1LD
    from torch import cat

    side, grid = round((positions_1LD.shape[1] - 1) ** 0.5), size // values["patch_size"]
    table_1DHW = positions_1LD[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    smooth = bool(values["num_register_tokens"])  # transformers antialiases in the one, not in the other
    wanted_1DHW = interpolate(table_1DHW, size=(grid, grid), mode="bicubic", align_corners=False, antialias=smooth)
    return cat([positions_1LD[:, :1], wanted_1DHW.permute(0, 2, 3, 1).flatten(1, 2).to(positions_1LD.dtype)], dim=1)


LAYOUT = Layout(
    "dinov2",
    "Hugging Face DINOv2",
    'a folder with config.json of model_type "dinov2" or "dinov2_with_registers", and weights',
    _matches,
    _read,
)

"""Which open_clip architectures a bare checkpoint may be: told by the sizes of its tensors, for an error's hint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_IMAGE_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.")
_TEXT_BLOCK = re.compile(r"(?:text\.)?transformer\.resblocks\.(\d+)\.")


def alike(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the open_clip architectures with a ViT of these sizes.

    Args:
        state: Weights by name. Towers of timm and ResNets are not told.

    Returns:
        Names, in open_clip's order. QuickGELU has no weights, so both forms of a name are given; with a BERT only the
        image tower is compared.
    """
    import open_clip

    sizes = _sizes(state)
    if sizes is None:
        return ()
    names = open_clip.list_models()
    return tuple(n for n in names if _fits(open_clip.get_model_config(n) or {}, sizes))


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Read off what a config would say; None where the image tower is not open_clip's own ViT."""
    if "visual.proj" not in state or "visual.conv1.weight" not in state:
        return None
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5) * patch
    sizes = {
        "embed_dim": state["visual.proj"].shape[1],
        "vision.width": width,
        "vision.patch_size": patch,
        "vision.image_size": side,
        "vision.layers": _count(state, _IMAGE_BLOCK),
    }
    tokens = state.get("token_embedding.weight", state.get("text.token_embedding.weight"))
    if tokens is not None:
        sizes |= {"text.vocab_size": tokens.shape[0], "text.width": tokens.shape[1]}
        sizes["text.layers"] = _count(state, _TEXT_BLOCK)
    return sizes


def _count(state: Mapping[str, Tensor], block: re.Pattern[str]) -> int:
    return len({m[1] for name in state if (m := block.match(name))})


def _fits(config: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    if "timm_model_name" in config["vision_cfg"] or "multimodal_cfg" in config:
        return False
    for key, size in sizes.items():
        part, _, field = key.rpartition(".")
        values = config[f"{part}_cfg"] if part else config
        if values.get(field) != size:
            return False
    return True

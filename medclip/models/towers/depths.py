"""What a tower sees at several depths: feature maps by stage, and tokens in which all depths stand together.

ViTamin (Chen et al. 2024) has two convolutional stages in front of a transformer: maps of a half, a quarter and an
eighth of the image's side, and its tokens at a sixteenth. Convolutional towers of timm have one for each stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import Tokens, image_tokens, wrapped_head

NUM_LEVELS = 4
"""Depths of a transformer that `level_tokens` takes, evenly; of a convolutional tower its maps of strides 8 to 32."""
_FINEST_STRIDE = 8


def stage_maps(visual: nn.Module, batch: Any, strides: Iterable[int] | None = None) -> dict[int, Tensor]:
    """Return the last feature map of each stage; part of the graph.

    Args:
        visual: Image tower of a pack.
        batch: Input of the tower, a tensor [B, 3, H, W].
        strides: Pixels of the image along a side of a cell, of the maps that are wanted; all where None.

    Returns:
        Maps [B, C, H / stride, W / stride] by stride, the finest first.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a tower whose maps are all of one size or that timm does not build;
            WRONG_USE for a stride that it does not have.
    """
    trunk: Any = getattr(visual, "trunk", None)
    backbone = getattr(getattr(trunk, "patch_embed", None), "backbone", None)
    maps: dict[int, Tensor] = {}
    is_image = isinstance(batch, Tensor) and batch.ndim == 4  # no volumes, ECGs, packed patches
    if is_image and hasattr(backbone, "stem") and hasattr(backbone, "stages"):
        maps = _of_hybrid(visual, backbone, batch)
    elif is_image and hasattr(trunk, "forward_intermediates"):
        outs = trunk.forward_intermediates(batch, intermediates_only=True, output_fmt="NCHW")
        maps = {batch.shape[2] // out.shape[2]: out for out in outs}  # the last of each size
    if len(maps) < 2:
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            "the image tower has no maps by stage.",
            hint="ViTamin and convolutional towers of timm have; encode_tokens returns the one map of others.",
        )
    wanted = [*maps] if strides is None else [*strides]
    absent = next((stride for stride in wanted if stride not in maps), None)
    if absent is not None:
        hint = f"It has those of stride {', '.join(map(str, maps))}."
        raise MedclipError(Reason.WRONG_USE, f"the image tower has no map of stride {absent}.", hint=hint)
    return {stride: maps[stride] for stride in sorted(wanted)}


def _of_hybrid(visual: nn.Module, backbone: Any, batch: Tensor) -> dict[int, Tensor]:
    """Watch stem and stages while the whole tower computes, whose tokens are the last map."""
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, out: seen.append(out))
        for layer in (backbone.stem, *backbone.stages)
    ]
    try:
        tokens = image_tokens(visual, batch, pool=False)
    finally:
        for handle in handles:
            handle.remove()
    assert tokens.grid is not None  # a grid of patches, none of which is merged
    last = tokens.tokens_BLD.transpose(1, 2).unflatten(2, tokens.grid)
    return {batch.shape[2] // out.shape[2]: out for out in (*seen, last)}


def level_tokens(visual: nn.Module, batch: Any) -> Tokens[Tensor]:
    """Return what a tower sees of each place at several depths; part of the graph.

    A convolutional tower's last map is coarse (6 x 6 places at 192 px) and made for one answer an image; its earlier
    ones are finer. Each is resized to the finest grid, and their channels stand one behind another, as in hypercolumns
    (Hariharan et al., CVPR 2015).

    Args:
        visual: Image tower of a pack: with a trunk of timm, or a vision transformer of open_clip.
        batch: Images, float [B, 3, H, W], as `Model.normalise` returns them.

    Raises:
        MedclipError: NOT_SUPPORTED_YET for a tower that does not give its intermediate maps.
    """
    trunk: Any = getattr(visual, "trunk", visual)
    if not (isinstance(batch, Tensor) and hasattr(trunk, "forward_intermediates")):
        raise MedclipError(
            Reason.NOT_SUPPORTED_YET,
            f"an image tower of the class {type(visual).__name__} does not give maps of several depths.",
            hint="Take its last map alone.",
        )
    if trunk is visual:
        seen = trunk.forward_intermediates(batch, indices=_evenly(trunk.transformer.resblocks), output_fmt="NCHW")
        maps, pooled_BD = seen["image_intermediates"], seen["image_features"]
    else:
        is_transformer = hasattr(trunk, "pos_embed")
        indices = _evenly(trunk.blocks) if is_transformer else _coarse(trunk.feature_info)
        state, maps = trunk.forward_intermediates(batch, indices=indices, output_fmt="NCHW")
        pooled_BD = (getattr(visual, "pooling_head", None) or wrapped_head(visual)).pool(state)
    size = max((tuple(one.shape[2:]) for one in maps), key=math.prod)
    resized = [nn.functional.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps]
    tokens_BLD = torch.cat(resized, dim=1).flatten(2).transpose(1, 2)
    mask_BL = torch.ones(tokens_BLD.shape[:2], dtype=torch.bool, device=tokens_BLD.device)
    return Tokens(tokens_BLD, mask_BL, tokens_BLD[:, :0], (size,) * len(batch), pooled_BD)


def _evenly(blocks: Any) -> list[int]:
    """Return the numbers of blocks at even depths of a transformer."""
    return sorted({max(len(blocks) * (k + 1) // NUM_LEVELS - 1, 0) for k in range(NUM_LEVELS)})


def _coarse(feature_info: Any) -> list[int]:
    """Return the numbers of the maps of a convolutional tower that are not too fine to mean anything."""
    strides = [info["reduction"] for info in feature_info]
    return [k for k, stride in enumerate(strides) if stride >= _FINEST_STRIDE] or [len(strides) - 1]

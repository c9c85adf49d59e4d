"""Feature maps of a tower by stage: fine ones of early layers beside the coarse one that tokens come of.

ViTamin (Chen et al. 2024) has two convolutional stages in front of a transformer: maps of a half, a quarter and an
eighth of the image's side, and its tokens at a sixteenth. Convolutional towers of timm have one for each stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import image_tokens


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

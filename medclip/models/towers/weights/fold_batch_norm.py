"""Fold batch normalisation into the convolutions before it: fewer passes over memory, same function."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MAX_DIFFERENCE = 1e-3
"""Largest difference relative to the largest output that still counts as the same function in float32."""


def fold_batch_norm(tower: nn.Module, example_BCHW: Tensor) -> nn.Module:
    """Return a copy of an image tower with each convolution and the normalisation after it merged.

    A normalisation is taken to belong to the convolution registered just before it. That is how timm's convolutional
    nets are written; whether it holds for this tower is checked on the example, and where it does not the tower is
    returned as it is.

    Args:
        tower: Tower in eval mode.
        example_BCHW: Any normalised input of the right size.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in tower.modules()):
        return tower  # a transformer: nothing to fold, and no second copy of its weights
    folded = copy.deepcopy(tower)
    for module in list(folded.modules()):
        _fold_children(module)
    with torch.inference_mode():
        before, after = tower(example_BCHW), folded(example_BCHW)
    same = float((before - after).abs().max()) <= MAX_DIFFERENCE * max(1.0, float(before.abs().max()))
    return folded if same else tower


def _fold_children(module: nn.Module) -> None:
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if previous is not None and isinstance(child, nn.BatchNorm2d) and child.running_mean is not None:
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            # timm's norm layers carry the activation (and a drop layer) with them
            setattr(module, name, getattr(child, "act", None) or nn.Identity())
        previous = (name, child) if isinstance(child, nn.Conv2d) else None

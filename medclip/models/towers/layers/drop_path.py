"""Stochastic depth: in training a block of the image tower is skipped for some samples, more often the deeper it lies.

Reference: Huang et al., Deep networks with stochastic depth, ECCV 2016; rates grow linearly over depth, as in timm.
"""

from __future__ import annotations

from torch import nn

from medclip.errors import MedclipError, Reason

_PLACES = ("drop_path", "drop_path1", "drop_path2")
"""What timm calls the places in its blocks where a branch may be left out."""


def set_drop_path(tower: nn.Module, rate: float) -> None:
    """Let blocks be skipped in training; a tower that is evaluated stays as it is, and so do its weights.

    Args:
        tower: An image tower of timm, changed in place.
        rate: Share of samples for which the last block is skipped; the first is never skipped. 0 turns it off.

    Raises:
        MedclipError: RECIPE_INVALID where the tower has no blocks that can be skipped.
    """
    from timm.layers.drop import DropPath

    blocks = [
        (module, names)
        for module in tower.modules()
        if (names := [n for n in _PLACES if isinstance(getattr(module, n, None), nn.Identity | DropPath)])
    ]
    if rate and len(blocks) < 2:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            "model.drop_path: this image tower has no blocks that can be skipped.",
            hint="Leave it out, or choose a vision transformer of timm.",
        )
    for depth, (module, names) in enumerate(blocks):
        own = rate * depth / max(1, len(blocks) - 1)
        for name in names:
            setattr(module, name, (DropPath(own) if own else nn.Identity()).train(module.training))

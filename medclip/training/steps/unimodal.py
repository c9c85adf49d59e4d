"""The second term of MERL: two views of one image's or ECG's pooled feature, which belong together and to no other.

Nothing is changed anew for it: the views are two linear maps of what the tower pools, each with drop-out, so that the
term costs two products of small matrices. It is learned beside the towers and left behind when a pack is written.

Reference: Liu et al., Zero-shot ECG classification with multimodal learning and test-time clinical knowledge
enhancement (MERL), ICML 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class UnimodalViews(nn.Module):
    """Two bias-free linear maps of a pooled feature, each followed by drop-out.

    Args:
        dim: Width of the pooled feature, D.
        dropout: Share of values that are left out.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Return both views side by side, float32 [B, 2 * D], each of unit norm."""
        with torch.autocast(pooled_BD.device.type, enabled=False):
            views = [self.dropout(map_(pooled_BD.float())) for map_ in (self.first, self.second)]
            return torch.cat([normalize(view_BD, dim=-1) for view_BD in views], dim=-1)


def pooled_dim(visual: Any, dim: int) -> int:
    """Return the length of what a tower pools: what its projection takes.

    Args:
        visual: The tower.
        dim: Length of the tower's features, for a tower without a projection.
    """
    layers = getattr(visual, "head", nn.Identity()).modules()
    return next((layer.in_features for layer in layers if isinstance(layer, nn.Linear)), dim)


@contextmanager
def pooled(visual: Any) -> Iterator[list[Tensor]]:
    """Note what a tower pools while it is called: a list that then has one entry, or none without a projection."""
    seen: list[Tensor] = []
    head = getattr(visual, "head", None)
    if head is None:
        yield seen
        return
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()

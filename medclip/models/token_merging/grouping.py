"""Tokens put into groups: merge what is alike, keep the sizes, and undo it.

A matching of any kind comes down to one number for each token: the place of its group among the tokens that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which tokens become one."""

    place_BT: Tensor
    """int64 [B, T]: the place of each token's group."""
    num_groups: int

    def sum(self, x_BTC: Tensor) -> Tensor:
        """Add up the tokens of each group: [B, T, C] to [B, groups, C]."""
        places = self.place_BT[..., None].expand(-1, -1, x_BTC.shape[2])
        zeros = x_BTC.new_zeros(x_BTC.shape[0], self.num_groups, x_BTC.shape[2])
        return zeros.scatter_add(1, places, x_BTC[:, : self.place_BT.shape[1]])

    def merge(self, x_BTC: Tensor, size_BT1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Merge tokens into the mean of those that they stand for.

        Args:
            x_BTC: The tokens.
            size_BT1: How many each stands for; one each where None.

        Returns:
            The merged tokens [B, groups, C], and how many each stands for [B, groups, 1].
        """
        if size_BT1 is None:
            size_BT1 = torch.ones_like(x_BTC[..., :1])
        size = self.sum(size_BT1)
        return self.sum(x_BTC * size_BT1) / size, size

    def source(self, source_BTN: Tensor | None = None) -> Tensor:
        """Return which of the first tokens each group holds, 0 or 1 [B, groups, N].

        Args:
            source_BTN: The same of the tokens that are merged now; every token is its own where None.
        """
        if source_BTN is None:
            num = self.place_BT.shape[1]
            source_BTN = torch.eye(num, device=self.place_BT.device).expand(self.place_BT.shape[0], -1, -1)
        return self.sum(source_BTN)

    def unmerge(self, merged_BGC: Tensor) -> Tensor:
        """Return each group's value at the place of each of its tokens: [B, groups, C] to [B, T, C]."""
        return merged_BGC.gather(1, self.place_BT[..., None].expand(-1, -1, merged_BGC.shape[2]))


def unmerge_all(merged_BGC: Tensor, source_BGN: Tensor) -> Tensor:
    """Return each group's value at the place of each of the first tokens, after any number of merges: [B, N, C]."""
    return source_BGN.transpose(1, 2).to(merged_BGC.dtype) @ merged_BGC

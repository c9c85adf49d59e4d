"""Which pairs of a batch say the same thing: they are positives of each other, not negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def same_meaning(texts: Sequence[str], keys: Sequence[str] | None = None) -> Tensor:
    """Mark pairs with the same caption or the same label key.

    Args:
        texts: B captions; compared without regard to case and outer white space.
        keys: B label keys; an empty key equals no other. None compares captions only.

    Returns:
        bool [B, B], symmetric, True on the diagonal.
    """
    same = _equal([t.strip().lower() for t in texts])
    if keys is not None:
        same |= _equal(keys)
    same.fill_diagonal_(True)
    return same


def soft_targets(same_BB: Tensor) -> Tensor:
    """Share the mass of each row equally among its positives.

    Args:
        same_BB: bool [B, B] with a True diagonal.

    Returns:
        float32 [B, B], rows sum to 1. Without doubles it is the identity and the loss is the plain one.
    """
    mass = same_BB.float()
    return mass / mass.sum(dim=1, keepdim=True)


def _equal(values: Sequence[str]) -> Tensor:
    ids = {v: i for i, v in enumerate(dict.fromkeys(values))}
    index_B = torch.tensor([ids[v] for v in values])
    filled_B = torch.tensor([bool(v) for v in values])
    return (index_B[:, None] == index_B[None, :]) & filled_B[:, None] & filled_B[None, :]

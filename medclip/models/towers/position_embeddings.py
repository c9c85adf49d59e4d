"""Longer text for a trained tower: keep the early positions as they are and spread the others out.

Long-CLIP's observation: the first 20 of CLIP's 77 positions are well trained, the rest hardly. open_clip's own resize
interpolates over all rows and moves the early ones; here a short sentence keeps its vector to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

KEEP = 20
"""Rows that stay."""


def stretch_positions(positions_LD: Tensor, length: int, *, keep: int = KEEP) -> Tensor:
    """Return the position embeddings of another context length.

    Args:
        positions_LD: [L, D] of a trained text tower.
        length: Wanted number of rows. Fewer than L: the first rows. The causal mask is no weight: the tower that is
            built for the new length has its own.
        keep: Rows at the start that stay as they are; the others are interpolated linearly, the last one onto the last.
            Half of the rows in towers shorter than twice that.

    Returns:
        [length, D], same dtype.

    Example:
        >>> import torch
        >>> stretched = stretch_positions(torch.arange(77.0)[:, None], 256)
        >>> stretched[[0, 19, 20, 255], 0].tolist()
        [0.0, 19.0, 20.0, 76.0]
    """
    present = len(positions_LD)
    if length <= present:
        return positions_LD[:length].clone()
    keep = min(keep, present // 2)
    tail_1DL = positions_LD[keep:].float().T[None]
    spread_1DL = torch.nn.functional.interpolate(tail_1DL, size=length - keep, mode="linear", align_corners=True)
    return torch.cat([positions_LD[:keep], spread_1DL[0].T.to(positions_LD.dtype)])

"""Fixed positions of patches and tubes, and how they and patch embeddings go to other grids and from images to tubes.

Reference: He et al., Masked autoencoders are scalable vision learners, CVPR 2022 (two dimensions); Wang et al.,
VideoMAE V2, CVPR 2023 (one dimension over all tubes); Carreira & Zisserman, CVPR 2017 (inflation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import sides_in_words

_BASE = 10_000.0


def sincos_positions(grid: Sequence[int], dim: int, *, prefix: int = 0) -> Tensor:
    """Return the fixed positions of a grid of patches or tubes.

    Args:
        grid: (rows, columns) of patches: the first half of the channels encodes the column and the second half the
            row, each as sines, then cosines. (time, rows, columns) of tubes: one running number over all tubes, time
            slowest, with sine and cosine in turn.
        dim: Width D, divisible by 4 for patches and by 2 for tubes.
        prefix: Rows of zeros to put before them, for class and register tokens.

    Returns:
        float64 [prefix + L, D].

    Raises:
        MedclipError: WRONG_USE for a width that cannot be divided so.

    Example:
        >>> sincos_positions((14, 14), 384, prefix=1).shape
        torch.Size([197, 384])
    """
    parts = 4 if len(grid) == 2 else 2
    if dim % parts:
        raise MedclipError(
            Reason.WRONG_USE,
            f"sin-cos positions of {len(grid)} dimensions cannot be {dim} wide: no multiple of {parts}.",
        )
    frequencies_F = _BASE ** -(torch.arange(dim // parts, dtype=torch.float64) / (dim // parts))
    if len(grid) == 2:
        rows, cols = grid
        row_L = torch.arange(rows, dtype=torch.float64).repeat_interleave(cols)
        col_L = torch.arange(cols, dtype=torch.float64).repeat(rows)
        angles = [torch.outer(x_L, frequencies_F) for x_L in (col_L, row_L)]
        table_LD = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
    else:
        angle_LF = torch.outer(torch.arange(math.prod(grid), dtype=torch.float64), frequencies_F)
        table_LD = torch.stack([angle_LF.sin(), angle_LF.cos()], dim=2).flatten(1)
    return torch.cat([table_LD.new_zeros(prefix, dim), table_LD])


def resize_positions(positions_1ND: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Interpolate positions to another grid: bicubic over rows and columns, linear over time, as upstream does.

    Args:
        positions_1ND: [1, prefix + L, D]; the rows before the L of the old grid are kept as they are.
        old: The grid that they have, (rows, columns) or (time, rows, columns).
        new: The grid that is wanted. With three numbers where `old` has two, every time gets the positions of the
            image: a clip that stands still is then read as the image is.

    Returns:
        [1, prefix + L', D] of the same dtype.

    Raises:
        MedclipError: WRONG_USE where positions and grid do not fit, or tubes are to become patches.
    """
    prefix, dim = positions_1ND.shape[1] - math.prod(old), positions_1ND.shape[2]
    if prefix < 0 or len(new) < len(old):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{positions_1ND.shape[1]} positions of a grid of {sides_in_words(old)} cannot become a grid of "
            f"{sides_in_words(new)}.",
        )
    kept_1PD, table = positions_1ND[:, :prefix], positions_1ND[:, prefix:]
    times, plane = (old[0], old[1:]) if len(old) == 3 else (1, tuple(old))
    table_TDHW = table.reshape(times, *plane, dim).permute(0, 3, 1, 2)
    if tuple(plane) != tuple(new[-2:]):
        table_TDHW = interpolate(table_TDHW.float(), size=tuple(new[-2:]), mode="bicubic", align_corners=False)
    if len(new) == 3 and new[0] != times:
        line_1XT = table_TDHW.flatten(1).T[None].float()
        line_1XT = interpolate(line_1XT, size=new[0], mode="linear", align_corners=False)
        table_TDHW = line_1XT[0].T.unflatten(1, (dim, *new[-2:]))
    table_1LD = table_TDHW.permute(0, 2, 3, 1).reshape(1, -1, dim).to(positions_1ND.dtype)
    return torch.cat([kept_1PD, table_1LD], dim=1)


def inflate_patch_weights(weight_DCHW: Tensor, tubelet: int, channels: int | None = None) -> Tensor:
    """Turn the weights of a patch embedding into those of a tube embedding.

    Args:
        weight_DCHW: [D, C, p, p].
        tubelet: Frames or slices of a tube.
        channels: Channels of the clips; 1 where an image tower of 3 is to read grey ones (weights are summed over the
            channels, as if grey were replicated). None: as many.

    Returns:
        [D, channels, tubelet, p, p]: a tube whose frames are all the same is embedded as the image patch is.

    Raises:
        MedclipError: WRONG_USE for other channels than the same number, or 1.
    """
    own = weight_DCHW.shape[1]
    if channels == 1:
        weight_DCHW = weight_DCHW.sum(1, keepdim=True)
    elif channels not in (None, own):
        raise MedclipError(Reason.WRONG_USE, f"a patch embedding of {own} channels cannot read {channels}.")
    return (weight_DCHW / tubelet).unsqueeze(2).repeat(1, 1, tubelet, 1, 1)

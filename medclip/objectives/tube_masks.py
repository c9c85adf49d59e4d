"""Dual masking of volumes and cine: tubes hidden from the encoder, running cells that the decoder leaves out.

Reference: Wang et al., VideoMAE V2: scaling video masked autoencoders with dual masking, CVPR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import hide

CELL_RATIOS = (0.25, 0.5, 0.75)
"""Shares that the four places of a running cell can leave out."""
TUBE_FLOOR = 0.01
"""Under the deviation that tubes are divided by, so that noise in a dark background does not become the target."""


def draw_tube_mask(
    batch: int,
    grid: tuple[int, int, int],
    ratio: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    foreground_BN: Tensor | None = None,
) -> Tensor:
    """Draw which tubes to hide from the encoder: the same places at all times.

    Args:
        batch: Number of clips or volumes B.
        grid: (time, rows, columns) of tubes.
        ratio: Share of hidden places, rounded down; 0.9 for cine, 0.75 to 0.85 for volumes.
        generator: Source of the draws; its device decides the draws, not `device`.
        device: Device of the mask.
        foreground_BN: bool [B, N] from `foreground_of`, used as in `hide`: no clip shows places alone at which nothing
            is to be seen at any time.

    Returns:
        bool [B, N], True = hidden; N = time x rows x columns, time slowest.

    Raises:
        MedclipError: WRONG_USE for a ratio outside [0, 1) or one that leaves no place to see.
    """
    times, rows, cols = grid
    places = rows * cols
    noise_BS = torch.rand(batch, places, generator=generator, device=generator.device)
    foreground_BS = None if foreground_BN is None else foreground_BN.view(batch, times, places).any(1)
    return hide(noise_BS, places - num_hidden_places(places, ratio), foreground_BS).repeat(1, times).to(device)


def num_hidden_places(places: int, ratio: float) -> int:
    """Return how many of a frame's places are hidden: places * ratio, rounded down.

    Raises:
        MedclipError: WRONG_USE for a ratio outside [0, 1) or one that leaves no place to see.

    Example:
        >>> num_hidden_places(196, 0.9)
        176
    """
    hidden = int(places * ratio) if 0 <= ratio < 1 else places
    if hidden >= places:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a mask ratio of {ratio} leaves none of {places} places of a frame to see.",
            hint="Choose a ratio of at least 0 that leaves one place or more.",
        )
    return hidden


def running_cell_mask(grid: tuple[int, int, int], ratio: float, start: int) -> Tensor:
    """Return which tubes the decoder leaves out: cells of 2 x 2 places in which the left-out ones move on in time.

    Args:
        grid: (time, rows, columns) of tubes; rows and columns are even.
        ratio: Share that is left out: 0.25, 0.5 or 0.75.
        start: 0 to 3, where the cells begin.

    Returns:
        bool [N], True = NOT decoded, as upstream has it.

    Raises:
        MedclipError: WRONG_USE for odd rows or columns, or another ratio.

    Example:
        >>> running_cell_mask((1, 2, 2), 0.5, start=0).int().tolist()
        [1, 0, 0, 1]
    """
    times, rows, cols = grid
    if rows % 2 or cols % 2:
        raise MedclipError(
            Reason.WRONG_USE,
            f"running cells take two rows and two columns of tubes each; there are {rows} rows and {cols} columns.",
            hint="Choose a size of an even number of patches, or decode all that is hidden (no decode ratio).",
        )
    if ratio not in CELL_RATIOS:
        raise MedclipError(
            Reason.WRONG_USE,
            f"running cells of four places cannot leave out {ratio} of the tubes.",
            hint=f"Choose {', '.join(map(str, CELL_RATIOS[:-1]))} or {CELL_RATIOS[-1]}.",
        )
    queue_Q = torch.arange(4) < int(4 * ratio)
    place_T4 = (torch.arange(4) + torch.arange(times)[:, None] + start + 1) % 4
    return queue_Q[place_T4].view(times, 2, 2).repeat(1, rows // 2, cols // 2).flatten()


def draw_decoded(
    batch: int, grid: tuple[int, int, int], ratio: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw which tubes are decoded: of each clip, running cells with a start of its own.

    Args:
        batch: Number of clips or volumes B.
        grid: (time, rows, columns) of tubes; rows and columns are even.
        ratio: Share that is left out: 0.25, 0.5 or 0.75.
        generator: Source of the draws.
        device: Device of the mask.

    Returns:
        bool [B, N], True = decoded (the opposite of `running_cell_mask`), equally many in each clip.

    Raises:
        MedclipError: WRONG_USE for odd rows or columns, or another ratio.
    """
    starts_B = torch.randint(4, (batch,), generator=generator, device=generator.device).cpu()
    cells_4N = torch.stack([running_cell_mask(grid, ratio, start) for start in range(4)])
    return ~cells_4N[starts_B].to(device)


def normalise_tubes(
    target_BKP: Tensor, pixel_std_C: Tensor, *, floor: float = TUBE_FLOOR, flat: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Normalise tubes, each channel by itself: (x - mean) / (unbiased standard deviation + floor).

    Args:
        target_BKP: [B, K, P] pixels as of `patches_of`, the channel fastest.
        pixel_std_C: [C] standard deviations that the pixels were divided by; floors are in units of [0, 1]. Ones for
            pixels in [0, 1].
        floor: Floor of the deviation; upstream has 1e-6.
        flat: A tube of which no channel has this deviation is flat.

    Returns:
        float32 [B, K, P], and bool [B, K], False where a tube is flat: there is nothing to guess in it.
    """
    pixels_BKVC = target_BKP.float().unflatten(-1, (-1, len(pixel_std_C)))
    variance_BK1C, mean_BK1C = torch.var_mean(pixels_BKVC, dim=-2, keepdim=True)
    std_BK1C = variance_BK1C.sqrt() * pixel_std_C
    normalised_BKVC = (pixels_BKVC - mean_BK1C) * (pixel_std_C / (std_BK1C + floor))
    return normalised_BKVC.flatten(-2), (std_BK1C >= flat).any(-1)[..., 0]

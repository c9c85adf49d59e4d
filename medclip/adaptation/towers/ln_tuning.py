"""Alignment, uniformity and slerp of unit features: what norm tuning may add to its loss.

"Unlocking the Hidden Potential of CLIP in Generalizable Deepfake Detection" (arXiv 2503.19683); the first two are Wang
and Isola's. Everything is computed in float32: 1 − 1e-7 is 1 in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pdist

CLOSE = 1e-3
"""Below this angle (rad) between two features, slerp is a normalised straight line."""
_EDGE = 1e-7


def alignment(z_ND: Tensor, groups_N: Tensor, alpha: float = 2.0) -> Tensor:
    """Return the mean of ‖z_i − z_j‖^α over the pairs of one group; 0 where no pair is.

    Args:
        z_ND: Unit features.
        groups_N: int64, equal for units that belong together.
        alpha: Exponent.

    Example:
        >>> round(float(alignment(torch.eye(2), torch.tensor([0, 0]))), 4)
        2.0
    """
    first, second = torch.triu_indices(len(z_ND), len(z_ND), 1, device=z_ND.device)
    same = groups_N[first] == groups_N[second]
    if not bool(same.any()):
        return z_ND.float().sum() * 0.0
    return _distances(z_ND)[same].pow(alpha).mean()


def uniformity(z_ND: Tensor, t: float = 2.0) -> Tensor:
    """Return log(mean of exp(−t·‖z_i − z_j‖²)) over all pairs, at least log(1e-6); 0 for a batch of one.

    Args:
        z_ND: Unit features.
        t: Width of the kernel; with 2 the value lies between −8 and 0.

    Example:
        >>> round(float(uniformity(torch.eye(2))), 4)
        -4.0
    """
    if len(z_ND) < 2:
        return z_ND.float().sum() * 0.0
    return _distances(z_ND).square().mul(-t).exp().mean().clamp(min=1e-6).log()


def slerp(a_ND: Tensor, b_ND: Tensor, t_N1: Tensor | float) -> Tensor:
    """Go from a to b on the sphere.

    Args:
        a_ND: Start of the way; need not be of unit norm.
        b_ND: End of the way; need not be of unit norm.
        t_N1: Share of the way, 0 is a.

    Returns:
        float32 [N, D]. Features closer than 0.001 rad are joined by a straight line, which has no 0/0.
    """
    a, b = normalize(a_ND.float(), dim=-1), normalize(b_ND.float(), dim=-1)
    cosine = (a * b).sum(dim=-1, keepdim=True).clamp(-1 + _EDGE, 1 - _EDGE)
    close = cosine > 1 - CLOSE**2 / 2
    angle = torch.acos(torch.where(close, 0.0, cosine))  # where close, an angle whose gradient is finite
    arc = (torch.sin((1 - t_N1) * angle) * a + torch.sin(t_N1 * angle) * b) / torch.sin(angle)
    return torch.where(close, normalize((1 - t_N1) * a + t_N1 * b, dim=-1), arc)


def slerp_within(z_ND: Tensor, groups_N: Tensor, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Replace the features of every group of two or more by points between them and others of the group.

    Args:
        z_ND: Unit features.
        groups_N: int64.
        span: Limits of the share of the way, drawn for each feature.
        generator: Generator of the partners and the shares.
    """
    partner = torch.arange(len(z_ND))
    for group in groups_N.cpu().unique():
        rows = torch.nonzero(groups_N.cpu() == group).flatten()
        partner[rows] = rows[torch.randperm(len(rows), generator=generator)]
    share = span[0] + (span[1] - span[0]) * torch.rand(len(z_ND), 1, generator=generator)
    moved = slerp(z_ND, z_ND[partner], share.to(z_ND.device))
    alone = torch.bincount(groups_N)[groups_N] < 2
    return torch.where(alone[:, None], z_ND.float(), moved)


def groups_of(targets: Tensor) -> Tensor:
    """Number units by what they show; a unit with an unknown answer is alone.

    Args:
        targets: int64 [N], or float [N, C] with NaN for unknown.

    Returns:
        int64 [N].
    """
    if targets.ndim == 1:
        return targets
    known = ~targets.isnan().any(dim=1)
    numbers = torch.unique(targets.nan_to_num(-1.0), dim=0, return_inverse=True)[1]
    lone = int(numbers.max()) + 1 + torch.arange(len(targets), device=targets.device)
    return torch.where(known, numbers, lone)


def _distances(z_ND: Tensor) -> Tensor:
    """Return ‖z_i − z_j‖ of all pairs i < j, in float32."""
    return pdist(z_ND.float())

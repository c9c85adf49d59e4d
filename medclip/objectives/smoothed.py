"""InfoNCE between two images of the same identity, with label smoothing: what a re-identification attacker trains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from medclip.errors import MedclipError, Reason
from medclip.objectives.block import check_features, scalar


def smoothed_info_nce(
    first_BD: Tensor, second_BD: Tensor, logit_scale: Tensor | float, *, smoothing: float = 0.1
) -> Tensor:
    """Return the mean cross-entropy of both directions; `smoothing` of each row's mass is spread over all columns.

    Args:
        first_BD: [B, D] unit-norm features of one image of each identity; any float dtype, computed in float32.
        second_BD: [B, D] of another image of the same identity: row i belongs to row i. No identity is there twice.
        logit_scale: exp of the learned log-scale (multiplies the cosines).
        smoothing: Share between 0 (the CLIP loss) and 1.

    Returns:
        Scalar float32.

    Raises:
        MedclipError: WRONG_USE for features of different sizes, or a smoothing outside 0 to 1.

    Reference: Habel et al., CLIP-ReIdent: Contrastive training for player re-identification, MMSports 2022.

    Example:
        >>> one_row = torch.tensor([[1.0, 0.0, 0.0]])
        >>> float(smoothed_info_nce(one_row, one_row, 2.0))
        0.0
    """
    check_features(first_BD, second_BD)
    if not 0 <= smoothing <= 1:
        raise MedclipError(Reason.WRONG_USE, f"smoothing is {smoothing}; it is between 0 and 1.")
    logits_BB = (first_BD.float() @ second_BD.float().T) * scalar(logit_scale, first_BD.device)
    right_B = torch.arange(len(logits_BB), device=logits_BB.device)
    rows, cols = (cross_entropy(z, right_B, label_smoothing=smoothing) for z in (logits_BB, logits_BB.T))
    return (rows + cols) / 2

"""Risk of a later event, year by year: the additive hazard head of Mirai, and its loss under censoring.

Reference: Yala et al., Toward robust mammography-based models for breast cancer risk, Sci. Transl. Med. 13 (2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from medclip.errors import MedclipError, Reason
from medclip.objectives.ranks import rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class AdditiveHazard(nn.Module):
    """Turns features into the logit of an event by the end of year 1, 2, ... K, which never falls from year to year.

    The logit of year k is b(x) + the sum over j = 1..k of ReLU(w_j·x + c_j), with b linear; its sigmoid is the
    probability of an event by the end of year k.

    Args:
        dim: Width of the features, D.
        num_years: Number of years, K.
    """

    def __init__(self, dim: int, num_years: int) -> None:
        super().__init__()
        self.base = nn.Linear(dim, 1)
        self.hazard = nn.Linear(dim, num_years)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return float32 logits [B, K] of features [B, D], also under autocast."""
        with torch.autocast(features_BD.device.type, enabled=False):
            features_BD = features_BD.float()
            return self.base(features_BD) + relu(self.hazard(features_BD)).cumsum(dim=1)


def hazard_targets(event_months: ArrayLike, followup_months: ArrayLike, num_years: int) -> tuple[Tensor, Tensor]:
    """Turn times into what is known of each year: an event by its end (12 months a year, inclusive), or none.

    With an event every year is known: 0 before it and 1 from its year on. Without one, a year is known (0) when the
    row was followed to its end. Rows with neither time are not known at all.

    Args:
        event_months: [B], months from the examination to the event; NaN where none was seen.
        followup_months: [B], months that the row was followed; NaN where it is not known (needed without an event).
        num_years: Number of years, K.

    Returns:
        Truth and mask, both float32 [B, K]; the mask is 1 where the year is known.

    Raises:
        MedclipError: WRONG_USE for a negative time, or an event later than the end of the follow-up.

    Example:
        >>> truth, mask = hazard_targets([14, np.nan], [60, 30], 3)
        >>> truth.tolist(), mask.tolist()
        ([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    event_B, followup_B = np.asarray(event_months, np.float64), np.asarray(followup_months, np.float64)
    for name, months_B in (("an event", event_B), ("a follow-up", followup_B)):
        if (months_B < 0).any():
            raise MedclipError(
                Reason.WRONG_USE,
                f"{name} of {np.nanmin(months_B):g} months: times run from the examination on.",
                hint="Leave out events before the examination; they are prevalent, not a risk.",
            )
    late_B = event_B > followup_B
    if late_B.any():
        row = int(np.argmax(late_B))
        raise MedclipError(
            Reason.WRONG_USE,
            f"an event at {event_B[row]:g} months, but a follow-up of {followup_B[row]:g}.",
            hint="A follow-up lasts to the event at least; leave the row's times empty if they cannot be mended.",
        )
    ends_K = 12.0 * np.arange(1, num_years + 1)
    seen_B1 = ~np.isnan(event_B)[:, None]
    truth_BK = event_B[:, None] <= ends_K
    mask_BK = seen_B1 | (followup_B[:, None] >= ends_K)
    return torch.from_numpy(truth_BK.astype(np.float32)), torch.from_numpy(mask_BK.astype(np.float32))


def masked_hazard_loss(
    logits_BK: Tensor,
    truth_BK: Tensor,
    mask_BK: Tensor,
    *,
    num_years_known: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Compute the mean binary cross-entropy over the years that are known.

    Args:
        logits_BK: Logits from `AdditiveHazard`.
        truth_BK: Truth from `hazard_targets`; not read where the mask is 0.
        mask_BK: Mask from `hazard_targets`.
        num_years_known: Sum of the mask over the batch that these rows are a part of; None: they are all of it.
        group: The ranks whose batch it is; None for these rows alone.

    Returns:
        Scalar float32, whose mean over ranks is the mean over the batch; 0 where nothing is known, with gradients
        of 0.
    """
    if num_years_known is None:
        num_years_known = sum_values(mask_BK.sum().float(), group)
    each_BK = binary_cross_entropy_with_logits(logits_BK.float(), truth_BK, reduction="none")
    return torch.where(mask_BK > 0, each_BK, 0.0).sum() * (rank_and_size(group)[1] / num_years_known.clamp_min(1))

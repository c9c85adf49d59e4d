"""The loss of a slide: its own answer, those of its branches, and how alike the branches look."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from medclip.adaptation.data.task_loss import task_loss
from medclip.objectives.branch_diversity import branch_diversity
from medclip.objectives.hazard import masked_hazard_loss
from medclip.slides.learning.pooling import Kind, Pooled


@dataclass(frozen=True, eq=False)
class SlideLoss:
    """The terms of the loss, scalars; what is trained is their sum."""

    branches: Tensor
    """Mean over the branches; 0 for one branch, whose answer is the slide's."""
    slide: Tensor
    diversity: Tensor
    """Times its weight."""

    @property
    def total(self) -> Tensor:
        """Branches + slide + diversity."""
        return self.branches + self.slide + self.diversity


def slide_loss(
    pooled: Pooled, target_1X: Tensor, kind: Kind, mask_1K: Tensor | None = None, *, diversity: float = 1.0
) -> SlideLoss:
    """Compute the loss of one slide.

    Args:
        pooled: What the pooling answered.
        target_1X: int64 [1], the class; float32 [1, C] with NaN for unknown (multilabel); float32 [1, K], truth of each
            year (risk).
        kind: Of the task.
        mask_1K: Of a risk: 1 where the year is known.
        diversity: Weight of how alike the branches look; the other terms have 1.
    """
    num_branches = len(pooled.attention_TN)
    alike = diversity * branch_diversity(pooled.attention_TN)
    slide = _answer_loss(pooled.slide_C[None], target_1X, kind, mask_1K)
    if num_branches == 1:
        return SlideLoss(slide * 0, slide, alike)
    repeated = target_1X.expand(num_branches, *target_1X.shape[1:])
    mask = None if mask_1K is None else mask_1K.expand(num_branches, -1)
    branches = _answer_loss(pooled.branch_TC, repeated, kind, mask)
    return SlideLoss(branches, slide, alike)


def _answer_loss(logits: Tensor, target: Tensor, kind: Kind, mask: Tensor | None) -> Tensor:
    if kind == "risk":
        assert mask is not None
        return masked_hazard_loss(logits, target, mask)
    return task_loss(logits, target)

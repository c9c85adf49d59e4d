"""A classifier on top of the image tower: the head of fine-tuning, and its loss.

The head of medical MAE (norm of the mean of the patch tokens, then a linear layer), in a form that a pack can score
with: it reads the unit-norm features that packs have. A layer norm without scale and shift gives vectors of the length
sqrt(D), so that norm, scale, shift and linear layer on the tower's mean are sqrt(D) times the unit feature, scale,
shift and linear layer. A tower that ends in another way (a CNN) has its features brought to that length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medclip.objectives.ranks import rank_and_size, sum_values
from medclip.statistics.metrics.classification import ranked_scores
from medclip.statistics.metrics.ranks import auroc
from medclip.text.vocabulary.task import Task
from medclip.training.batches.truth import truth_of

_INIT_STD = 2e-5
"""Of the linear layer: every class begins at one half, or at one of C."""


class SupervisedHead(nn.Module):
    """Turns the image tower's unit features into logits. Trained and checkpointed with the towers.

    Args:
        dim: D, of the features.
        num_classes: C.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.linear = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=_INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, image_BD: Tensor) -> Tensor:
        """Return float32 logits [B, C] of unit-norm features."""
        with torch.autocast(image_BD.device.type, enabled=False):
            pooled_BD = image_BD.float() * math.sqrt(image_BD.shape[1]) * self.scale + self.shift
            return self.linear(pooled_BD)

    @staticmethod
    @torch.no_grad()
    def folded(weights: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return the head as one linear layer on unit features: `weight` [D, C] and `bias` [C].

        Args:
            weights: Its state dict.
        """
        values = {name: value.double() for name, value in weights.items()}
        weight_CD, dim = values["linear.weight"], len(values["scale"])
        weight_DC = (weight_CD * values["scale"] * math.sqrt(dim)).T
        bias_C = values["linear.bias"] + weight_CD @ values["shift"]
        return {"weight": weight_DC.float().contiguous().numpy(), "bias": bias_C.float().numpy()}


@torch.no_grad()
def head_on(visual: Any, dim: int, num_classes: int) -> SupervisedHead:
    """Make the head of an image tower; the scale and shift of timm's norm behind the pooling move into it.

    Args:
        visual: The tower. Its own norm keeps a scale of 1 and a shift of 0, and does not learn, where nothing lies
            between it and the features.
        dim: D, of its features.
        num_classes: C.
    """
    head = SupervisedHead(dim, num_classes)
    norm = None if hasattr(visual, "head") else getattr(getattr(visual, "trunk", None), "fc_norm", None)
    if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine:
        head.scale.copy_(norm.weight)
        head.shift.copy_(norm.bias)
        norm.weight.fill_(1)
        norm.bias.fill_(0)
        norm.requires_grad_(False)
    return head.to(next(visual.parameters()).device)


def targets_of(task: Task, classes: Sequence[str], label_keys: Sequence[str]) -> Tensor:
    """Read from labels what the head should say of B images.

    Args:
        task: Whose labels.
        classes: Those that are learned, in the order of logits.
        label_keys: As `Batch.label_keys`.

    Returns:
        float32 [B, 1]: the number of the class; of a multi-label task [B, C]: 1 and 0. NaN where it is not known, and
        where it is a class that is not learned.
    """
    truth = truth_of(task, label_keys, classes)
    if task.kind == "multiclass":
        truth = np.where(truth < len(classes), truth, np.nan)
    return torch.from_numpy(truth.astype(np.float32))


def supervised_figures(logits_NC: Tensor, target: Tensor, kind: str) -> dict[str, float]:
    """Measure answers on the validation split.

    Args:
        logits_NC: float32.
        target: From `targets_of`.
        kind: "multiclass" or "multilabel".

    Returns:
        auroc: the mean over the classes that are both there and not there, each against the rest; and
        balanced_accuracy, the mean recall, where one class is true. Without those that nothing can be said of.
    """
    logits, truth = logits_NC.double().numpy(), target.numpy()
    figures: dict[str, float] = {}
    if kind == "multiclass":
        known = ~np.isnan(truth[:, 0])
        logits, number_N = logits[known], truth[known, 0].astype(np.int64)
        truth = np.eye(logits.shape[1])[number_N]
        called_N = logits.argmax(axis=1)
        logits = ranked_scores(logits, False) if logits.shape[1] != 2 else logits - logits[:, ::-1]
        if len(number_N):
            recalls = [(called_N[number_N == c] == c).mean() for c in np.unique(number_N)]
            figures["balanced_accuracy"] = float(np.mean(recalls))
    areas = [area_over_known(logits[:, c], truth[:, c]) for c in range(truth.shape[1])]
    measured = [area for area in areas if not np.isnan(area)]
    return ({"auroc": float(np.mean(measured))} if measured else {}) | figures


def area_over_known(score_N: NDArray[np.floating], truth_N: NDArray[np.floating]) -> float:
    """Compute the area under the ROC curve over what is known; NaN where one answer is missing."""
    known = ~np.isnan(truth_N)
    return float(auroc(score_N[known], truth_N[known] == 1))


def supervised_loss(
    logits_BC: Tensor,
    target: Tensor,
    kind: str,
    *,
    smoothing: float = 0.0,
    known: Tensor | None = None,
    group: Any = None,
) -> Tensor:
    """Compute cross-entropy over classes, or the mean binary cross-entropy over what is known.

    Args:
        logits_BC: float32, of this rank.
        target: From `targets_of`.
        kind: "multiclass" or "multilabel".
        smoothing: Share of the truth that is spread over all classes (of both answers).
        known: From `num_known`, of a batch that these rows are a part of; None: they are all of it.
        group: The ranks whose batch it is; None for these rows alone.

    Returns:
        A scalar, whose mean over ranks is the mean over the batch; 0 where nothing is known, with gradients of 0.
    """
    if known is None:
        known = num_known(target, group)
    if kind == "multiclass":
        number_B = target[:, 0].nan_to_num().long()
        each = cross_entropy(logits_BC, number_B, reduction="none", label_smoothing=smoothing)[:, None]
    else:
        wanted_BC = target.nan_to_num() * (1 - smoothing) + smoothing / 2
        each = binary_cross_entropy_with_logits(logits_BC, wanted_BC, reduction="none")
    return torch.where(target.isnan(), 0.0, each).sum() * (rank_and_size(group)[1] / known)


def num_known(target: Tensor, group: Any = None) -> Tensor:
    """Count the answers of all ranks that are known, float32, 1 at least; arguments as of `supervised_loss`."""
    return sum_values((~target.isnan()).sum().float(), group).clamp_min(1)

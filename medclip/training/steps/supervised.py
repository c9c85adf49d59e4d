"""Classifiers on top of the image tower, or of what fuses the views of an examination: heads, and their losses.

The head of medical MAE (norm of the mean of the patch tokens, then a linear layer), in a form that a pack can score
with: it reads the unit-norm features that packs have. A layer norm without scale and shift gives vectors of the length
sqrt(D), so that norm, scale, shift and linear layer on the tower's mean are sqrt(D) times the unit feature, scale,
shift and linear layer. A tower that ends in another way (a CNN) has its features brought to that length.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from medclip.objectives.hazard import AdditiveHazard, masked_hazard_loss
from medclip.objectives.keys import key_of
from medclip.objectives.ranks import rank_and_size, sum_values
from medclip.statistics.estimate import NUM_RESAMPLES
from medclip.statistics.metrics.classification import mean_area, ranked_scores
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.task import Task
from medclip.text.vocabulary.task_kinds import kind_named
from medclip.training.batches.loader import SOURCE, Batch
from medclip.training.batches.sample_texts import truth_of

_INIT_STD = 2e-5
"""Of the linear layer: every class begins at one half, or at one of C."""


class _Head(nn.Module):
    """Brings unit features to the length sqrt(D), scales and shifts them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def pooled(self, image_BD: Tensor) -> Tensor:
        return image_BD.float() * math.sqrt(image_BD.shape[1]) * self.scale + self.shift


class SupervisedHead(_Head):
    """Turns the image tower's unit features into logits. Trained and checkpointed with the towers.

    Args:
        dim: Width of the features, D.
        num_classes: Number of classes, C.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim)
        self.linear = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=_INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, image_BD: Tensor) -> Tensor:
        """Return float32 logits [B, C] of unit-norm features."""
        with torch.autocast(image_BD.device.type, enabled=False):
            return self.linear(self.pooled(image_BD))

    @staticmethod
    def folded(weights: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return the head as one linear layer on unit features: `weight` [D, C] and `bias` [C].

        Args:
            weights: State dict of the head.
        """
        weight, bias = _on_unit_features(weights, "linear")
        return {"weight": weight, "bias": bias}


class RiskHead(_Head):
    """Turns unit features into the logits of an event by the end of some years: Mirai's additive hazard.

    Args:
        dim: Width of the features, D.
        years: Numbers of the asked years, from 1 on.
    """

    def __init__(self, dim: int, years: Sequence[int]) -> None:
        super().__init__(dim)
        self.additive = AdditiveHazard(dim, max(years))
        self._columns = [year - 1 for year in years]

    def forward(self, image_BD: Tensor) -> Tensor:
        """Return float32 logits [B, K] of unit-norm features, of the asked years."""
        with torch.autocast(image_BD.device.type, enabled=False):
            return self.additive(self.pooled(image_BD))[:, self._columns]

    @staticmethod
    def folded(weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """Return its layers on unit features: `base_weight` [D], `base_bias`, `weight` [D, K] and `bias` [K].

        Args:
            weights: State dict of the head.
        """
        base_weight, base_bias = _on_unit_features(weights, "additive.base")
        weight, bias = _on_unit_features(weights, "additive.hazard")
        base = {"base_weight": base_weight[:, 0].copy(), "base_bias": np.asarray(base_bias[0], np.float64)}
        return {**base, "weight": weight, "bias": bias}


@torch.no_grad()
def _on_unit_features(weights: Mapping[str, Tensor], layer: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    values = {name: value.double() for name, value in weights.items()}
    weight_CD, dim = values[f"{layer}.weight"], len(values["scale"])
    weight_DC = (weight_CD * values["scale"] * math.sqrt(dim)).T
    bias_C = values[f"{layer}.bias"] + weight_CD @ values["shift"]
    return weight_DC.float().contiguous().numpy(), bias_C.float().numpy()


def head_of(task: Task, classes: Sequence[str], dim: int) -> SupervisedHead | RiskHead:
    """Make the head of a task, with random weights.

    Args:
        task: Task that is learned.
        classes: Classes that are learned, in the order of logits.
        dim: Width of the features, D.
    """
    if task.rules.timed:
        return RiskHead(dim, task.years(classes))
    return SupervisedHead(dim, len(classes))


def folded(task: Task, classes: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a head as a pack has them, of its state dict."""
    if not task.rules.timed:
        return SupervisedHead.folded(weights)
    return RiskHead.folded(weights) | {"years": np.array(task.years(classes), np.float32)}


@torch.no_grad()
def move_norm(visual: Any, heads: Iterable[_Head]) -> None:
    """Move the scale and shift of timm's norm behind the pooling into the heads of an image tower.

    Args:
        visual: The tower. Its own norm keeps a scale of 1 and a shift of 0, and does not learn, where nothing lies
            between it and the features.
        heads: Heads that read the tower's features.
    """
    norm = None if hasattr(visual, "head") else getattr(getattr(visual, "trunk", None), "fc_norm", None)
    if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine:
        for head in heads:
            head.scale.copy_(norm.weight)
            head.shift.copy_(norm.bias)
        norm.weight.fill_(1)
        norm.bias.fill_(0)
        norm.requires_grad_(False)


def targets_of(task: Task, classes: Sequence[str], label_keys: Sequence[str]) -> Tensor:
    """Read from labels what the head should say of B images.

    Args:
        task: Task whose labels are read.
        classes: Classes that are learned, in the order of logits.
        label_keys: Labels, as `Batch.label_keys`.

    Returns:
        float32 [B, 1]: the number of the class; of a multi-label task [B, C]: 1 and 0, of a risk whether there was an
        event by the end of each year. NaN where it is not known, and where it is a class that is not learned.
    """
    truth = truth_of(task, label_keys, classes)
    if task.rules.one_answer:
        truth = np.where(truth < len(classes), truth, np.nan)
    return torch.from_numpy(truth.astype(np.float32))


def learned_from(sources: Sequence[str], batch: Batch) -> list[str]:
    """Return the labels of the samples of a batch that a head learns from, as `Batch.label_keys`.

    Args:
        sources: Sources whose labels are learned; all where empty.
        batch: Batch of B samples.

    Returns:
        B of them: "" for a sample of another source, and for one that could not be read.
    """
    wanted_B = batch.valid.copy()
    if sources:
        wanted_B &= np.isin(batch.pair_keys[: len(batch.keys), SOURCE], [key_of(name) for name in sources])
    return [key if wanted else "" for key, wanted in zip(batch.label_keys, wanted_B, strict=True)]


def supervised_figures(
    logits_NC: Tensor, target: Tensor, kind: str, patients: Sequence[Hashable] = ()
) -> dict[str, float]:
    """Measure answers on the validation split.

    Args:
        logits_NC: float32.
        target: Targets from `targets_of`.
        kind: Kind of the task, a row of `TASK_KINDS`.
        patients: Patient of each image; none where no interval is asked for.

    Returns:
        auroc: the mean over the classes that are both there and not there, each against the rest; and
        balanced_accuracy, the mean recall, where one class is true. Without those that nothing can be said of. Where
        patients are named: num_images and num_patients of which an answer is known, and auroc_low and auroc_high, the
        ends of the 95 % interval by patient.
    """
    logits, truth = logits_NC.double().numpy(), target.numpy()
    figures: dict[str, float] = {}
    rows = np.flatnonzero(~np.isnan(truth).all(axis=1))
    if kind_named(kind).one_answer:
        labelled = ~np.isnan(truth[:, 0])
        logits, number_N = logits[labelled], truth[labelled, 0].astype(np.int64)
        truth = np.eye(logits.shape[1])[number_N]
        called_N = logits.argmax(axis=1)
        logits = ranked_scores(logits, False) if logits.shape[1] != 2 else logits - logits[:, ::-1]
        if len(number_N):
            recalls = [(called_N[number_N == c] == c).mean() for c in np.unique(number_N)]
            figures["balanced_accuracy"] = float(np.mean(recalls))
    areas = [area_over_known(logits[:, c], truth[:, c]) for c in range(truth.shape[1])]
    measured = [area for area in areas if not np.isnan(area)]
    if patients:
        whose = [patients[row] for row in rows.tolist()]
        figures |= {"num_images": len(rows), "num_patients": len(set(whose))}
        truth_NC, scores_NC = (truth, logits) if len(truth) == len(rows) else (truth[rows], logits[rows])
        if measured and (area := mean_area(scores_NC, truth_NC, whose, NUM_RESAMPLES)) is not None:
            estimate = interval_of(area)
            if estimate.has_interval:
                figures |= {"auroc_low": estimate.low, "auroc_high": estimate.high}
    return ({"auroc": float(np.mean(measured))} if measured else {}) | figures


def area_over_known(score_N: NDArray[np.floating], truth_N: NDArray[np.floating]) -> float:
    """Compute the area under the ROC curve over what is known; NaN where one answer is missing."""
    labelled = ~np.isnan(truth_N)
    return float(auroc(score_N[labelled], truth_N[labelled] == 1))


def supervised_loss(
    logits_BC: Tensor,
    target: Tensor,
    kind: str,
    *,
    smoothing: float = 0.0,
    known_answers: Tensor | None = None,
    group: Any = None,
) -> Tensor:
    """Compute cross-entropy over classes, or the mean binary cross-entropy over what is known.

    Args:
        logits_BC: float32, of this rank.
        target: Targets from `targets_of`.
        kind: Kind of the task, a row of `TASK_KINDS`.
        smoothing: Share of the truth that is spread over all classes (of both answers); not of a risk.
        known_answers: Sum from `num_known`, of a batch that these rows are a part of; None: they are all of it.
        group: The ranks whose batch it is; None for these rows alone.

    Returns:
        A scalar, whose mean over ranks is the mean over the batch; 0 where nothing is known, with gradients of 0.
    """
    if known_answers is None:
        known_answers = num_known(target, group)
    if kind_named(kind).one_answer:
        number_B = target[:, 0].nan_to_num().long()
        each = cross_entropy(logits_BC, number_B, reduction="none", label_smoothing=smoothing)[:, None]
    elif kind_named(kind).timed:
        mask_BK = (~target.isnan()).float()
        return masked_hazard_loss(logits_BC, target.nan_to_num(), mask_BK, num_years_known=known_answers, group=group)
    else:
        wanted_BC = target.nan_to_num() * (1 - smoothing) + smoothing / 2
        each = binary_cross_entropy_with_logits(logits_BC, wanted_BC, reduction="none")
    return torch.where(target.isnan(), 0.0, each).sum() * (rank_and_size(group)[1] / known_answers)


def num_known(target: Tensor, group: Any = None) -> Tensor:
    """Count the answers of all ranks that are known, float32, 1 at least; arguments as of `supervised_loss`."""
    return sum_values((~target.isnan()).sum().float(), group).clamp_min(1)

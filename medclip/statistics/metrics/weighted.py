"""Accuracy, balanced accuracy and area under the ROC curve of many runs over many weightings of the test patients.

A bootstrap replicate is a weight for each image (how often its patient was drawn), so every metric here is a product of
a weight matrix with what one run got right; nothing is resampled row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("balanced_accuracy", "accuracy", "macro_auroc")
FEWEST = 3
"""A class with fewer test patients on either side has no area of its own: it is left out of the mean, and named."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The images that all methods are measured on."""

    targets: NDArray
    """int64 [N], or float32 [N, C] with 1, 0 and NaN for multi-label tasks."""
    patients: NDArray[np.int64]
    """Number of each image's patient, 0 to P − 1."""
    num_classes: int

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    @property
    def num_patients(self) -> int:
        """P."""
        return int(self.patients.max()) + 1 if len(self.patients) else 0

    @property
    def primary(self) -> str:
        """The metric that a comparison is about: no threshold is chosen for multi-label tasks, so the area there."""
        return "macro_auroc" if self.multilabel else "balanced_accuracy"

    def sides(self, c: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the images with class c, and of those known to be without it."""
        if self.multilabel:
            return np.flatnonzero(self.targets[:, c] == 1), np.flatnonzero(self.targets[:, c] == 0)
        return np.flatnonzero(self.targets == c), np.flatnonzero(self.targets != c)

    def measured(self) -> tuple[int, ...]:
        """Classes that means are over: those in the test set; for multi-label ones with `FEWEST` patients a side."""
        chosen = []
        for c in range(self.num_classes):
            sides = [len(set(self.patients[rows].tolist())) for rows in self.sides(c)]
            if (self.multilabel and min(sides) >= FEWEST) or (not self.multilabel and sides[0] > 0):
                chosen.append(c)
        return tuple(chosen)


def predictions(logits_RNC: NDArray[np.float32], multilabel: bool) -> NDArray:
    """Give int64 [R, N], the class with the highest logit; for multi-label tasks bool [R, N, C], p above one half."""
    return logits_RNC > 0 if multilabel else logits_RNC.argmax(axis=-1)


def ranked_scores(logits_NC: NDArray[np.float32], multilabel: bool) -> NDArray[np.float64]:
    """Give what the area is computed from: log probabilities, whose order does not saturate; logits for multi-label."""
    logits = np.asarray(logits_NC, np.float64)
    if multilabel:
        return logits
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def weighted_metrics(
    logits_RNC: NDArray[np.float32], test: HeldOut, weights_NB: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Compute all metrics of R runs under B weightings.

    Balanced accuracy is the mean recall over classes, for multi-label tasks the mean over classes of (sensitivity +
    specificity) / 2 at p = 0.5; accuracy there is the mean over classes of the share of right answers. The area is the
    mean over classes of class against rest, ties counting half (Mann-Whitney).

    Args:
        logits_RNC: float32 [R, N, C].
        test: The images.
        weights_NB: How often each image counts; every measured class needs weight on both sides.

    Returns:
        Name to float64 [R, B].
    """
    weights = np.asarray(weights_NB, np.float64)
    chosen = test.measured()
    said = predictions(logits_RNC, test.multilabel)
    recalls, shares, areas = [], [], []
    scores = np.stack([ranked_scores(logits_NC, test.multilabel) for logits_NC in logits_RNC])
    for c in chosen:
        with_c, without = test.sides(c)
        if test.multilabel:
            hits, rejections = said[:, with_c, c], ~said[:, without, c]
            right_with, all_with = hits @ weights[with_c], weights[with_c].sum(axis=0)
            right_without, all_without = rejections @ weights[without], weights[without].sum(axis=0)
            recalls.append((right_with / all_with + right_without / all_without) / 2)
            shares.append((right_with + right_without) / (all_with + all_without))
        else:
            recalls.append(((said[:, with_c] == c) @ weights[with_c]) / weights[with_c].sum(axis=0))
        if len(with_c) and len(without):
            areas.append(np.stack([_area(of_run[:, c], with_c, without, weights) for of_run in scores]))
    none = np.full((len(logits_RNC), weights.shape[1]), np.nan)
    if not test.multilabel:
        shares = [((said == test.targets) @ weights) / weights.sum(axis=0)]
    return {
        name: np.mean(found, axis=0) if found else none
        for name, found in zip(METRICS, (recalls, shares, areas), strict=True)
    }


def _area(
    scores_N: NDArray[np.float64], with_c: NDArray[np.int64], without: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted Mann-Whitney statistic, [B]: the weight of the pairs that are in order, ties counting half."""
    low = scores_N[without]
    order = np.argsort(low, kind="stable")
    sums = np.zeros((len(low) + 1, weights.shape[1]))
    np.cumsum(weights[without[order]], axis=0, out=sums[1:])
    high = scores_N[with_c]
    below, upto = (np.searchsorted(low[order], high, side=side) for side in ("left", "right"))
    ordered = np.einsum("pb,pb->b", weights[with_c], sums[below] + sums[upto]) / 2
    return ordered / (weights[with_c].sum(axis=0) * sums[-1])

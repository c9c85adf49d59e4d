"""Are two findings told from each other among the ill?

Against healthy images any word for illness ranks the ill ones first, so that a high area says nothing of which finding
was understood. Here only images count that have one of two findings and not the other, and the score is the cosine
with the sentences of the one less that with those of the other: who knows but "abnormal" is at chance. Nothing is
denied in these sentences, so that the word "no" ranks nothing either.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medclip.models.prototypes.class_vectors import TextEncoder, encode_prompts
from medclip.statistics.estimate import NUM_RESAMPLES, Figure
from medclip.statistics.metrics.classification import measured
from medclip.statistics.resampling.resampled import interval_of
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task

AMONG_ILL = "among_ill"
"""Key of such figures among the metrics of a task."""
FEWEST = 10
"""Patients with each finding alone below which two findings are not compared."""


def measure_among_ill(
    model: TextEncoder,
    task: Task,
    names: Sequence[str],
    features_ND: NDArray[np.floating],
    targets_NC: NDArray[np.floating],
    patients: Sequence[Hashable],
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Figure]:
    """Measure every two findings of a task against each other.

    Args:
        model: Text encoder of the sentences.
        task: Task whose classes may be true together.
        names: Names of its classes, in the order of the targets.
        features_ND: Vectors of images, float [N, D].
        targets_NC: 1 for a finding that is there, 0 for one that is not, NaN for one of which nothing is known.
        patients: Patient of each image.
        num_resamples: Number of resamples of patients.

    Returns:
        Areas under the ROC curve by "ONE against OTHER", chance 0.5, with 95 % intervals over patients; none for two
        findings of which either stands alone in fewer than `FEWEST` patients.
    """
    targets_NC = np.asarray(targets_NC, np.float64)
    scores_NC = np.asarray(features_ND, np.float64) @ encode_prompts(
        model, [one.positive for one in expand(task, names)]
    ).T.astype(np.float64)
    figures = {}
    for one, other in combinations(range(len(names)), 2):
        rows = np.flatnonzero(targets_NC[:, one] + targets_NC[:, other] == 1)  # NaN is none
        labels = targets_NC[rows, one].astype(np.int64)
        whose = [patients[i] for i in rows.tolist()]
        of_side = [{who for who, label in zip(whose, labels, strict=True) if label == side} for side in (0, 1)]
        if min(map(len, of_side)) < FEWEST:
            continue
        area = measured(
            labels, scores_NC[rows, one] - scores_NC[rows, other], whose, ["auroc"], num_resamples=num_resamples
        )["auroc"]
        figures[f"{names[one]} against {names[other]}"] = Figure.of(interval_of(area))
    return figures

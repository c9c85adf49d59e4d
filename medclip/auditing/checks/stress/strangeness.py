"""Would anybody notice? How well the pack's own outputs tell corrupted images from clean ones, in every group.

A score that sees no difference where sensitivity is lost is no guard: the model errs in silence there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.stress.shifts import Condition
from medclip.auditing.disclosure.small_cells import Roundings
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Cohort
from medclip.statistics.metrics.out_of_distribution import (
    energy,
    entropy,
    mahalanobis,
    max_logit,
    mcm,
    separation,
    shared_precision,
)
from medclip.statistics.metrics.ranks import resampled_auroc
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.weights import draw_weights

Row = dict[str, Any]
MAX_LOGIT, DISTANCE = "max_logit", "distance"
"""The Mahalanobis distance from the clean images of the other half of the patients."""
_MOST_RESAMPLES = 1000


def strangeness_scores(
    features_FND: NDArray[np.float32],
    class_vectors_CD: NDArray[np.float32] | None,
    patients_N: NDArray[np.integer],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Compute scores that are larger for stranger images.

    Args:
        features_FND: Unit vectors of N images in F forms, the clean one first; NaN where there is none.
        class_vectors_CD: Unit vectors of the classes of a task; for one or more findings those of their presence;
            None for an image-only pack, which has the distance alone.
        patients_N: Patient of each image: half of them are what the distance is measured from.
        seed: Seed of the halves.

    Returns:
        [F, N] by name. Softmax scores (mcm, energy, entropy; at temperature 1, on cosines) only where there are two
        classes or more; NaN in the distance for the patients that it is measured from.
    """
    scores: dict[str, NDArray[np.float64]] = {}
    if class_vectors_CD is not None:
        cosines_FNC = features_FND.astype(np.float64) @ class_vectors_CD.T.astype(np.float64)
        scores[MAX_LOGIT] = max_logit(cosines_FNC)
        if class_vectors_CD.shape[0] > 1:
            scores |= {"mcm": mcm(cosines_FNC), "energy": energy(cosines_FNC), "entropy": entropy(cosines_FNC)}
    half_P = np.random.default_rng(seed).permutation(int(patients_N.max()) + 1) % 2 == 0
    known_N = ~np.isnan(features_FND).any(axis=(0, 2))
    before_N = known_N & half_P[patients_N]
    distance_FN = np.full(features_FND.shape[:2], np.nan)
    if before_N.sum() > 1:
        clean_MD = features_FND[0, before_N].astype(np.float64)
        precision = shared_precision(clean_MD)
        rest_N = known_N & ~before_N
        for f, features_ND in enumerate(features_FND):
            distance_FN[f, rest_N] = mahalanobis(features_ND[rest_N], clean_MD.mean(axis=0)[None], precision)
    return {**scores, DISTANCE: distance_FN}


def strangeness_rows(
    cohort: Cohort,
    scores: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    samples: Mapping[str, NDArray[np.intp]],
    rounded: Roundings,
    *,
    fewest: int,
    num_resamples: int,
    seed: int,
    step: Callable[[], None],
) -> list[Row]:
    """Return the table `stress_ood`: AUROC of corrupted against clean images, for each score, form and group.

    Args:
        cohort: The stressed rows.
        scores: Scores [1 + K, N] by name, the clean ones first.
        conditions: The K forms.
        samples: Rows of each attribute, and of everybody.
        rounded: Roundings of counts.
        fewest: Patients that a group needs to be shown.
        num_resamples: Resamples of patients.
        seed: Seed of the draws.
        step: Function called after each group.
    """
    rows: list[Row] = []
    for attribute, group, places in groups(cohort, samples):
        for name, scores_FN in scores.items():
            known = places[~np.isnan(scores_FN[:, places]).any(axis=0)]
            present, patients_n = np.unique(cohort.patients_N[known], return_inverse=True)
            if len(present) < fewest:
                continue
            twice_n = np.tile(patients_n, 2)
            weights_PB = draw_weights(len(present), min(num_resamples, _MOST_RESAMPLES), seed=seed)
            effective = effective_patients(patients_n)
            for k, condition in enumerate(conditions, 1):
                both = np.concatenate([scores_FN[k, known], scores_FN[0, known]])
                corrupted = np.arange(len(both)) < len(known)
                value, drawn_B = resampled_auroc(both, corrupted, twice_n, weights_PB)
                count = float(len(known))
                figure = interval_of(share(value, drawn_B, cases=count, patients=effective, pairs=(count, count)))
                n = rounded.of(attribute).count(len(known))
                rows.append(
                    {
                        **{"attribute": attribute, "group": group, "name": condition.name, "grade": condition.grade},
                        **{"score": name, "value": figure.value, "low": figure.low, "high": figure.high},
                        "fpr95": separation(scores_FN[0, known], scores_FN[k, known]).fpr95,
                        "n": None if isinstance(n, str) else n,
                    }
                )
        step()
    return rows


def groups(cohort: Cohort, samples: Mapping[str, NDArray[np.intp]]) -> list[tuple[str, str, NDArray[np.intp]]]:
    """List everybody and each known group, with its rows among the stressed ones."""
    listed = [(ALL, ALL, samples[ALL])]
    for attribute in cohort.attributes:
        places = samples[attribute.name]
        for g, group in enumerate(attribute.groups):
            if group not in (MISSING, CONFLICT):
                listed.append((attribute.name, group, places[attribute.codes_N[places] == g]))
    return listed

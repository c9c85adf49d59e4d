"""What can be read from an embedding: probes that predict sex, age, site or a device from the frozen vector.

A probe that succeeds shows that the attribute is in the embedding, not that a model uses it; one that fails shows that
these two probes do not find it in a sample of this size.

Chance is measured with a probe that costs one product of matrices for each permutation: ridge regression.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from medclip.auditing.checks.embeddings.projection import centroids, projection
from medclip.auditing.checks.embeddings.vectors import FEWEST_PATIENTS, Grouped, about, grouped, row
from medclip.auditing.checks.shortcuts.device import device_of
from medclip.auditing.checks.table import CheckRows
from medclip.statistics.cohort import MISSING, Attribute, Cohort
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics.classification import HeldOut, figures
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.intervals import percentile
from medclip.statistics.resampling.resampled import interval_of
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import p_value, shuffled

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

FOLDS = 5
_AT_ONCE = 50
"""Permutations computed together."""


def patient_folds(
    codes_N: NDArray[np.integer], patients_N: NDArray[np.integer], count: int, seed: int
) -> list[NDArray]:
    """Divide rows into folds of whole patients with about the same share of each label; test rows of each fold."""
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [test for _, test in folds.split(np.zeros(len(codes_N)), codes_N, patients_N) if len(test)]


class RidgeProbe:
    """Predicts labels from vectors, each row by what other patients taught.

    One-against-rest ridge regression on standardised dimensions. The penalty is the number of training rows: it looks
    at no label, so that every labelling, the true one and the permuted ones, is treated alike.

    Args:
        vectors_ND: Vectors.
        folds: Rows of each fold.
    """

    def __init__(self, vectors_ND: NDArray[np.floating], folds: list[NDArray]) -> None:
        self._parts = []
        every = np.arange(len(vectors_ND))
        for test in folds:
            train = np.setdiff1d(every, test)
            own, others = standardised(vectors_ND[train], vectors_ND[test])
            self._parts.append((train, test, _smoother(own, others)))

    def auroc(self, codes_RN: NDArray[np.integer], num_groups: int) -> NDArray[np.float64]:
        """Return the macro AUROC of held-out predictions for each of R labellings, [R]."""
        parts = [self._auroc(codes_RN[s : s + _AT_ONCE], num_groups) for s in range(0, len(codes_RN), _AT_ONCE)]
        return np.concatenate(parts)

    def _auroc(self, codes_RN: NDArray[np.integer], num_groups: int) -> NDArray[np.float64]:
        areas: list[NDArray[np.float64]] = []
        for group in range(num_groups if num_groups > 2 else 1):
            truth_NR = (codes_RN == group).T
            predicted_NR = np.full(truth_NR.shape, np.nan)
            for train, test, smoother in self._parts:
                taught = truth_NR[train].astype(np.float64)
                predicted_NR[test] = smoother @ (taught - taught.mean(axis=0))
            areas.append(auroc(predicted_NR.T.round(10), truth_NR.T))
        with np.errstate(invalid="ignore"):
            return np.nanmean(areas, axis=0) if len(areas) > 1 else areas[0]


def standardised(
    train_MD: NDArray[np.floating], test_ND: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both with the mean and standard deviation of the first; dimensions that do not vary are 0."""
    mean, spread = train_MD.mean(axis=0, dtype=np.float64), train_MD.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-9, spread, np.inf)
    return (train_MD - mean) / scale, (test_ND - mean) / scale


def _smoother(train_MD: NDArray[np.float64], test_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix that makes held-out predictions of training labels, [N, M]; the smaller system is solved."""
    rows, dims = train_MD.shape
    if dims <= rows:
        return test_ND @ np.linalg.solve(train_MD.T @ train_MD + rows * np.eye(dims), train_MD.T)
    return np.linalg.solve(train_MD @ train_MD.T + rows * np.eye(rows), train_MD @ test_ND.T).T


Kind = Literal["logistic", "mlp"]
MOST = 5_000
"""Rows that are learned from; more are drawn by patient (a logistic fit of 4,000 x 512 takes about a second)."""
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of the logistic regression; chosen inside the training patients of each fold."""
_INNER = 3
_HIDDEN, _DECAY, _EPOCHS = 64, 1.0, 60


def check_embeddings(evidence: Evidence) -> CheckRows:
    """Probe the embeddings for each attribute and each device, and project them: tables `embeddings`, `projection`."""
    cohort, vectors_ND, options = evidence.cohort, evidence.vectors_ND, evidence.options
    assert vectors_ND is not None  # CHECKS needs them
    grouping: dict[str, Any] = {"seed": options.seed, "fewest": options.small_cells.min_patients}
    single = evidence.single_attributes
    devices = [_device(cohort, d) for d in options.shortcuts.devices if all(a.name != d for a in single)]
    evidence.progress.stage("Probing embeddings", len(single) + len(devices))
    rows: list[dict[str, Any]] = []
    for attribute in (*single, *devices):
        rows += probe(vectors_ND, cohort.patients_N, attribute, **grouping)
        rows += centroids(vectors_ND, cohort.patients_N, attribute, **grouping)
        evidence.progress.step()
    points, notes = projection(vectors_ND, cohort.patients_N, single, **grouping)
    return CheckRows({"embeddings": rows, "projection": points}, notes)


def _device(cohort: Cohort, column: str) -> Attribute:
    """Make a device column into groups that a probe can predict."""
    device_N = device_of(cohort, column)
    codes_N = np.where(np.isnan(device_N), 2, np.where(device_N == 1, 1, 0)).astype(np.int16)
    return Attribute(column, ("without", "with", MISSING), codes_N)


def probe(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attribute: Attribute,
    *,
    kinds: Sequence[Kind] = ("logistic", "mlp"),
    num_permutations: int = 200,
    num_replicates: int = 1000,
    fewest: int = FEWEST_PATIENTS,
    most: int = MOST,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Predict an attribute from frozen embeddings, patients being kept apart, and compare with chance.

    Five folds of whole patients; dimensions are standardised on the training part. "logistic": L2-regularised logistic
    regression, C chosen by an inner cross-validation over patients; "mlp": one hidden layer of 64 units, weight decay
    1, 60 epochs of Adam. Intervals resample patients with the held-out predictions fixed. Chance is measured with a
    ridge probe on the same folds, refitted to labels dealt anew among patients: its p stands beside the logistic
    probe's AUROC.

    Args:
        vectors_ND: Unit vectors; rows of NaN are left out.
        patients_N: Patient of each row.
        attribute: Attribute that is predicted.
        kinds: Kinds of probes.
        num_permutations: Number of permutations of the attribute over patients.
        num_replicates: Number of resamples of the bootstrap.
        fewest: Patients that a group needs; smaller ones are left out and named.
        most: Number of rows above which whole patients are drawn.
        seed: Seed of folds, draws and the network.

    Returns:
        Rows of the table `embeddings`, `what` "probe": macro AUROC (0.5 is chance) and balanced accuracy of each kind,
        the ridge probe and its permutation baseline. One row without a value where fewer than two groups are large
        enough.

    Reference: Glocker et al., Algorithmic encoding of protected characteristics in chest X-ray disease detection
    models, eBioMedicine 89 (2023) 104467; Ojala & Garriga, Permutation tests for studying classifier performance,
    JMLR 11 (2010).
    """
    data = grouped(vectors_ND, patients_N, attribute, most=most, seed=seed, fewest=fewest)
    if len(data.groups) < 2:
        note = f"Not probed: fewer than two groups are large enough. {data.note}".strip()
        return [row("probe", attribute.name, "macro AUROC", note=note)]
    with threadpool_limits(
        1
    ):  # results do not depend on the cores, and on busy ones small fits take a tenth of the time
        return _probed(data, attribute.name, kinds, num_permutations, num_replicates, seed)


def _probed(
    data: Grouped,
    name: str,
    kinds: Sequence[Kind],
    num_permutations: int,
    num_replicates: int,
    seed: int,
) -> list[dict[str, Any]]:
    folds = patient_folds(data.codes_n, data.patients_n, FOLDS, seed)
    ridge = RidgeProbe(data.vectors_nD, folds)
    observed = float(ridge.auroc(data.codes_n[None], len(data.groups))[0])
    null_R = ridge.auroc(shuffled(data.codes_n, data.patients_n, num_permutations, seed=seed), len(data.groups))
    p = p_value(observed, null_R)
    scope = f"{about(len(data.codes_n))} images, {', '.join(data.groups)}. {data.note}".strip()
    weights_PB = draw_weights(int(data.patients_n.max()) + 1, num_replicates, seed=seed)
    rows = []
    for kind in kinds:
        area, recall = _measured(data, held_out(data, folds, kind, seed), weights_PB)
        tested_by = "p of the ridge probe" if kind == "logistic" else "no test of its own"
        tested = p if kind == "logistic" else math.nan
        rows += [
            row("probe", name, f"{kind}: macro AUROC", area, p=tested, note=f"{tested_by}; {scope}"),
            row("probe", name, f"{kind}: balanced accuracy", recall, note=f"chance {chance(data):.3g}"),
        ]
    return [
        *rows,
        row("probe", name, "ridge: macro AUROC", observed, p=p, note="the figure that is tested"),
        row(
            "probe",
            name,
            "permutation baseline: macro AUROC",
            Estimate(float(np.nanmean(null_R)), *percentile(null_R)),
            note=f"ridge probe, {num_permutations} permutations of the attribute over patients",
        ),
    ]


def chance(data: Grouped) -> float:
    """Return the balanced accuracy of guessing."""
    return 1 / len(data.groups)


def held_out(data: Grouped, folds: list[NDArray], kind: Kind, seed: int) -> NDArray[np.float64]:
    """Return each row's probabilities by a probe that has not seen its patient, [n, C]."""
    scores = np.zeros((len(data.codes_n), len(data.groups)))
    every = np.arange(len(data.codes_n))
    for test in folds:
        train = np.setdiff1d(every, test)
        learned, tested = standardised(data.vectors_nD[train], data.vectors_nD[test])
        codes = data.codes_n[train]
        if kind == "logistic":
            best = _best_c(learned, codes, data.patients_n[train], seed)
            fitted: Any = LogisticRegression(C=best, max_iter=1000)
        else:
            fitted = MLPClassifier((_HIDDEN,), alpha=_DECAY, max_iter=_EPOCHS, random_state=seed)
        _fit(fitted, learned, codes)
        scores[np.ix_(test, fitted.classes_)] = fitted.predict_proba(tested)
    return scores


def _best_c(taught: NDArray[np.float64], codes: NDArray[np.int64], patients: NDArray[np.int64], seed: int) -> float:
    """Return the C with the best log-likelihood on inner folds; of equals the smallest."""
    inner = patient_folds(codes, patients, _INNER, seed)
    every = np.arange(len(codes))
    losses = []
    for c in GRID:
        loss = 0.0
        for test in inner:
            train = np.setdiff1d(every, test)
            fitted = LogisticRegression(C=c, max_iter=1000)
            _fit(fitted, taught[train], codes[train])
            places = np.searchsorted(fitted.classes_, codes[test])
            present = (places < len(fitted.classes_)) & (
                fitted.classes_[np.minimum(places, len(fitted.classes_) - 1)] == codes[test]
            )
            given = fitted.predict_proba(taught[test][present])[np.arange(int(present.sum())), places[present]]
            loss -= float(np.log(np.maximum(given, 1e-12)).sum())
        losses.append(loss)
    return GRID[int(np.argmin(losses))]


def _fit(fitted: Any, taught: NDArray[np.float64], codes: NDArray[np.int64]) -> None:
    """Fit; that a probe stops before it has converged is how it is set up, and no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(taught, codes)


def _measured(
    data: Grouped, scores_nC: NDArray[np.float64], weights_PB: NDArray[np.integer]
) -> tuple[Estimate, Estimate]:
    """Measure macro AUROC and balanced accuracy with their intervals."""
    test = HeldOut(data.codes_n, data.patients_n, len(data.groups))
    logits_nC = np.log(np.maximum(scores_nC, 1e-300))
    replicates = figures(logits_nC[None], test, weights_PB, ("macro_auroc", "balanced_accuracy"))
    return interval_of(replicates["macro_auroc"]), interval_of(replicates["balanced_accuracy"])

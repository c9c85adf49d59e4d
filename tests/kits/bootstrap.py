"""Cohorts made by code, and the long way round: repeat the rows of the drawn patients and call scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from medclip.statistics.cohort import Attribute, Cohort, Label, cell_rows, cells_of


def cohort_of(
    score: Any, truth: Any, patients: Any = None, groups: dict[str, Any] | None = None, **label: Any
) -> tuple[Cohort, Label]:
    """Make a cohort of one label; groups are given as a list of texts for each attribute."""
    made = Label("finding", np.asarray(score, float), np.asarray(truth, float), **label)
    ids = np.arange(len(made.score_N)) if patients is None else np.asarray(patients)
    attributes = []
    for name, values in (groups or {}).items():
        names, codes = np.unique(np.asarray(values), return_inverse=True)
        attributes.append(Attribute(name, tuple(map(str, names)), codes.astype(np.int16)))
    return Cohort(ids.astype(np.int32), (made,), tuple(attributes)), made


def random_cohort(
    rng: np.random.Generator, num_patients: int, *, levels: int = 20, **label: Any
) -> tuple[Cohort, Label]:
    """Make patients with 1 to 4 images each, tied scores, unknown truths, and two attributes."""
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 5, num_patients))
    num = len(patients)
    truth = (rng.random(num) < 0.4).astype(float)
    score = rng.integers(0, levels + 1, num) / levels
    truth[rng.random(num) < 0.1] = np.nan
    score[rng.random(num) < 0.05] = np.nan
    groups = {"sex": rng.choice(["F", "M"], num_patients)[patients], "age": rng.choice(["old", "mid", "young"], num)}
    return cohort_of(score, truth, patients, groups, **label)


def ece_by_loop(truth: NDArray[Any], score: NDArray[Any], edges: NDArray[Any]) -> float:
    """Sum |mean truth − mean score| × share of rows over bins (low, high]; the first bin takes 0 too."""
    total = 0.0
    lows = np.r_[-np.inf, edges]
    for low, high in zip(lows, np.r_[edges, np.inf], strict=True):
        inside = (score > low) & (score <= high)
        if inside.any():
            total += abs(truth[inside].mean() - score[inside].mean()) * inside.mean()
    return total


def by_repetition(cohort: Cohort, label: Label, weights_P: NDArray[Any], threshold: float) -> dict[str, list[float]]:
    """Give every metric of every cell for one resample, from scikit-learn on literally repeated rows."""
    repeats = weights_P[cohort.patients_N]
    found: dict[str, list[float]] = {}
    valid_score = label.score_N[label.valid_N]
    edges = np.quantile(valid_score, np.arange(1, 15) / 15, method="inverted_cdf") if len(valid_score) else np.zeros(14)
    cells = cells_of(cohort)
    for cell in cells:
        inside = cell_rows(cohort, cell) & label.valid_N
        rows = np.repeat(np.flatnonzero(inside), repeats[inside])
        other = ~cell_rows(cohort, cell) & label.valid_N
        others = np.repeat(np.flatnonzero(other), repeats[other])
        y, s = label.truth_N[rows], label.score_N[rows]
        values = _of_rows(y, s, threshold, edges)
        under, over = ("fpr", "fnr") if label.no_finding else ("fnr", "fpr")
        values |= {"underdiagnosis": values[under], "overdiagnosis": values[over]}
        first = cell.position[0] < 0
        values["auroc_bpsn"] = np.nan if first else _cross(label, others, rows)
        values["auroc_bnsp"] = np.nan if first else _cross(label, rows, others)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def _cross(label: Label, positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    rows = np.r_[positives[label.truth_N[positives] == 1], negatives[label.truth_N[negatives] == 0]]
    y = label.truth_N[rows]
    return float(sk.roc_auc_score(y, label.score_N[rows])) if 0 < y.sum() < len(y) else np.nan


def _of_rows(y: NDArray[Any], s: NDArray[Any], threshold: float, edges: NDArray[Any]) -> dict[str, float]:
    names = ("prevalence", "auroc", "auprc", "auprc_adjusted", "tpr", "fpr", "fnr", "tnr", "ppv", "npv")
    names += ("selection_rate", "accuracy", "f1", "brier", "ece", "ece_mass", "net_benefit")
    names += ("observed_expected",)
    values = dict.fromkeys(names, np.nan)
    if not len(y):
        return values
    called = s >= threshold
    (tn, fp), (fn, tp) = sk.confusion_matrix(y, called, labels=[0, 1])
    values["prevalence"], values["selection_rate"] = y.mean(), called.mean()
    values["accuracy"], values["brier"] = sk.accuracy_score(y, called), ((y - s) ** 2).mean()
    values["ece"], values["ece_mass"] = ece_by_loop(y, s, np.arange(1, 15) / 15), ece_by_loop(y, s, edges)
    values["observed_expected"] = y.sum() / s.sum() if s.sum() else np.nan
    values["net_benefit"] = tp / len(y) - fp / len(y) * threshold / (1 - threshold)
    for name, top, bottom in (
        ("tpr", tp, tp + fn),
        ("fnr", fn, tp + fn),
        ("fpr", fp, fp + tn),
        ("tnr", tn, fp + tn),
        ("ppv", tp, tp + fp),
        ("npv", tn, tn + fn),
    ):
        values[name] = top / bottom if bottom else np.nan
    if tp + fp + fn:
        values["f1"] = sk.f1_score(y, called)
    if y.any():
        values["auprc"] = sk.average_precision_score(y, s)
    if 0 < y.mean() < 1:
        values["auroc"] = sk.roc_auc_score(y, s)
        values["auprc_adjusted"] = 1 - np.log(values["auprc"]) / np.log(values["prevalence"])
    return values

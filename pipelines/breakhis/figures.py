"""Answers to BreakHis measured: by image, by patient, and by patient's decision, with intervals over patients.

The **patient recognition rate** is the mean over patients of the share of a patient's images that are right: each
patient counts once. The **patient decision** is another thing: the mean of the probabilities of a patient's images is
one answer, right or wrong. Where every patient has as many images as the others, the first is the image rate.

All figures of one set of test images have the same 2,000 resamples of patients, so that two models are compared pair by
pair (`medclip.statistics`).

Reference: Spanhol et al., IEEE TBME 63 (2016) 1455-1462, for the patient score and the recognition rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from medclip.auditing.thresholds.choose import Policy, choose
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.estimate import NUM_RESAMPLES, Estimate
from medclip.statistics.metrics.calibration import chosen_class
from medclip.statistics.metrics.classification import HeldOut, figures, numbered
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import estimates, value_of
from medclip.statistics.resampling.resampled import Resampled, interval_of, share
from medclip.statistics.resampling.standard_errors import clusters_of, effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.statistics.resampling.weights import draw_weights

Floats = NDArray[np.float64]

RATES: Mapping[str, str] = {
    "image_rate": "image rate",
    "prr": "patient recognition rate",
    "patient_accuracy": "patient decision right",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUC, images",
    "patient_auroc": "AUC, patients",
    "sensitivity": "sensitivity, locked",
    "specificity": "specificity, locked",
}
"""What is measured of each model, in the order of the table; the calibration error stands beside."""
ECE = "ece"
LOCK = Policy("youden")
"""The threshold of malignant is that with the largest sensitivity + specificity − 1 on the validation patients."""


@dataclass(frozen=True, eq=False)
class Tested:
    """The answers of one way to all images that are tested; an image stands as often as it was tested."""

    patients: tuple[str, ...]
    truth_N: NDArray[np.int64]
    """Number of the class."""
    scores_NC: Floats
    """Log probabilities, or other scores whose highest is the answer."""
    locked_N: Floats | None = None
    """Of two classes: the threshold of the second one's lead (score 1 less score 0) that was chosen on the validation
    patients of the image's division; NaN where none could be."""
    division_N: NDArray[np.int64] | None = None
    """Which of several divisions tested the image; None where there is one."""
    probability: bool = True
    """Whether scores are log probabilities: without them no calibration, and no mean of probabilities."""

    @property
    def lead_N(self) -> Floats:
        """Of two classes: by how much the second is ahead; log odds where scores are log probabilities."""
        return self.scores_NC[:, 1] - self.scores_NC[:, 0]

    def of(self, rows: NDArray[Any]) -> Tested:
        """Return some of the images, such as those of one magnification."""
        kept = np.arange(len(self.truth_N))[rows]
        take = lambda values: None if values is None else values[kept]  # noqa: E731
        return Tested(
            tuple(self.patients[i] for i in kept),
            self.truth_N[kept],
            self.scores_NC[kept],
            take(self.locked_N),
            take(self.division_N),
            self.probability,
        )


def joint_binary(log_p_NC: Floats, num_benign: int) -> Floats:
    """Return benign and malignant log probabilities of the answers of eight classes: the joint head.

    The logit of malignant is the log-sum-exp of the malignant classes less that of the benign ones, so that its
    probability is the sum of theirs.

    Args:
        log_p_NC: Log probabilities or logits; the first `num_benign` classes are benign.
        num_benign: How many.
    """
    sides = [np.asarray(logsumexp(part, axis=1)) for part in (log_p_NC[:, :num_benign], log_p_NC[:, num_benign:])]
    both_N2 = np.stack(sides, axis=1)
    return both_N2 - logsumexp(both_N2, axis=1, keepdims=True)


def lock_threshold(lead_N: Floats, truth_N: NDArray[np.int64]) -> float:
    """Choose the threshold of malignant on validation patients; NaN where one class is missing or it is no better
    than chance.
    """
    try:
        return choose(Label("malignant", lead_N, truth_N.astype(np.float64), probability=False), LOCK)
    except MedclipError:
        return float("nan")


def by_patient(tested: Tested) -> Tested:
    """Return one answer for each patient, label and division: the mean of the probabilities of the images.

    Scores that are no probabilities are averaged as they are. A patient with images of two labels has two answers.
    """
    divisions = np.zeros(len(tested.truth_N), np.int64) if tested.division_N is None else tested.division_N
    keys = list(zip(tested.patients, tested.truth_N.tolist(), divisions.tolist(), strict=True))
    places = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    place_N = np.array([places[key] for key in keys])
    values_NC = np.exp(tested.scores_NC) if tested.probability else tested.scores_NC
    sums_PC = np.zeros((len(places), values_NC.shape[1]))
    np.add.at(sums_PC, place_N, values_NC)
    means_PC = sums_PC / np.bincount(place_N)[:, None]
    scores_PC = np.log(np.clip(means_PC, 1e-300, None)) if tested.probability else means_PC
    truth_P = np.array([truth for _, truth, _ in places], np.int64)
    return Tested(tuple(p for p, _, _ in places), truth_P, scores_PC, probability=tested.probability)


def patient_scores(right_N: NDArray[np.bool_], numbers_N: NDArray[np.int64]) -> Floats:
    """Return S_P of each patient: right images over all images."""
    return np.bincount(numbers_N, right_N) / np.bincount(numbers_N)


def measure_tested(tested: Tested, *, num_resamples: int = NUM_RESAMPLES) -> dict[str, Resampled]:
    """Measure one way; by the names of `RATES`, without those that are not defined.

    Args:
        tested: Its answers.
        num_resamples: Of patients.

    Returns:
        Figures with their resamples: `interval_of(one)`, and `difference(one, other)` of two ways with the same images.
    """
    numbers_N = numbered(tested.patients)
    weights_PB = draw_weights(int(numbers_N.max()) + 1, num_resamples, seed=0)
    num_classes = tested.scores_NC.shape[1]
    area = "auroc" if num_classes == 2 else "macro_auroc"
    names = ["accuracy", "balanced_accuracy", "macro_f1", area]
    of_images = figures(tested.scores_NC[None], HeldOut(tested.truth_N, numbers_N, num_classes), weights_PB, names)
    patients = by_patient(tested)
    held = HeldOut(patients.truth_N, numbered(patients.patients), num_classes)
    of_patients = figures(patients.scores_NC[None], held, weights_PB, ["accuracy", area])
    scores_P = patient_scores(tested.scores_NC.argmax(axis=1) == tested.truth_N, numbers_N)
    point_1, drawn_1B = ratios(np.arange(len(scores_P)), weights_PB, scores_P[None], np.ones((1, len(scores_P))))
    prr = share(float(point_1[0]), drawn_1B[0], cases=len(scores_P), patients=len(scores_P))
    measured = {
        "image_rate": of_images.get("accuracy"),
        "prr": prr,
        "patient_accuracy": of_patients.get("accuracy"),
        "balanced_accuracy": of_images.get("balanced_accuracy"),
        "macro_f1": of_images.get("macro_f1"),
        "auroc": of_images.get(area),
        "patient_auroc": of_patients.get(area),
    } | _locked(tested, numbers_N, weights_PB)
    return {name: measured[name] for name in RATES if measured.get(name) is not None}  # type: ignore[misc]


def _locked(tested: Tested, numbers_N: NDArray[np.int64], weights_PB: NDArray[Any]) -> dict[str, Resampled]:
    """Measure sensitivity and specificity for malignant at thresholds that other patients chose."""
    if tested.locked_N is None or tested.scores_NC.shape[1] != 2:
        return {}
    known_N = ~np.isnan(tested.locked_N)
    called_N = tested.lead_N >= tested.locked_N
    rates = {}
    for name, side, right_N in (("sensitivity", 1, called_N), ("specificity", 0, ~called_N)):
        rows = np.flatnonzero(known_N & (tested.truth_N == side))
        if len(rows):
            point_1, drawn_1B = ratios(numbers_N[rows], weights_PB, right_N[None, rows] * 1.0, np.ones((1, len(rows))))
            patients = effective_patients(numbers_N[rows])
            rates[name] = share(float(point_1[0]), drawn_1B[0], cases=len(rows), patients=patients)
    return rates


def calibration(tested: Tested, *, num_resamples: int = NUM_RESAMPLES) -> Estimate | None:
    """Measure the calibration error of malignant, or (more than two classes) of the answer that is chosen.

    Returns:
        With what chance adds taken off, and its interval; None for scores that are no probabilities.
    """
    if not tested.probability:
        return None
    p_NC = np.exp(tested.scores_NC)
    if p_NC.shape[1] == 2:
        score_N, outcome_N = p_NC[:, 1], (tested.truth_N == 1).astype(np.float64)
    else:
        score_N, outcome_N = chosen_class(p_NC, tested.truth_N)
    label = Label(ECE, np.clip(score_N, 0, 1), outcome_N)
    cohort = Cohort(numbered(tested.patients).astype(np.int32), (label,), ())
    weights_PB = draw_weights(cohort.num_patients, num_resamples, seed=0)
    replicates = evaluate(cohort, label, weights_PB, metrics=[ECE])
    estimate = estimates(replicates, ECE, clusters_of(cohort, label))[0]
    return replace(estimate, value=float(value_of(replicates, ECE)[0]))


def confusion(tested: Tested) -> NDArray[np.int64]:
    """Count images by truth (rows) and answer (columns)."""
    num = tested.scores_NC.shape[1]
    cells = tested.truth_N * num + tested.scores_NC.argmax(axis=1)
    return np.bincount(cells, minlength=num * num).reshape(num, num)


def summarise(tested: Tested, *, num_resamples: int = NUM_RESAMPLES) -> dict[str, dict[str, float]]:
    """Return all figures of one way as numbers for JSON: value, low and high by name."""
    ways = {name: interval_of(one) for name, one in measure_tested(tested, num_resamples=num_resamples).items()}
    error = calibration(tested, num_resamples=num_resamples)
    return {name: numbers_of(one) for name, one in (ways | ({} if error is None else {ECE: error})).items()}


def numbers_of(estimate: Estimate) -> dict[str, float]:
    """Return an estimate as rounded numbers for JSON, without ends where it has none."""
    named = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: round(float(value), 4) for name, value in named.items() if not np.isnan(value)}


def written(numbers: Mapping[str, float] | None, digits: int = 3) -> str:
    """Write such numbers for a table; blank where there are none."""
    if not numbers:
        return ""
    ends = f" ({numbers['low']:.{digits}f}–{numbers['high']:.{digits}f})" if "low" in numbers else ""
    return f"{numbers['value']:.{digits}f}{ends}".replace("-", "−")


def joined(parts: Sequence[Tested]) -> Tested:
    """Join what the divisions tested, each by its own model."""
    locked = [p.locked_N for p in parts]
    number = [np.full(len(p.truth_N), n, np.int64) for n, p in enumerate(parts)]
    return Tested(
        tuple(patient for p in parts for patient in p.patients),
        np.concatenate([p.truth_N for p in parts]),
        np.concatenate([p.scores_NC for p in parts]),
        None if any(part is None for part in locked) else np.concatenate([np.asarray(part) for part in locked]),
        np.concatenate(number),
        all(p.probability for p in parts),
    )


def averaged(parts: Sequence[Tested]) -> Tested:
    """Average what several models say of the same images: probabilities, and thresholds of the log odds."""
    first = parts[0]
    if not first.probability:
        return replace(first, scores_NC=np.mean([p.scores_NC for p in parts], axis=0), locked_N=_mean_lock(parts))
    p_NC = np.mean([np.exp(p.scores_NC) for p in parts], axis=0)
    return replace(first, scores_NC=np.log(np.clip(p_NC, 1e-300, None)), locked_N=_mean_lock(parts))


def _mean_lock(parts: Sequence[Tested]) -> Floats | None:
    locked = [p.locked_N for p in parts if p.locked_N is not None]
    return np.mean(locked, axis=0) if len(locked) == len(parts) else None

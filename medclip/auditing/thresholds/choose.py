"""Thresholds: chosen by a named rule on one set of patients, to be used on another.

A row is called positive where its score is at or above the threshold. One threshold holds for all groups: fitting one
for each group would hide what differs between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.thresholds.cohort_fingerprint import fingerprint
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label

Floats = NDArray[np.float64]

POLICIES: Mapping[str, str] = {
    "youden": "the threshold with the largest sensitivity + specificity − 1 (Youden, Cancer 3 (1950) 32-35)",
    "f1": "the threshold with the largest F1, the harmonic mean of sensitivity and positive predictive value",
    "sensitivity": "the largest threshold whose sensitivity is at least the stated one",
    "specificity": "the smallest threshold whose specificity is at least the stated one",
    "fixed": "the stated threshold, chosen by nobody here",
}
"""What each rule chooses. The last three are written with a number: `sensitivity=0.9`."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Policy:
    """A rule and its number."""

    name: str
    """One of `POLICIES`."""
    target: float | None = None
    """The sensitivity, the specificity or the threshold that was asked for."""

    @staticmethod
    def parse(text: str) -> Policy:
        """Read "youden", "f1", "sensitivity=0.9", "specificity=0.95" or "fixed=0.5".

        Raises:
            MedclipError: WRONG_USE for anything else.
        """
        name, _, number = text.strip().lower().partition("=")
        try:
            target = float(number) if number else None
        except ValueError:
            target = math.nan
        if name not in POLICIES or (target is None) != (name in ("youden", "f1")) or not _allowed(name, target):
            raise MedclipError(
                Reason.WRONG_USE,
                f"{text!r} is no rule for choosing a threshold.",
                hint="There are: youden, f1, sensitivity=0.9, specificity=0.95, fixed=0.5 (with numbers of your own).",
            )
        return Policy(name, target)

    def __str__(self) -> str:
        """Write what `parse` reads."""
        return self.name if self.target is None else f"{self.name}={self.target:g}"


@dataclass(frozen=True)
class Threshold:
    """One threshold and where it comes from."""

    label: str
    value: float
    policy: str
    """As `Policy.parse` reads it."""
    chosen_on: str
    """What the user calls the data; "given" for a fixed one."""
    n: int
    """Rows with a score and a truth."""
    n_pos: int
    n_patients: int
    data_hash: str
    """sha256 of all rows of the data it was chosen on, whatever their order; blank for a fixed one."""
    patients_hash: str
    """sha256 of all patients of that data; blank where the data names none."""

    def row(self, model: str) -> dict[str, object]:
        """Return the row of the table of thresholds."""
        return {"model": model, **asdict(self), "hash": self.data_hash}


def choose(label: Label, policy: Policy) -> float:
    """Choose the threshold of one label.

    Args:
        label: Scores and truths. Rows without one of them never count.
        policy: The rule.

    Returns:
        A value of the score, unless the policy is "fixed".

    Raises:
        MedclipError: WRONG_USE where there is one class only, the label is a time to an event, or no threshold does
            what the policy asks.
    """
    if policy.name == "fixed":
        return float(policy.target or 0.0)
    if label.time_N is not None:
        raise MedclipError(
            Reason.WRONG_USE, f"{label.name!r} is a time to an event, which has no threshold.", hint="Name a horizon."
        )
    rows, weight_N = label.valid_N, label.weight_N
    if weight_N is not None:
        rows = rows & (weight_N > 0)
    score, truth = label.score_N[rows], label.truth_N[rows]
    if truth.min(initial=1) == truth.max(initial=0):
        raise MedclipError(
            Reason.WRONG_USE, f"no threshold can be chosen for {label.name!r}: its rows are all of one class."
        )
    weight = None if weight_N is None else weight_N[rows]
    value = _best_f1(truth, score, weight) if policy.name == "f1" else _on_curve(truth, score, weight, policy)
    if not math.isfinite(value):
        raise MedclipError(
            Reason.WRONG_USE,
            f"no threshold of {label.name!r} "
            + ("does better than chance." if policy.name == "youden" else f"reaches {policy}."),
        )
    return value


def choose_all(cohort: Cohort, policy: Policy, name: str) -> tuple[dict[str, Threshold], tuple[str, ...]]:
    """Choose a threshold for every label, over all groups together.

    Args:
        cohort: Cohort to choose on; never the audited one (`cohort_fingerprint.refuse_same_data`).
        policy: The rule.
        name: Name of this data, which is written down.

    Returns:
        Thresholds by label, and a sentence for each label that has none.
    """
    chosen: dict[str, Threshold] = {}
    notes: list[str] = []
    given = policy.name == "fixed"
    data = fingerprint(cohort)
    for label in cohort.labels:
        try:
            value = choose(label, policy)
        except MedclipError as e:
            notes.append(f"No threshold for {label.name}: {e}")
            continue
        rows = label.valid_N & (not given)
        chosen[label.name] = Threshold(
            label.name,
            value,
            str(policy),
            "given" if given else name,
            int(rows.sum()),
            int(label.truth_N[rows].sum()),
            len(np.unique(cohort.patients_N[rows])),
            "" if given else data.rows,
            "" if given else data.patients,
        )
    return chosen, tuple(notes)


def _allowed(name: str, target: float | None) -> bool:
    if target is None:
        return True
    return math.isfinite(target) and (name == "fixed" or 0 < target <= 1)


def _on_curve(truth: Floats, score: Floats, weight: Floats | None, policy: Policy) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, values = roc_curve(truth, score, sample_weight=weight, drop_intermediate=policy.name == "youden")
    if policy.name == "youden":
        return float(values[np.argmax(tpr - fpr)])
    if policy.name == "sensitivity":
        return float(values[np.argmax(tpr >= (policy.target or 0) - _ROUNDING)])
    return float(values[np.flatnonzero(1 - fpr >= (policy.target or 0) - _ROUNDING)[-1]])


def _best_f1(truth: Floats, score: Floats, weight: Floats | None) -> float:
    from sklearn.metrics import precision_recall_curve

    precision, recall, values = precision_recall_curve(truth, score, sample_weight=weight)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(values[np.argmax(f1[: len(values)])])

"""Thresholds: chosen by a named rule on one set of patients, to be used on another.

A row is called positive where its score is at or above the threshold. One threshold holds for all groups; thresholds by
group are an analysis (`by_group`), because fitting them hides what differs between the groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.leakage.cohort_fingerprint import fingerprint
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label

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
        return {
            "model": model,
            "label": self.label,
            "value": self.value,
            "policy": self.policy,
            "chosen_on": self.chosen_on,
            "n": self.n,
            "n_pos": self.n_pos,
            "n_patients": self.n_patients,
            "hash": self.data_hash,
        }


def choose(
    label: Label, policy: Policy, rows_N: NDArray[np.bool_] | None = None, weight_N: Floats | None = None
) -> float:
    """Choose the threshold of one label.

    Args:
        label: Scores and truths.
        policy: The rule.
        rows_N: Which rows to choose on; all by default. Rows without a score or a truth never count.
        weight_N: How much each row counts, in place of the label's own weights (for replicates).

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
    rows = label.valid_N if rows_N is None else label.valid_N & rows_N
    weight_N = label.weight_N if weight_N is None else weight_N
    if weight_N is not None:
        rows &= weight_N > 0
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
        cohort: The data to choose on; never the audited data (`fingerprint.refuse_same_data`).
        policy: The rule.
        name: What the user calls this data; it is written down.

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


def by_group(
    cohort: Cohort,
    label: Label,
    policy: Policy,
    attribute: Attribute,
    *,
    shown: NDArray[np.bool_],
    weights_PB: NDArray | None = None,
) -> list[dict[str, object]]:
    """Ask which threshold each group by itself would have got, and how far they lie apart. An analysis, not for use.

    Args:
        cohort: The data.
        label: One of its labels.
        policy: The rule.
        attribute: One of its attributes.
        shown: Which of its groups may be shown.
        weights_PB: How often each patient is drawn in each replicate, for intervals; each replicate chooses anew, so
            200 of them are plenty.

    Returns:
        A row for all ("all"), each shown group in which a threshold exists, and "apart", the largest minus the
        smallest (never below 0: chance alone makes it positive): attribute, group, value, low, high, n, n_pos. An
        interval is NaN without replicates, or where more than a tenth of them have no threshold.
    """
    masks = {"all": np.ones(len(label.score_N), bool)}
    masks |= {g: attribute.codes_N == i for i, g in enumerate(attribute.groups) if shown[i]}
    chosen: dict[str, tuple[float, Floats]] = {}
    own = np.ones(len(label.score_N)) if label.weight_N is None else label.weight_N
    for group, mask in masks.items():
        value = _or_nan(label, policy, mask, None)
        if math.isnan(value):
            continue
        drawn = (
            () if weights_PB is None else (own * weights_PB[cohort.patients_N, b] for b in range(weights_PB.shape[1]))
        )
        chosen[group] = value, np.array([_or_nan(label, policy, mask, w) for w in drawn])
    if len(chosen) > 2:
        groups = [v for g, v in chosen.items() if g != "all"]
        chosen["apart"] = float(np.ptp([v for v, _ in groups])), np.ptp([d for _, d in groups], axis=0)
    rows = []
    for group, (value, drawn_B) in chosen.items():
        mask = label.valid_N & masks.get(group, masks["all"])
        known = drawn_B[~np.isnan(drawn_B)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) > 0.9 * len(drawn_B) else (math.nan, math.nan)
        rows.append(
            {
                "attribute": attribute.name,
                "group": group,
                "value": value,
                "low": float(low),
                "high": float(high),
                "n": int(mask.sum()),
                "n_pos": int(label.truth_N[mask].sum()),
            }
        )
    return rows


def _or_nan(label: Label, policy: Policy, mask: NDArray[np.bool_], weight: Floats | None) -> float:
    try:
        return choose(label, policy, mask, weight)
    except MedclipError:
        return math.nan


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

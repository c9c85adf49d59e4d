"""Thresholds: chosen by a named rule on one set of patients, to be used on another.

A row is called positive where its score is at or above the threshold. One threshold holds for all groups: fitting one
for each group would hide what differs between them.

thresholds.json holds them with where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medclip.auditing.thresholds.cohort_fingerprint import fingerprint, refuse_hashes
from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.schema_faults import faults_of
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


FORMAT = 1
_HASH = r"^([0-9a-f]{64})?$"
_Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class _Entry(_Strict):
    """A `Threshold`, with the names of its hashes in the file."""

    label: Annotated[str, Field(min_length=1)]
    value: float
    policy: str
    chosen_on: str
    n: _Count
    n_pos: _Count
    n_patients: _Count
    data_hash: str = Field(pattern=_HASH, alias="data_sha256")
    patients_hash: str = Field(pattern=_HASH, alias="patients_sha256")


class _File(_Strict):
    format: Literal[1]
    thresholds: list[_Entry]


def write_thresholds(path: Path, thresholds: Iterable[Threshold]) -> None:
    """Write thresholds; the same ones give the same bytes.

    Args:
        path: The file; what was there is replaced.
        thresholds: Thresholds in any order; each label once.

    Raises:
        MedclipError: DISK_FULL, WRONG_USE where the file cannot be written.
    """
    entries = [_Entry(**asdict(t)) for t in sorted(thresholds, key=lambda t: t.label)]
    write_file(path, _File(format=FORMAT, thresholds=entries).model_dump_json(indent=1, by_alias=True) + "\n")


def read_thresholds(path: Path) -> dict[str, Threshold]:
    """Read thresholds, by label.

    Raises:
        MedclipError: MISSING_FILE or TABLE_INVALID, in one sentence.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
        for entry in file.thresholds:
            _consistent(entry)
    except FileNotFoundError as e:
        raise MedclipError(Reason.MISSING_FILE, "there is no such file of thresholds.", where=path) from e
    except OSError as e:
        raise MedclipError(Reason.TABLE_INVALID, f"the thresholds cannot be read ({e.strerror}).", where=path) from e
    except ValidationError as e:
        raise _damaged(path, faults_of(e, _File, "a file of thresholds")[0]) from e
    except MedclipError as e:
        raise _damaged(path, e.message.rstrip(".")) from e
    thresholds = {entry.label: Threshold(**entry.model_dump()) for entry in file.thresholds}
    if len(thresholds) < len(file.thresholds):
        raise _damaged(path, "a label is in it twice")
    return thresholds


def thresholds_for(
    thresholds: Mapping[str, Threshold], cohort: Cohort, where: object = None
) -> tuple[dict[str, Threshold], tuple[str, ...]]:
    """Return the thresholds that can be used on a cohort, and refuse those that were chosen on it.

    Returns:
        Thresholds of the cohort's labels, sentences: each label that has none, and what a file cannot tell.

    Raises:
        MedclipError: PATIENT_OVERLAP where one was chosen on the same rows or the same patients; WRONG_USE where one
            lies outside 0 to 1 and the scores are probabilities.
    """
    used: dict[str, Threshold] = {}
    notes: list[str] = []
    checked: set[tuple[str, str]] = set()
    for label in cohort.labels:
        threshold = thresholds.get(label.name)
        if threshold is None:
            notes.append(f"No threshold for {label.name}: the file of thresholds does not name it.")
            continue
        if label.probability and not 0 <= threshold.value <= 1:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the threshold of {label.name!r} is {threshold.value:g}, but its scores are probabilities.",
                where=where,
            )
        hashes = (threshold.data_hash, threshold.patients_hash)
        if hashes not in checked:
            refuse_hashes(*hashes, cohort, where)
            checked.add(hashes)
        used[label.name] = threshold
    if any(t.data_hash for t in used.values()):
        notes.append(
            "The thresholds come from a file. They were chosen on other data than all that is audited; whether some "
            "patients are in both is not known."
        )
    return used, tuple(notes)


def _consistent(entry: _Entry) -> None:
    policy = Policy.parse(entry.policy)
    if policy.name == "fixed":
        if not math.isclose(entry.value, policy.target or 0.0, rel_tol=1e-5):
            raise MedclipError(Reason.TABLE_INVALID, "a fixed threshold has another value than its policy.")
    elif not entry.data_hash or not 0 < entry.n_pos < entry.n or not 0 < entry.n_patients <= entry.n:
        raise MedclipError(Reason.TABLE_INVALID, "a threshold does not say which data chose it.")


def _damaged(path: Path, why: str) -> MedclipError:
    return MedclipError(
        Reason.TABLE_INVALID,
        f"this is no file of thresholds, or it is damaged ({why}).",
        where=path,
        hint="Choose them again.",
    )

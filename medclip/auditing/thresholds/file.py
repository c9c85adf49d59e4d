"""thresholds.json: thresholds with where they come from, written down and read again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medclip.auditing.thresholds.choose import Policy, Threshold
from medclip.auditing.thresholds.cohort_fingerprint import refuse_hashes
from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.schema_faults import faults_of
from medclip.statistics.cohort import Cohort

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

    Args:
        thresholds: Thresholds from `read_thresholds`.
        cohort: Cohort that is audited.
        where: File of the thresholds, for messages.

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

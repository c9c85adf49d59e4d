"""Whether two cohorts are the same data: hashes that say so later, and the check that refuses it now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.tables.table import is_blank
from medclip.statistics.cohort import Cohort

_LEAST_VALUES = 20
"""Different scores that a label needs to tell rows apart."""
_LEAST_ROWS = 10
"""Rows of equal content that are needed for a refusal, and ..."""
_LEAST_SHARE = 0.1
"""... their share of the data that is chosen on."""
_OF_CHANCE = 3
"""How many times as many as chance makes they must be, beyond the least."""


@dataclass(frozen=True)
class Fingerprint:
    """Two hashes of a cohort that do not depend on the order of its rows."""

    rows: str
    """sha256 of the sorted keys, or of scores and truths where there are no keys."""
    patients: str
    """sha256 of the sorted patients; blank where the cohort does not name them."""


def fingerprint(cohort: Cohort) -> Fingerprint:
    """Return the hashes of a cohort. They are of everybody at once: no single patient can be looked up by them."""
    rows = _sha256(k.encode("utf-8", "surrogateescape") for k in cohort.keys) if cohort.keys else _by_content(cohort)
    names = _names(cohort)
    return Fingerprint(rows, _sha256(n.encode("utf-8", "surrogateescape") for n in names) if names else "")


def refuse_same_data(chosen: Cohort, audited: Cohort) -> tuple[str, ...]:
    """Refuse to choose on what is audited: no row and no patient may be in both, under whatever name.

    Rows are known by their keys and patients; where these are written in another way, by scores and truths (see
    `_equal_rows`).

    Returns:
        Sentences about what could not be checked.

    Raises:
        MedclipError: PATIENT_OVERLAP, with counts.
    """
    rows = len(set(chosen.keys) & set(audited.keys))
    patients = len(_names(chosen) & _names(audited))
    if not rows and not patients and fingerprint(chosen).rows == fingerprint(audited).rows:
        rows, patients = len(audited.patients_N), audited.num_patients
    if rows or patients:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{patients} of {audited.num_patients} patients and {rows} of {len(audited.patients_N)} rows of the "
            "audited data are also in the data that thresholds are chosen on.",
            hint="Choose on other patients (validation), or give a fixed threshold. If two hospitals number different "
            "patients alike, put the hospital before the number.",
        )
    equal = _equal_rows(chosen, audited)
    if len(equal):
        patients = len(np.unique(audited.patients_N[equal]))
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"{patients} of {audited.num_patients} patients and {len(equal)} of {len(audited.patients_N)} rows of the "
            "audited data are also in the data that thresholds are chosen on, under other names: their scores and "
            "truths are equal to the last digit.",
            hint="Choose on other patients (validation), or give a fixed threshold.",
        )
    if _names(chosen) and _names(audited):
        return ()
    return (
        "Whether patients are in both the data that thresholds were chosen on and the audited data could not be "
        "checked: one of the two does not name them.",
    )


def refuse_hashes(rows: str, patients: str, audited: Cohort, where: object = None) -> None:
    """Refuse what was chosen, some other day, on the very rows or the very patients that are audited now.

    Args:
        rows: Hash of the rows, `Fingerprint.rows`, as it was written down; blank for a fixed threshold.
        patients: Hash of the patients, `Fingerprint.patients`, as it was written down.
        audited: Cohort that is audited.
        where: File that the hashes were written in, for the error.
    """
    here = fingerprint(audited)
    same = "rows" if rows and rows == here.rows else "patients" if patients and patients == here.patients else ""
    if same:
        raise MedclipError(
            Reason.PATIENT_OVERLAP,
            f"these thresholds were chosen on the same {same} that are audited ({len(audited.patients_N)} rows of "
            f"{audited.num_patients} patients).",
            where=where,
            hint="Choose them on other patients.",
        )


def _names(cohort: Cohort) -> set[str]:
    """Return the patients that the table names; a blank is nobody, and so never the same as another blank."""
    return {name for name in set(cohort.identities) if not is_blank(name)}


def _equal_rows(chosen: Cohort, audited: Cohort) -> NDArray[np.intp]:
    """Find the audited rows that are rows of the other data too, by what they hold.

    Of the labels that both have, those with `_LEAST_VALUES` different scores count. A row is the same where no other
    row of either cohort has its scores, and the truths of all labels are equal. Scores that were rounded meet by
    chance: how often they do is known from the pairs of rows inside one cohort that are as equal and whose scores no
    third row has. If rows had been dealt to the cohorts by chance, a pair would lie across with odds of
    2 C A to C (C - 1) + A (A - 1), for C and A rows.

    Returns:
        Those rows; none where they are too few, or no more than chance makes.
    """
    other = {label.name: label for label in chosen.labels}
    shared = [(other[b.name], b) for b in audited.labels if b.name in other]
    scores = [np.concatenate([a.score_N, b.score_N]) for a, b in shared]
    scores = [s for s in scores if len(np.unique(s[~np.isnan(s)])) >= _LEAST_VALUES]
    if not scores:
        return np.zeros(0, np.intp)
    score_N = _numbered(scores)
    truth_N = _numbered([np.concatenate([a.truth_N, b.truth_N]) for a, b in shared])
    rows = np.flatnonzero(~np.isnan(np.stack(scores)).all(axis=0))
    rows = rows[np.argsort(score_N[rows], kind="stable")]
    _, start, times = np.unique(score_N[rows], return_index=True, return_counts=True)
    first, second = rows[start[times == 2]], rows[start[times == 2] + 1]
    alike = truth_N[first] == truth_N[second]
    num_chosen, num_audited = len(chosen.patients_N), len(audited.patients_N)
    across = alike & (first < num_chosen) & (second >= num_chosen)
    odds = 2 * num_chosen * num_audited / max(num_chosen * (num_chosen - 1) + num_audited * (num_audited - 1), 1)
    by_chance = odds * int((alike & ~across).sum())
    least = max(_LEAST_ROWS + _OF_CHANCE * by_chance, _LEAST_SHARE * num_chosen)
    return second[across] - num_chosen if across.sum() >= least else np.zeros(0, np.intp)


def _numbered(columns: list[NDArray[np.float64]]) -> NDArray[np.intp]:
    """Return rows with equal values in all columns one number; NaN equals NaN."""
    number_N = np.zeros(len(columns[0]), np.intp)
    for values_N in columns:
        _, code_N = np.unique(values_N, return_inverse=True, equal_nan=True)
        _, number_N = np.unique(number_N * (int(code_N.max()) + 1) + code_N, return_inverse=True)
    return number_N


def _by_content(cohort: Cohort) -> str:
    columns = [column for label in cohort.labels for column in (label.score_N, label.truth_N)]
    return _sha256(row.tobytes() for row in np.stack(columns, axis=1)) if columns else ""


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in sorted(parts):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()

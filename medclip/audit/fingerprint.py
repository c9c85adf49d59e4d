"""Whether two cohorts are the same data: hashes that say so later, and the check that refuses it now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medclip.audit.cohort import Cohort
from medclip.audit.frames import is_blank
from medclip.errors import MedclipError, Reason


@dataclass(frozen=True)
class Fingerprint:
    """Two hashes of a cohort that do not depend on the order of its rows."""

    rows: str
    """sha256 of the sorted keys, or of scores and truths where there are no keys."""
    patients: str
    """sha256 of the sorted patients; blank where the cohort does not name them."""


def fingerprint(cohort: Cohort) -> Fingerprint:
    """Give the hashes of a cohort. They are of everybody at once: no single patient can be looked up by them."""
    rows = _sha256(k.encode("utf-8", "surrogateescape") for k in cohort.keys) if cohort.keys else _by_content(cohort)
    names = _names(cohort)
    return Fingerprint(rows, _sha256(n.encode("utf-8", "surrogateescape") for n in names) if names else "")


def refuse_same_data(chosen: Cohort, audited: Cohort) -> tuple[str, ...]:
    """Refuse to choose on what is audited: no row and no patient may be in both.

    Args:
        chosen: What thresholds or temperatures are chosen on.
        audited: What they are used on.

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
    if _names(chosen) and _names(audited):
        return ()
    return (
        "Whether patients are in both the data that thresholds were chosen on and the audited data could not be "
        "checked: one of the two does not name them.",
    )


def refuse_hashes(rows: str, patients: str, audited: Cohort, where: object = None) -> None:
    """Refuse what was chosen, some other day, on the very rows or the very patients that are audited now.

    Args:
        rows: `Fingerprint.rows` as it was written down; blank for a fixed threshold.
        patients: `Fingerprint.patients`.
        audited: What is audited.
        where: The file that says so.

    Raises:
        MedclipError: PATIENT_OVERLAP.
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
    """Give the patients that the table names; a blank is nobody, and so never the same as another blank."""
    return {name for name in set(cohort.identities) if not is_blank(name)}


def _by_content(cohort: Cohort) -> str:
    columns = [column for label in cohort.labels for column in (label.score_N, label.truth_N)]
    return _sha256(row.tobytes() for row in np.stack(columns, axis=1)) if columns else ""


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in sorted(parts):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()

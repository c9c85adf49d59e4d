from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medclip.audit.cohort import Cohort
from medclip.audit.fingerprint import fingerprint, refuse_hashes, refuse_same_data
from medclip.errors import MedclipError, Reason
from tests.audit.shortcut_kit import chests, plain


def turned(cohort: Cohort) -> Cohort:
    return dataclasses.replace(cohort, keys=cohort.keys[::-1], identities=cohort.identities[::-1])


def test_the_order_of_rows_does_not_change_the_hash_and_another_row_does() -> None:
    one = chests(0, num_patients=20)
    assert fingerprint(one) == fingerprint(turned(one))
    fewer = dataclasses.replace(one, keys=one.keys[1:])
    assert fingerprint(fewer).rows != fingerprint(one).rows
    assert fingerprint(fewer).patients == fingerprint(one).patients
    # Where one key ends and the next begins is part of the hash.
    assert fingerprint(plain([1], [1], keys=("ab", "c"))).rows != fingerprint(plain([1], [1], keys=("a", "bc"))).rows


def test_without_keys_scores_and_truths_are_compared() -> None:
    a, b = plain([0.1, 0.9], [0, 1]), plain([0.9, 0.1], [1, 0])
    assert fingerprint(a) == fingerprint(b)
    with pytest.raises(MedclipError, match="2 of 2 patients and 2 of 2 rows"):
        refuse_same_data(a, b)
    (note,) = refuse_same_data(a, plain([0.9, 0.2], [1, 0]))
    assert "could not be checked" in note


def test_shared_rows_or_patients_are_refused_with_counts_and_without_names() -> None:
    a, b = chests(0, num_patients=30), chests(1, num_patients=30)
    assert refuse_same_data(a, b) == ()
    shared = dataclasses.replace(b, identities=(a.identities[0], *b.identities[1:]))
    with pytest.raises(MedclipError) as caught:
        refuse_same_data(a, shared)
    assert caught.value.reason is Reason.PATIENT_OVERLAP
    assert f"1 of 30 patients and 0 of {len(b.keys)} rows" in str(caught.value)
    assert a.identities[0] not in str(caught.value)
    with pytest.raises(MedclipError, match="and 2 of"):
        refuse_same_data(a, dataclasses.replace(b, keys=(*a.keys[:2], *b.keys[2:])))


def test_a_hash_that_was_written_down_is_refused_on_the_same_rows_or_patients() -> None:
    cohort = chests(0, num_patients=30)
    here = fingerprint(cohort)
    refuse_hashes("", "", cohort)
    refuse_hashes("0" * 64, "0" * 64, cohort)
    with pytest.raises(MedclipError, match="same rows"):
        refuse_hashes(here.rows, here.patients, turned(cohort))
    with pytest.raises(MedclipError, match="same patients"):
        refuse_hashes("0" * 64, here.patients, cohort)


def test_patients_that_are_not_named_are_not_the_same_patient() -> None:
    a, b = chests(0, num_patients=30), chests(1, num_patients=30)
    one, other = (dataclasses.replace(c, identities=("", *c.identities[1:])) for c in (a, b))
    assert refuse_same_data(one, other) == ()
    nobody = dataclasses.replace(b, identities=("",) * len(b.keys))
    assert "could not be checked" in refuse_same_data(one, nobody)[0]
    assert fingerprint(nobody).patients == ""


def test_a_cohort_that_names_nobody_has_no_hash_of_patients() -> None:
    assert fingerprint(plain([0.1], [0])).patients == ""
    assert fingerprint(Cohort(np.zeros(0, np.int32), (), ())).rows == ""

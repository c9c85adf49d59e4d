from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medclip.auditing.input.read import rows_of
from medclip.auditing.thresholds.cohort_fingerprint import fingerprint, refuse_hashes, refuse_same_data
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort
from tests.kits.shortcuts import chests, label, plain


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


def renamed(cohort: Cohort) -> Cohort:
    """The same rows under other file names and patients, in another order."""
    order = np.random.default_rng(9).permutation(len(cohort.keys))
    there = rows_of(cohort, order)
    return dataclasses.replace(
        there,
        keys=tuple(f"copy-{k}.png" for k in there.keys),
        identities=tuple(f"MRN{p}" for p in there.identities),
    )


def rounded(cohort: Cohort, digits: int) -> Cohort:
    labels = tuple(dataclasses.replace(a, score_N=np.round(a.score_N, digits)) for a in cohort.labels)
    return dataclasses.replace(cohort, labels=labels)


def test_the_same_rows_under_other_names_are_refused_by_what_they_hold() -> None:
    audited = chests(0, num_patients=200)
    n = len(audited.keys)
    with pytest.raises(MedclipError, match=f"200 of 200 patients and {n} of {n} rows.*under other names") as caught:
        refuse_same_data(renamed(audited), audited)
    assert caught.value.reason is Reason.PATIENT_OVERLAP
    with pytest.raises(MedclipError, match=f"and 60 of {n} rows"):
        refuse_same_data(renamed(rows_of(audited, np.arange(60))), audited)
    missing = dataclasses.replace(audited.labels[0], score_N=audited.labels[0].score_N.copy())
    missing.score_N[:50] = np.nan  # rows without a score prove nothing
    blank = dataclasses.replace(audited, labels=(missing,))
    with pytest.raises(MedclipError, match=f"and {n - 50} of {n} rows"):
        refuse_same_data(renamed(blank), blank)


def test_few_equal_rows_other_truths_and_other_labels_are_not_refused() -> None:
    audited, other = chests(0, num_patients=200), chests(1, num_patients=200)
    for num, refused in ((9, False), (10, True)):
        part = renamed(rows_of(audited, np.arange(num + 30))).labels[0]
        score, truth = other.labels[0].score_N[:40].copy(), other.labels[0].truth_N[:40].copy()
        score[:num], truth[:num] = part.score_N[:num], part.truth_N[:num]
        few = dataclasses.replace(rows_of(other, np.arange(40)), labels=(label(score, truth),))
        if refused:
            with pytest.raises(MedclipError, match="and 10 of"):
                refuse_same_data(few, audited)
        else:
            assert refuse_same_data(few, audited) == ()
    # Ten of 101 are less than a tenth.
    score, truth = other.labels[0].score_N[:101].copy(), other.labels[0].truth_N[:101].copy()
    score[:10], truth[:10] = audited.labels[0].score_N[:10], audited.labels[0].truth_N[:10]
    many = dataclasses.replace(rows_of(other, np.arange(101)), labels=(label(score, truth),))
    assert refuse_same_data(many, audited) == ()
    copy = renamed(audited)
    turned_round = dataclasses.replace(copy.labels[0], truth_N=1 - copy.labels[0].truth_N)
    assert refuse_same_data(dataclasses.replace(copy, labels=(turned_round,)), audited) == ()
    named = dataclasses.replace(copy.labels[0], name="Edema")
    assert refuse_same_data(dataclasses.replace(copy, labels=(named,)), audited) == ()


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
@pytest.mark.parametrize(("chosen", "audited"), [(60, 60), (60, 400), (400, 60), (400, 400), (40, 2000)])
def test_other_patients_with_rounded_scores_are_not_refused(digits: int, chosen: int, audited: int) -> None:
    for seed in range(5):
        one, two = chests(seed, num_patients=chosen), chests(seed + 100, num_patients=audited)
        assert refuse_same_data(rounded(one, digits), rounded(two, digits)) == ()


def test_scores_of_fewer_than_twenty_values_prove_nothing() -> None:
    audited = chests(0, num_patients=300)
    rng = np.random.default_rng(0)
    coarse = [
        dataclasses.replace(audited.labels[0], name=name, score_N=rng.integers(0, 19, len(audited.keys)) / 18)
        for name in ("Edema", "Mass", "Nodule")  # together they tell most rows apart
    ]
    audited = dataclasses.replace(audited, labels=tuple(coarse))
    assert refuse_same_data(renamed(audited), audited) == ()
    fine = rounded(chests(0, num_patients=300), 4)
    with pytest.raises(MedclipError, match="under other names"):
        refuse_same_data(renamed(fine), fine)


def test_two_hundred_thousand_rows_of_fourteen_labels_are_compared() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200_000).astype(float)
    labels = [dataclasses.replace(label(rng.random(200_000), truth), name=str(i)) for i in range(14)]
    many = Cohort(np.arange(200_000, dtype=np.int32), tuple(labels), (), keys=(), identities=())
    copy = dataclasses.replace(many, labels=tuple(dataclasses.replace(a, score_N=a.score_N + 0.0) for a in labels[:13]))
    with pytest.raises(MedclipError, match="200000 of 200000 rows"):
        refuse_same_data(copy, many)

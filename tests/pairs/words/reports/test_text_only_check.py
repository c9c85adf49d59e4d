from __future__ import annotations

import numpy as np
import pytest

from medclip.pairs.words.reports.text_only_check import FEWEST_PATIENTS, MOST, check_texts_alone

NUM = 60
PATIENTS = [f"p{n}" for n in range(NUM)]
SIDES = ["Left effusion.", "Right effusion."]


def test_a_word_that_only_false_texts_have_is_told():
    check = check_texts_alone(["Small effusion."] * NUM, ["Large effusion."] * NUM, PATIENTS)
    assert check is not None
    assert check.accuracy == 1
    assert not check.passes
    assert check.to_dict() | {"most": MOST, "passes": False} == check.to_dict()


def test_changes_made_as_often_as_their_reverse_are_chance():
    true = [SIDES[n % 2] for n in range(NUM)]
    false = [SIDES[1 - n % 2] for n in range(NUM)]
    check = check_texts_alone(true, false, PATIENTS)
    assert check is not None
    assert check.passes
    assert check.accuracy == pytest.approx(0.5, abs=0.1)
    assert check.low is not None
    assert check.high is not None
    assert check.low <= check.accuracy <= check.high
    assert (check.num_pairs, check.num_patients) == (NUM, NUM)


def test_a_word_of_one_patient_teaches_nothing_of_another():
    rng = np.random.default_rng(0)
    patients = np.repeat(PATIENTS, 6).tolist()
    first = {p: bool(rng.integers(2)) for p in PATIENTS}
    true = [f"{p}{'a' if first[p] else 'b'} seen." for p in patients]
    false = [f"{p}{'b' if first[p] else 'a'} seen." for p in patients]
    check = check_texts_alone(true, false, patients)
    assert check is not None
    assert check.num_patients == NUM
    assert check.accuracy < 0.7, "with a patient on both sides of a fold all are right"


def test_too_few_patients_are_not_asked():
    num = FEWEST_PATIENTS - 1
    assert check_texts_alone(["a b"] * num, ["a c"] * num, PATIENTS[:num]) is None
    assert check_texts_alone(["a b"] * NUM, ["a c"] * NUM, ["one"] * NUM) is None

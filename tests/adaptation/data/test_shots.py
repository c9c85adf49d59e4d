"""Dividing patients and drawing shots."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adaptation.data.shots import Division, divide, draw_shots
from medclip.errors import MedclipError, Reason
from tests.kits.adapt_tables import findings, units_of, views

TWO = units_of([n % 2 for n in range(80)], [n // 2 * 2 + n % 2 for n in range(80)])


def everyone(units) -> Division:
    return Division(tuple(range(len(units))), (), ())


@given(
    classes=st.lists(st.integers(0, 2), min_size=6, max_size=60),
    num_patients=st.integers(2, 20),
    seed=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.2, 0.5]),
)
def test_no_patient_is_on_two_sides_and_every_unit_is_on_one(classes, num_patients, seed, share):
    units = units_of(classes, [n * 7 % num_patients for n in range(len(classes))])
    found = divide(units, seed=seed, test_share=share)
    assert sorted((*found.train, *found.val, *found.test)) == list(range(len(units)))
    assert not {units[i].patient for i in found.train} & {units[i].patient for i in found.test}
    assert share or not found.test


def test_every_class_is_tested_and_learned_where_it_has_two_patients():
    units = units_of([0] * 30 + [1] * 2 + [2], list(range(33)))
    found = divide(units, test_share=0.3)
    assert Counter(units[i].target for i in found.test) == {0: 9, 1: 1}


def test_neither_the_order_of_rows_nor_the_key_nor_the_place_of_the_folder_changes_anything():
    order = list(range(len(TWO)))
    random.Random(1).shuffle(order)
    other = [
        replace(TWO[i], patient=f"other-{TWO[i].patient}", path=Path("/else") / TWO[i].file, number=n)
        for n, i in enumerate(order)
    ]
    names = []
    for units in (TWO, other):
        sides = divide(units, test_share=0.3)
        drawn = draw_shots(units, sides, views(), 4, 3)
        names.append([[units[i].file for i in rows] for rows in (drawn.train, drawn.val)])
        names[-1].append(sorted(units[i].file for i in sides.test))
    assert names[0] == names[1]


def test_the_tables_split_stands_and_holds_for_all_files_of_the_patient():
    units = units_of([0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 0, 4])
    said = dict(enumerate(["test", "test", "val", None, None, "train"]))
    units = tuple(replace(u, split=said[n]) for n, u in enumerate(units))
    found = divide(units, test_share=0.9)
    assert (found.train, found.val, found.test) == ((3, 5), (2,), (0, 1, 4))


def test_a_patient_that_the_table_puts_on_two_sides_is_refused_without_a_name():
    units = tuple(replace(u, split=s) for u, s in zip(units_of([0, 1], [0, 0]), ("train", "test"), strict=True))
    with pytest.raises(MedclipError, match="1 patient on more than one side") as refused:
        divide(units)
    assert refused.value.reason is Reason.PATIENT_OVERLAP
    assert "p0" not in str(refused.value)


def test_k_shots_are_k_patients_of_each_class_with_one_unit_each():
    units = units_of([n % 2 for n in range(60)], [n // 6 * 2 + n % 2 for n in range(60)])  # three files a patient
    drawn = draw_shots(units, everyone(units), views(), 4, 0)
    assert Counter(units[i].target for i in drawn.train) == {0: 4, 1: 4}
    assert len({units[i].patient for i in drawn.train}) == 8
    assert Counter(units[i].target for i in drawn.val) == {0: 4, 1: 4}
    assert not {units[i].patient for i in drawn.train} & {units[i].patient for i in drawn.val}
    assert drawn.notes == ()


@given(shots=st.integers(1, 12), seed=st.integers(0, 20))
def test_the_shots_of_k_are_among_those_of_2k(shots, seed):
    few = draw_shots(TWO, everyone(TWO), views(), shots, seed).train
    assert draw_shots(TWO, everyone(TWO), views(), 2 * shots, seed).train[: len(few)] == few


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, None])] * 2), min_size=12, max_size=50), st.integers(0, 9))
def test_the_shots_of_findings_are_nested_too_and_reach_k_on_both_sides_where_the_data_do(targets, seed):
    units = units_of([*targets, (1.0, 1.0), (0.0, 0.0)], list(range(len(targets) + 2)))
    drawn = [draw_shots(units, everyone(units), findings(), k, seed).train for k in (2, 4)]
    assert drawn[1][: len(drawn[0])] == drawn[0]
    for c in range(2):
        for side in (0.0, 1.0):
            there = sum(u.target[c] == side for u in units)
            assert sum(units[i].target[c] == side for i in drawn[1]) >= min(4, there)


def test_another_seed_draws_others():
    assert draw_shots(TWO, everyone(TWO), views(), 4, 0).train != draw_shots(TWO, everyone(TWO), views(), 4, 1).train


def test_a_shot_that_cannot_be_read_makes_room_for_the_next_and_moves_no_other():
    before = draw_shots(TWO, everyone(TWO), views(), 4, 0).train
    after = draw_shots(TWO, everyone(TWO), views(), 4, 0, unusable=[before[2]]).train
    assert set(before) - set(after) == {before[2]}
    (new,) = set(after) - set(before)
    assert TWO[new].target == TWO[before[2]].target


def test_a_class_with_few_patients_gives_further_files_of_them_and_says_so():
    units = units_of([0] * 9 + [1] * 20, [0, 0, 0, 1, 1, 1, 2, 2, 2, *range(10, 30)])
    drawn = draw_shots(units, everyone(units), views(), 8, 0)
    assert Counter(units[i].target for i in drawn.train) == {0: 8, 1: 8}
    assert len({units[i].patient for i in drawn.train[:6]}) == 6  # first one of each patient
    assert drawn.notes[0].startswith("Class ap: 3 patients to learn from, fewer than the 8 asked for; several")
    assert drawn.val == ()
    assert "No patients are left to choose settings with" in drawn.notes[-1]


def test_more_shots_than_data_take_all_and_say_so():
    drawn = draw_shots(TWO, everyone(TWO), views(), 500, 0)
    assert len(drawn.train) == len(TWO)
    assert "fewer than the 500 asked for; all 40 files were taken" in drawn.notes[0]


def test_the_tables_own_validation_patients_choose_settings():
    sides = Division(tuple(range(40)), tuple(range(40, 60)), ())
    assert set(draw_shots(TWO, sides, views(), 8, 0).val) <= set(sides.val)


def test_a_class_of_which_nobody_is_left_to_learn_from_is_named():
    with pytest.raises(MedclipError, match="with the class pa is left to learn from"):
        draw_shots(TWO, Division(tuple(range(0, 80, 2)), (), ()), views(), 4, 0)
    none = units_of([(1.0, None), (1.0, 0.0)], [0, 1])
    with pytest.raises(MedclipError, match="nothing to tell apart"):
        draw_shots(none, everyone(none), findings(), 4, 0)


@pytest.mark.parametrize(
    "call", [lambda: draw_shots(TWO, everyone(TWO), views(), 0, 0), lambda: divide(TWO, test_share=1)]
)
def test_numbers_that_mean_nothing_are_refused(call):
    with pytest.raises(MedclipError) as refused:
        call()
    assert refused.value.reason is Reason.WRONG_USE

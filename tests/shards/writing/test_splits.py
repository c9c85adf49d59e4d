from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.shards.writing.splits import DEFAULT_SPLITS, assign, place
from medclip.shards.writing.table import ShardRow
from medclip.text.captions.draw import CaptionRecord

ROW = ShardRow(1, "a", Path("a"), "p", None, CaptionRecord(Modality.XRAY), "", "")


def row(patient, split=None):
    return replace(ROW, patient=patient, split=split)


@given(st.lists(st.text(min_size=1)), st.integers(0, 99))
def test_a_patient_is_never_on_two_sides(patients, seed):
    rows = [row(p) for p in patients for _ in range(2)]
    sides = assign(rows, DEFAULT_SPLITS, seed, b"")
    by_patient: dict[str, set[str]] = {}
    for r, side in zip(rows, sides, strict=True):
        by_patient.setdefault(r.patient, set()).add(side)
    assert all(len(s) == 1 for s in by_patient.values())


@given(st.text(), st.integers(0, 2**40))
def test_places_lie_between_zero_and_one(patient, seed):
    assert 0 <= place(patient, seed) < 1


def test_shares_come_out_about_right_and_do_not_depend_on_other_rows():
    rows = [row(f"patient {i}") for i in range(3000)]
    sides = assign(rows, DEFAULT_SPLITS, 0, b"")
    for name, share in DEFAULT_SPLITS.items():
        assert abs(sides.count(name) / 3000 - share) < 0.03
    assert assign(rows[::7], DEFAULT_SPLITS, 0, b"") == sides[::7]
    assert assign(rows, DEFAULT_SPLITS, 1, b"") != sides


def test_the_place_of_a_patient_is_fixed_for_all_time():
    assert f"{place('patient 1', 0):.6f}" == "0.336335"


def test_the_tables_own_split_holds_for_all_rows_of_the_patient():
    assert set(assign([row("p"), row("p", "extra"), row("p")], DEFAULT_SPLITS, 0, b"")) == {"extra"}


def test_a_table_that_tears_a_patient_is_refused_without_naming_them():
    with pytest.raises(MedclipError) as e:
        assign([row("Jane Doe", "train"), row("Jane Doe", "test")], DEFAULT_SPLITS, 0, b"key")
    assert e.value.reason is Reason.PATIENT_OVERLAP
    assert "Jane" not in str(e.value)


@pytest.mark.parametrize("splits", [{}, {"train": 0.7}, {"train": 1.5, "test": -0.5}])
def test_shares_that_do_not_sum_to_one_are_refused(splits):
    with pytest.raises(MedclipError) as e:
        assign([row("p")], splits, 0, b"")
    assert e.value.reason is Reason.WRONG_USE


def test_a_split_without_a_share_gets_nobody():
    sides = assign([row(str(i)) for i in range(500)], {"train": 0.5, "none": 0.0, "test": 0.5}, 0, b"")
    assert set(sides) == {"train", "test"}

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.input.groups import cross, kind_of, make_groups, one_attribute, parse_by
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import CONFLICT, MISSING
from tests.kits.audit_input import coded


def groups(name, texts, patients=None, **options):
    patients = np.arange(len(texts)) if patients is None else np.asarray(patients)
    attribute, notes = one_attribute(name, coded(texts), patients.astype(np.int32), ReadOptions(**options), "t.csv")
    return attribute, [attribute.groups[c] for c in attribute.codes_N], notes


def test_sex_is_written_in_one_way_and_blanks_stay_visible_and_last():
    attribute, said, _ = groups("PatientSex", ["female", "M", "w", "", "O", "U", "male"])
    assert said == ["F", "M", "F", MISSING, "O", MISSING, "M"]
    assert attribute.groups == ("F", "M", "O", MISSING)
    assert attribute.constant


def test_sex_in_numbers_is_refused_unless_their_meaning_is_said():
    with pytest.raises(MedclipError, match="numbers do not say which sex") as e:
        groups("sex", ["0", "1"])
    assert e.value.reason == Reason.TABLE_INVALID
    assert groups("sex", ["0", "1"], values={"sex": {"0": "M", "1": "female"}})[1] == ["M", "F"]


def test_a_patient_whose_sex_is_stated_in_two_ways_is_contradictory_in_all_rows():
    attribute, said, notes = groups("sex", ["F", "M", "F", "F"], [0, 0, 1, 1])
    assert said == [CONFLICT, CONFLICT, "F", "F"]
    assert attribute.groups == ("F", CONFLICT)
    assert "fewer than 10 patients" in notes[0]


def test_a_blank_of_a_constant_attribute_is_filled_in_from_another_row_of_the_patient():
    _, said, notes = groups("race", ["White", "", "", ""], [0, 0, 1, 1])
    assert said == ["White", "White", MISSING, MISSING]
    assert "fewer than 10 blank rows" in notes[0]


def test_view_and_age_may_differ_within_a_patient():
    assert groups("view", ["AP", "PA"], [0, 0])[1] == ["AP", "PA"]
    assert groups("age", ["17", "18"], [0, 0])[1] == ["0-17", "18-24"]


@given(st.lists(st.tuples(st.sampled_from(["F", "M", "", "female"]), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_constant_attribute_has_one_group_for_each_patient(rows):
    _, said, _ = groups("sex", [s for s, _ in rows], [p for _, p in rows])
    for patient in {p for _, p in rows}:
        mine = [g for g, (_, p) in zip(said, rows, strict=True) if p == patient]
        stated = {s[0].upper() for s, p in rows if p == patient and s}
        assert set(mine) == ({CONFLICT} if len(stated) > 1 else stated or {MISSING})


def test_spellings_that_differ_in_case_are_one_group_named_by_the_most_frequent():
    assert groups("race", ["white", "White", "White", "BLACK"])[1] == ["White", "White", "White", "BLACK"]


def test_presence_is_yes_no_or_not_stated_but_codes_of_sites_stay_names():
    assert groups("drain", ["1", "0", "-1", ""])[1] == ["yes", "no", MISSING, MISSING]
    assert groups("portable", ["True", "False"])[1] == ["yes", "no"]
    assert groups("site", ["1", "0"])[1] == ["1", "0"]


def test_a_column_of_many_numbers_is_refused_with_the_way_to_divide_it():
    texts = [str(20 + i / 2) for i in range(30)]
    with pytest.raises(MedclipError, match=r"30 different numbers.*--bins bmi"):
        groups("bmi", texts)
    attribute, said, _ = groups("bmi", [*texts, ""], bins={"bmi": [18.5, 25, 30]})
    assert attribute.groups == ("18.5-<25", "25-<30", "≥30", MISSING)
    assert said[0] == "18.5-<25"
    assert said[10] == "25-<30"
    with pytest.raises(MedclipError, match="numbers that rise"):
        groups("bmi", texts, bins={"bmi": [25, 18]})
    with pytest.raises(MedclipError, match="no number"):
        groups("bmi", ["thin"], bins={"bmi": [25]})


def test_twelve_numbers_are_groups_in_the_order_of_numbers():
    assert groups("ward", [str(n) for n in (10, 9, 2)])[0].groups == ("2", "9", "10")


def test_of_very_many_values_the_small_ones_are_put_together():
    texts = ["Leeds"] * 12 + ["York"] * 11 + [f"place {i}" for i in range(40)] + ["Hull"] * 12
    patients = [*range(63), *[63] * 12]  # Hull has rows enough and one patient
    attribute, said, notes = groups("city", texts, patients)
    assert attribute.groups == ("Leeds", "York", "other (41 values)")
    assert said[-1] == "other (41 values)"
    assert "41 values" in notes[0]


def test_texts_that_nobody_shares_are_no_groups():
    with pytest.raises(MedclipError, match="none of the 50 values") as e:
        groups("clinical_notes", [f"note about Doe^{i // 2}" for i in range(100)])
    assert "Doe" not in str(e.value)
    with pytest.raises(MedclipError, match="would be people") as e:
        groups("who", [f"Doe^{i}" for i in range(6)] + [""])
    assert "Doe" not in str(e.value)
    assert groups("ward", list("abcde"))[0].groups == tuple("abcde")


def test_an_intersection_has_the_combinations_that_occur():
    sex, _, _ = groups("sex", ["F", "M", "F", "", "F"])
    age, _, _ = groups("age", ["10", "10", "90", "10", ""])
    both = cross([sex, age])
    assert both.name == "sex × age"
    assert both.groups == ("F × 0-17", "F × 80+", "M × 0-17", MISSING)
    assert [both.groups[c] for c in both.codes_N] == ["F × 0-17", "M × 0-17", "F × 80+", MISSING, MISSING]
    assert not both.constant
    race, _, _ = groups("race", ["A"] * 5)
    assert cross([sex, race]).constant


@given(st.lists(st.tuples(*[st.sampled_from(s) for s in ("abc", "uv", "kl")]), min_size=1, max_size=30))
def test_an_intersection_of_three_names_every_row_by_its_three_groups(rows):
    parts = [groups(f"u{i}", [r[i] for r in rows])[0] for i in range(3)]
    both = cross(parts)
    assert [both.groups[c] for c in both.codes_N] == [" × ".join(r) for r in rows]
    assert list(both.groups) == sorted(set(both.groups))


def test_bands_of_age_that_are_made_already_are_kept_as_they_are():
    attribute, said, _ = groups("age", ["0-40", "40-60", "80+", "", "0-40"])
    assert attribute.groups == ("0-40", "40-60", "80+", MISSING)
    assert said[0] == "0-40"
    with pytest.raises(MedclipError, match="cannot be read"):
        groups("age", ["0-40", "old"])


def test_what_is_asked_for_is_read_with_star_and_cross_and_all_pairs():
    assert parse_by(["sex", "sex*age", "sex×race", "age*sex"], False) == [("sex",), ("sex", "age"), ("sex", "race")]
    assert parse_by(["a", "b", "c"], True) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    for bad in ("", "sex*", "sex*sex"):
        with pytest.raises(MedclipError):
            parse_by([bad], False)


def test_known_attributes_are_known_by_other_names():
    assert [kind_of(n) for n in ("Gender", "Patient Age", "ViewPosition", "ethnicity", "drain")] == [
        "sex",
        "age",
        "view",
        "race",
        "drain",
    ]


def test_every_row_is_in_exactly_one_group_of_each_attribute():
    cells = {"sex": coded(["F", "", "M"]), "age": coded(["5", "400", "50"])}
    made = make_groups(["sex", "age", "sex*age"], cells.__getitem__, np.arange(3, dtype=np.int32), ReadOptions(), "t")
    assert [a.name for a in made.attributes] == ["sex", "age", "sex × age"]
    for attribute in made.attributes:
        assert ((attribute.codes_N >= 0) & (attribute.codes_N < len(attribute.groups))).all()
    assert any("above 120" in n for n in made.notes)

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.input.join_keys import RULES, Side, join, key_of, without_twins, would_join
from medclip.errors import MedclipError, Reason
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.table import Table
from tests.kits.audit_input import KEY, coded


def sides(left, right):
    return Side(coded(left), "rows of labels", "l.csv"), Side(coded(right), "rows of scores", "s.csv")


def pairs(left, right, match="auto", **more):
    left_M, right_M, notes = join(*sides(left, right), match, lambda: KEY, **more)
    return [(left[i], right[j]) for i, j in zip(left_M, right_M, strict=True)], notes


def test_rows_join_in_the_order_of_the_left_and_blank_keys_never_do():
    assert pairs(["b", "", "a", "x"], ["a", "b", ""])[0] == [("b", "b"), ("a", "a")]


@pytest.mark.parametrize(
    ("left", "right", "rule"),
    [
        (["A1", "B2"], ["a1", "b2"], "case"),
        (["a.png", "b.png"], ["a", "b"], "suffix"),
        (["x/a.png", "y/b.png"], ["a.png", "b.png"], "name"),
        (["x\\a.png", "y\\b.png"], ["a.png", "b.png"], "name"),
        (["x/a.png", "y/b.png"], ["a.nii.gz", "b.jpg"], "stem"),
        (["007", "010"], ["7", "10.0"], "zeros"),
        (["x/007.PNG"], ["7.png"], "loose"),
    ],
)
def test_the_refusal_says_how_the_keys_would_join_and_doing_so_joins_them(left, right, rule):
    with pytest.raises(MedclipError, match=f"{len(left)} of {len(left)} would join: say --match {rule}") as e:
        pairs(left, right)
    assert e.value.reason == Reason.TABLE_INVALID
    assert len(pairs(left, right, rule)[0]) == len(left)


def test_the_refusal_shows_counts_and_three_hashes_and_no_key():
    left, right = [f"Doe^{i}" for i in range(5)], [f"Roe-{i}" for i in range(7)]
    with pytest.raises(MedclipError, match="5 rows of labels and 7 rows of scores, none in common") as e:
        pairs(left, right)
    text = str(e.value)
    assert "Doe" not in text
    assert "Roe" not in text
    assert all(keyed_hash("key", k, KEY) in text for k in (*left[:3], *right[:3]))
    assert keyed_hash("key", left[3], KEY) not in text


def test_uids_are_not_cut_like_suffixes():
    assert RULES["stem"][0]("1.2.840.113") == "1.2.840.113"
    assert RULES["stem"][0]("a/1.2.840.113.dcm") == "1.2.840.113"


def test_paths_join_by_the_longest_end_that_tells_them_apart():
    left = ["train/p1/img.png", "train/p2/img.png", "train/p3/other.png"]
    right = ["p1/img.png", "p2/img.png", "p3/other.png"]
    found, notes = pairs(left, right, by_path=True)
    assert found == list(zip(left, right, strict=True))
    assert "ends of their paths" in notes[0]


def test_file_names_that_stand_in_two_folders_do_not_join_by_name():
    found, _ = pairs(["x/a.png", "x/b.png"], ["p1/a.png", "p2/a.png", "p1/b.png"], by_path=True)
    assert found == [("x/b.png", "p1/b.png")]


def test_keys_that_become_equal_are_left_out_and_counted():
    found, notes = pairs(["a.png", "b.png"], ["p/a.png", "q/a.png", "p/b.png"], "name")
    assert found == [("b.png", "p/b.png")]
    assert any("1 key left out" in n for n in notes)


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(MedclipError, match="auto, exact, case") as e:
        pairs(["a"], ["a"], "fuzzy")
    assert e.value.reason == Reason.WRONG_USE


def test_nothing_is_advised_where_nothing_helps():
    assert would_join(coded(["a"]), coded(["b"])) == ""


@given(
    st.lists(st.text("abc/.0", max_size=6), max_size=12, unique=True),
    st.lists(st.text("abc/.0", max_size=6), max_size=12, unique=True),
    st.sampled_from(sorted(RULES)),
)
def test_joined_keys_are_equal_by_the_rule_and_each_row_joins_once(left, right, rule):
    try:
        found, _ = pairs(left, right, rule)
    except MedclipError:
        return
    how = RULES[rule][0]
    assert all(how(a) == how(b) for a, b in found)
    assert len({a for a, _ in found}) == len({b for _, b in found}) == len(found)


def test_rows_that_repeat_another_are_dropped_and_different_ones_refused_with_their_number():
    table = Table(pa.table({"k": ["a", "b", "a", "", ""], "v": [1, 2, 1, 5, 6]}), "t.csv")
    kept, notes = without_twins(table, key_of(table, ["k"]), "rows of labels")
    assert kept.tolist() == [0, 1, 3, 4]
    assert notes == ["Dropped: 1 row that repeat another of the rows of labels."]
    table = Table(pa.table({"k": ["Doe", "b", "Doe"], "v": [1, 2, 3]}), "t.csv")
    with pytest.raises(MedclipError, match="1 key of 2 have several rows of labels, which differ") as e:
        without_twins(table, key_of(table, ["k"]), "rows of labels")
    assert "Doe" not in str(e.value)


def test_a_key_of_two_columns_is_blank_where_one_part_is():
    table = Table(pa.table({"a": ["x", "x", "y"], "b": ["1", "", "1"]}), "t")
    keys = key_of(table, ["a", "b"])
    assert len(set(keys.texts_N())) == 3
    assert [t == "" for t in keys.texts_N()] == [False, True, False]
    np.testing.assert_array_equal(keys.counts(), [1, 1, 1])


def test_a_mistyped_rule_is_asked_back() -> None:
    with pytest.raises(MedclipError) as caught:
        join(*sides(["a"], ["a"]), "sufix", lambda: KEY)
    assert caught.value.reason is Reason.WRONG_USE
    assert caught.value.hint.startswith("Did you mean 'suffix'? Choose one of: auto, exact, ")

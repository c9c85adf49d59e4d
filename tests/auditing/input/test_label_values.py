from __future__ import annotations

import numpy as np
import pytest

from medclip.auditing.input.label_values import (
    elements,
    is_binary,
    meaning,
    policy_notes,
    read_class,
    read_list,
    read_times,
    read_truth,
)
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError
from tests.kits.audit_input import coded

CELLS = ["1", "0", "-1", "", "1.0", "False", "yes", "negative", "uncertain", "NaN", "-1.0"]
N = np.nan


@pytest.mark.parametrize("text", ["1", "1.0", "true", "TRUE", "Yes", "positive", "y"])
def test_ways_to_say_yes(text):
    assert meaning(text) == 1.0


@pytest.mark.parametrize("text", ["0", "0.0", "False", "no", "NEGATIVE", "n"])
def test_ways_to_say_no(text):
    assert meaning(text) == 0.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ReadOptions(), [1, 0, N, N, 1, 0, 1, 0, N, N, N]),
        (ReadOptions(uncertain="zero"), [1, 0, 0, N, 1, 0, 1, 0, 0, N, 0]),
        (ReadOptions(uncertain="one"), [1, 0, 1, N, 1, 0, 1, 0, 1, N, 1]),
        (ReadOptions(blank="zero"), [1, 0, N, 0, 1, 0, 1, 0, N, 0, N]),
    ],
)
def test_uncertain_and_blank_cells_mean_what_the_policy_says_and_are_counted(options, expected):
    truth = read_truth(coded(CELLS), "x", options, "t")
    np.testing.assert_array_equal(truth.truth_N, expected)
    assert (truth.num_uncertain, truth.num_blank) == (3, 2)


def test_the_policy_is_written_into_notes_with_its_name():
    truths = [read_truth(coded(CELLS), "x", ReadOptions(uncertain="one", blank="zero"), "t")] * 2
    notes = policy_notes(truths, ReadOptions(uncertain="one", blank="zero"))
    assert notes == [
        "Labels: 6 uncertain (-1) cells, taken as positive (U-One).",
        "Labels: 4 blank cells, taken as negative.",
    ]
    assert policy_notes([read_truth(coded(["1", "0"]), "x", ReadOptions(), "t")], ReadOptions()) == []


def test_a_cell_that_means_neither_is_counted_and_not_shown_where_it_may_be_a_name():
    with pytest.raises(MedclipError, match=r"2 cells of the label 'x'.*'mild'") as e:
        read_truth(coded(["1", "mild", "Doe^John"]), "x", ReadOptions(), "t")
    assert "Doe" not in str(e.value)
    assert not is_binary(coded(["1", "2"]))
    assert not is_binary(coded(["", "-1"]))
    assert is_binary(coded(["", "-1", "0"]))


def test_a_finding_is_a_whole_element_of_a_list_and_never_a_part():
    cells = coded(["Pneumonia|Effusion", "No Finding", "Viral Pneumonia", "", " effusion | ", "Pneumothorax"])
    found = read_list(cells, "Pneumonia", ReadOptions(label_list="x"))
    np.testing.assert_array_equal(found.truth_N, [1, 0, 0, N, 0, 0])
    np.testing.assert_array_equal(read_list(cells, "Effusion", ReadOptions()).truth_N, [1, 0, 0, N, 1, 0])
    np.testing.assert_array_equal(read_list(cells, "Effusion", ReadOptions(blank="zero")).truth_N, [1, 0, 0, 0, 1, 0])
    assert list(elements(cells, "|").values()) == [
        "Pneumonia",
        "Effusion",
        "No Finding",
        "Viral Pneumonia",
        "Pneumothorax",
    ]


def test_a_list_as_python_prints_it_is_read():
    cells = coded(["['pneumonia', 'pleural effusion']", "['normal']", "[]"])
    found = read_list(cells, "Pleural effusion", ReadOptions(separator=","))
    np.testing.assert_array_equal(found.truth_N, [1, 0, N])
    assert found.num_blank == 1


def test_a_class_stands_against_all_others_and_a_blank_is_not_known():
    np.testing.assert_array_equal(read_class(coded(["a", "b", "", "A"]), ["a", "A"]).truth_N, [1, 0, N, 1])


def test_negative_times_are_refused_with_their_number():
    with pytest.raises(MedclipError, match="2 times"):
        read_times(np.asarray([1.0, -2.0, -0.1]), "months", "t")


def test_a_list_whose_findings_nothing_parts_is_refused():
    with pytest.raises(MedclipError, match="the separator of a list of findings is empty"):
        ReadOptions(separator="")

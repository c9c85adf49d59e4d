"""Numbers, counts and lists as a person would write them."""

from __future__ import annotations

import pytest

from medclip.wording import count, duration, figure, interval, list_of, number, p_value, percent, value_and_interval


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.8312, "0.83"),
        (0.0412, "0.041"),
        (0.0, "0.00"),
        (-0.1234, "−0.12"),
        (12.34, "12.3"),
        (431.2, "431"),
        (1, "1.00"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_figures_have_two_or_three_digits(value: float | None, written: str):
    assert figure(value) == written


def test_a_figure_of_fixed_decimals_has_a_true_minus_sign_and_no_minus_zero():
    assert figure(-0.0312, signed=True, decimals=3) == "−0.031"
    assert figure(-0.0001, decimals=3) == "0.000"


def test_an_interval_has_the_decimals_that_tell_its_ends_apart():
    assert value_and_interval(0.8312, 0.79, 0.871) == ("0.83", "0.79 to 0.87")
    assert value_and_interval(0.8312, 0.829, 0.834) == ("0.831", "0.829 to 0.834")
    assert value_and_interval(0.8312, None, float("nan")) == ("0.83", "no interval")
    assert value_and_interval(None, 0.1, 0.2) == ("–", "")
    assert interval(-0.0001, 0.2) == "0.00 to 0.20"


def test_p_values_have_no_false_precision():
    assert [p_value(p) for p in (0.0004, 0.0123, 0.42, None, float("nan"))] == ["<0.001", "0.012", "0.42", "–", "–"]


def test_no_p_is_rounded_to_the_level_of_a_verdict():
    assert [p_value(p) for p in (0.0496, 0.049999, 0.05, 0.05001, 0.0504)] == [
        "0.0496",
        "<0.05",
        "0.050",
        ">0.05",
        "0.0504",
    ]


def test_a_share_is_never_certain():
    assert [percent(p) for p in (0.0, 0.004, 0.5, 0.996, 1.0)] == ["< 1 %", "< 1 %", "50 %", "> 99 %", "> 99 %"]


def test_counts_have_their_noun_and_commas_between_thousands():
    assert [count(n, "study") for n in (0, 1, 2)] == ["0 studies", "1 study", "2 studies"]
    assert [count(n, "display") for n in (1, 2)] == ["1 display", "2 displays"]
    assert count(12000, "file") == "12,000 files"
    assert count(3, "looks", "look") == "3 look"
    assert number(1204.0) == "1,204"


def test_lists_end_with_their_last_word_and_long_ones_with_how_many_more():
    assert [list_of(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert list_of(["a", "b", "c"], "or") == "a, b or c"
    assert list_of(list("abcdefgh"), most=6) == "a, b, c, d, e, f and 2 more"


def test_durations_are_in_the_unit_a_person_would_use():
    assert [duration(s) for s in (0.2, 45, 600, 9000)] == ["1 s", "45 s", "10 min", "2.5 h"]

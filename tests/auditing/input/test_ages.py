from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.input.ages import age_attribute, age_edges, parse_age, read_ages
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import MISSING
from tests.kits.audit_input import coded


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("45", 45.0),
        ("45.0", 45.0),
        ("058Y", 58.0),
        ("58Y", 58.0),
        ("006M", 0.5),
        ("12 months", 1.0),
        ("30D", 30 / 365.25),
        ("12W", 12 * 7 / 365.25),
        ("45 years", 45.0),
        ("45 yrs", 45.0),
        ("45 y/o", 45.0),
        ("45-year-old", 45.0),
        ("45 years old", 45.0),
        ("90+", 90.0),
        (">89", 89.0),
        ("0", 0.0),
        ("-3", -3.0),
    ],
)
def test_an_age_is_read_in_years_however_it_is_written(text, years):
    assert parse_age(text) == pytest.approx(years)


@pytest.mark.parametrize("text", ["", "  ", "nan", "NA", "unknown", "000Y", "999Y", "?"])
def test_an_age_that_is_not_known_is_nan(text):
    assert np.isnan(parse_age(text))


@pytest.mark.parametrize("text", ["sixty", "F", "2020-01-01", "60-69", "12 13", "1e2x"])
def test_what_is_no_age_is_none(text):
    assert parse_age(text) is None


def test_plain_numbers_are_in_the_unit_that_is_named_and_units_in_the_cell_win():
    assert parse_age("3652.5", "days") == pytest.approx(10)
    assert parse_age("24", "months") == 2
    assert parse_age("058Y", "days") == 58


@given(st.integers(0, 999), st.sampled_from([("Y", 1), ("M", 12), ("W", 365.25 / 7), ("D", 365.25)]))
def test_every_dicom_age_but_the_placeholders_is_read(number, unit):
    text = f"{number:03d}{unit[0]}"
    if number in (0, 999):
        assert np.isnan(parse_age(text))
    else:
        assert parse_age(text) == pytest.approx(number / unit[1])


def test_a_column_in_days_is_refused_with_the_option_that_reads_it():
    with pytest.raises(
        MedclipError, match=r"above 130 years?, so they are not in years.*--age-unit days|--age-unit days"
    ) as e:
        read_ages(coded(["20000", "15000", "9000"]), "age", "years", "t.csv")
    assert e.value.reason == Reason.TABLE_INVALID
    years_N, _notes = read_ages(coded(["20000", "15000", "9000"]), "age", "days", "t.csv")
    assert years_N == pytest.approx([20000 / 365.25, 15000 / 365.25, 9000 / 365.25])


def test_impossible_and_placeholder_ages_are_missing_and_counted():
    years_N, notes = read_ages(coded(["30", "411", "-2", "000Y", "45", "50", "60"]), "age", "years", "t.csv")
    assert np.isnan(years_N).tolist() == [False, True, True, True, False, False, False]
    assert any("fewer than 10 rows" in n and "above 120" in n for n in notes)
    assert any("fewer than 10 rows" in n and "placeholder" in n for n in notes)


def test_a_few_unreadable_ages_are_missing_and_many_are_refused_without_showing_a_name():
    years_N, notes = read_ages(coded(["30"] * 30 + ["sixty"]), "age", "years", "t.csv")
    assert np.isnan(years_N).sum() == 1
    assert "fewer than 10 rows where it cannot be read" in notes[0]
    with pytest.raises(MedclipError, match="cannot be read") as e:
        read_ages(coded(["Doe^John", "7700123x", "40"]), "age", "years", "t.csv")
    assert "Doe" not in str(e.value)
    assert "7700123" not in str(e.value)


def test_the_default_bands_are_closed_on_the_left():
    years_N, _notes = read_ages(
        coded(["0", "17", "17.9", "18", "24", "25", "49", "50", "64", "65", "79", "80", "101", ""]), "age", "years", "t"
    )
    attribute, _ = age_attribute("age", years_N, None)
    said = [attribute.groups[c] for c in attribute.codes_N]
    assert said == ["0-17"] * 3 + ["18-24"] * 2 + ["25-49"] * 2 + ["50-64"] * 2 + ["65-79"] * 2 + ["80+"] * 2 + [
        MISSING
    ]
    assert attribute.groups[-1] == MISSING
    assert not attribute.constant


def test_the_published_bands_leave_the_young_out():
    attribute, notes = age_attribute("age", read_ages(coded(["25", "80", "17"]), "age", "years", "t")[0], "cxr")
    assert [attribute.groups[c] for c in attribute.codes_N] == ["25-50", "80+", MISSING]
    assert "fewer than 10 rows" in notes[0]


def test_bands_are_named_by_the_caller():
    attribute, _ = age_attribute("age", read_ages(coded(["19", "20", "90"]), "age", "years", "t")[0], "0,20,40,60,80")
    assert attribute.groups == ("0-19", "20-39", "80+")


@pytest.mark.parametrize("bins", ["20,10", "a,b", "", "0,0", "nan"])
def test_edges_that_do_not_rise_are_refused(bins):
    with pytest.raises(MedclipError, match="lower edges") as e:
        age_edges(bins)
    assert e.value.reason == Reason.WRONG_USE


@given(
    st.lists(st.floats(0, 120), min_size=1, max_size=40),
    st.lists(st.integers(0, 100), min_size=1, max_size=6, unique=True),
)
def test_every_known_age_is_in_the_one_band_that_holds_it(years, edges):
    edges = sorted(edges)
    attribute, _ = age_attribute("age", read_ages(coded([repr(y) for y in years]), "age", "years", "t")[0], edges)
    for year, code in zip(years, attribute.codes_N, strict=True):
        group = attribute.groups[code]
        if year < edges[0]:
            assert group == MISSING
        else:
            assert float(group.rstrip("+").split("-")[0]) == max(e for e in edges if e <= year)


def test_ages_with_a_decimal_comma_are_refused_in_the_words_of_scores():
    with pytest.raises(
        MedclipError, match=r"^t: 1 cell of the column 'age' is written with a decimal comma"
    ) as refused:
        read_ages(coded([*map(str, range(20, 60)), "63,5"]), "age", "years", "t")
    assert refused.value.hint == "Write decimals with a point, not with a comma. Or have them read so: --decimal comma."

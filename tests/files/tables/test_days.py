from __future__ import annotations

from datetime import date

import pytest

from medclip.files.tables.cells import day_of, days_before, iso_week


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024-11-03", date(2024, 11, 3)),
        ("20241103", date(2024, 11, 3)),
        ("2024-11", date(2024, 11, 1)),
        ("202411", date(2024, 11, 1)),
        ("2024-11-03 10:22:01", date(2024, 11, 3)),
        ("2024-11-03T10:22", date(2024, 11, 3)),
        ("", None),
    ],
)
def test_a_day_is_read_however_tables_and_headers_write_it(text: str, day: date | None) -> None:
    assert day_of(text) == day


@pytest.mark.parametrize("text", ["2024", "03.11.2024", "20241303", "2024-02-30", "2 3 1993", "20241103x"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        day_of(text)


def test_exams_of_one_day_are_not_earlier_than_each_other() -> None:
    days = {"a": date(2024, 1, 1), "b": date(2024, 1, 1), "c": date(2020, 1, 1)}
    assert days_before("a", days) == days_before("b", days) == (("c", 1461),)
    assert days_before("c", days) == days_before("unknown", days) == ()


@pytest.mark.parametrize(
    ("text", "week"),
    [
        ("20240131", "2024-W05"),
        ("2024-12-30", "2025-W01"),
        (" 20210103 ", "2020-W53"),
        ("19000101", None),
        ("202401", None),
        ("20241301", None),
        ("Smith", None),
        ("", None),
    ],
)
def test_the_week_of_a_day_is_that_of_the_standard_and_a_placeholder_has_none(text: str, week: str | None) -> None:
    assert iso_week(text) == week

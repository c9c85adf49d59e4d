"""One study: how its files are named."""

from __future__ import annotations

from medclip.reports.score.study import names_of, ranges


def test_row_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1–3, 7, 9–10"


def test_files_are_named_by_ranges_of_numbers_or_by_paths() -> None:
    assert names_of([1, 2, 3, 7]) == "files 1–3, 7"
    assert names_of([7]) == "file 7"
    assert names_of(["a.png", "b.png"]) == "a.png, b.png"
    assert names_of(list(range(1, 1001, 2))).endswith("599 and more, see files.parquet (500 files)")

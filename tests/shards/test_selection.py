"""A selection comes back as it was written; what is none is refused; two of one pile are intersected and united."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.shards.selection import (
    Selection,
    intersect,
    read_selection,
    selection_of,
    union,
    write_selection,
)

STEPS = {"seed": 0, "steps": [{"basic": {}}]}


def selection(
    reasons: list[str], values: list[float] | None = None, weights: list[float] | None = None, pile: str = "p"
) -> Selection:
    num = len(reasons)
    keys, splits = (
        pa.chunked_array([pa.array(cells, pa.string())]) for cells in (map(str, range(num)), ["train"] * num)
    )
    value_N = np.array([np.nan] * num if values is None else values)
    return selection_of(keys, splits, reasons, value_N, np.array(weights or [1.0] * num), pile, STEPS)


def rows(selection: Selection) -> list[str]:
    return list(map(str, selection.table.to_pylist()))  # as NaN is not NaN


def test_a_selection_comes_back_as_it_was_written(tmp_path: Path) -> None:
    first = selection(["", "basic", ""], [0.5, np.nan, 2.0], [1, 1, 0.25])
    write_selection(first, tmp_path / "s.parquet")
    again = read_selection(tmp_path / "s.parquet")
    assert rows(again) == rows(first)
    assert (again.pile, again.steps, again.digest) == ("p", STEPS, first.digest)
    assert again.kept_N.tolist() == [True, False, True]
    with pytest.raises(MedclipError) as e:
        write_selection(first, tmp_path / "s.parquet")
    assert e.value.reason is Reason.OUTPUT_IN_USE
    write_selection(selection(["", "cap", "cap"]), tmp_path / "s.parquet", overwrite=True)
    assert read_selection(tmp_path / "s.parquet").kept_N.tolist() == [True, False, False]


def test_the_digest_is_that_of_the_pairs_that_are_kept_and_of_their_weights() -> None:
    digest = selection(["", "a", ""]).digest
    assert digest == selection(["", "b", ""], [1, 2, 3]).digest
    assert len({digest, selection(["", "", ""]).digest, selection(["", "a", ""], weights=[1, 1, 2]).digest}) == 3


def changed(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, cells in columns.items():
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, pa.array(cells, table.schema.field(name).type))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"key": ["0", "0", "2"]}, "a key stands twice"),
        ({"weight": [1, -1, 1]}, "weights are no numbers"),
        ({"kept": [True, True, True]}, "kept and dropped"),
        ({"split": ["train", None, "train"]}, "cells are empty"),
    ],
)
def test_a_selection_whose_rows_contradict_themselves_is_refused(
    tmp_path: Path, columns: dict[str, Any], sentence: str
) -> None:
    write_selection(selection(["", "a", ""]), tmp_path / "s.parquet")
    changed(tmp_path / "s.parquet", **columns)
    with pytest.raises(MedclipError, match=sentence):
        read_selection(tmp_path / "s.parquet")


def test_what_is_no_selection_or_one_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.parquet"
    with pytest.raises(MedclipError) as e:
        read_selection(path)
    assert e.value.reason is Reason.MISSING_FILE
    path.write_text("key,split\n")
    with pytest.raises(MedclipError, match="no selection of pairs"):
        read_selection(path)
    pq.write_table(pa.table({"key": ["a"]}), path)
    with pytest.raises(MedclipError, match="no selection of pairs"):
        read_selection(path)
    with monkeypatch.context() as m:
        m.setattr("medclip.shards.selection.FORMAT_VERSION", 2)
        write_selection(selection([""]), path, overwrite=True)
    with pytest.raises(MedclipError, match="of the version 2, not 1"):
        read_selection(path)
    write_selection(selection([""]), path, overwrite=True)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MedclipError, match="no selection of pairs"):
        read_selection(path)


REASONS = st.lists(st.sampled_from(["", "a", "b"]), min_size=6, max_size=6)
WEIGHTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6)


@given(REASONS, REASONS, WEIGHTS, WEIGHTS)
def test_what_both_keep_is_the_intersection_and_what_either_keeps_the_union(
    one: list[str], other: list[str], weights: list[float], others: list[float]
) -> None:
    first, second = selection(one, weights=weights), selection(other, weights=others)
    both, either = intersect(first, second), union(first, second)
    assert both.kept_N.tolist() == (first.kept_N & second.kept_N).tolist()
    assert either.kept_N.tolist() == (first.kept_N | second.kept_N).tolist()
    for i in np.flatnonzero(both.kept_N):
        assert both.weight_N[i] == weights[i] * others[i]
    for i in np.flatnonzero(either.kept_N):
        assert either.weight_N[i] == max(w for w, r in ((weights[i], one[i]), (others[i], other[i])) if not r)
    assert both.table.column("dropped_by").to_pylist() == [a or b for a, b in zip(one, other, strict=True)]
    assert union(first, first).digest == first.digest


def test_a_combination_says_what_it_is_of_and_takes_the_value_of_who_dropped(tmp_path: Path) -> None:
    both = intersect(selection(["a", "", ""], [1, 2, np.nan]), selection(["", "b", ""], [3, 4, 5]))
    assert both.table.column("value").to_pylist() == [1, 4, 5]
    assert both.steps == {"intersect": [STEPS, STEPS]}
    write_selection(both, tmp_path / "both.parquet")
    assert rows(read_selection(tmp_path / "both.parquet")) == rows(both)


def test_selections_of_two_piles_are_not_combined() -> None:
    with pytest.raises(MedclipError, match="of two piles"):
        intersect(selection([""]), selection([""], pile="q"))

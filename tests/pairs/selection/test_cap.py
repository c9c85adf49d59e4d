"""`cap`: no group is larger than it may be, and an order drawn once says who comes first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError
from medclip.pairs.selection.cap import CapSettings, cap
from tests.kits.piles import context, every_row, pile_of
from tests.kits.shards import write


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 3))
def test_no_patient_has_more_pairs_than_the_cap_and_none_is_lost_below_it(
    patients: list[str], num: int, seed: int
) -> None:
    pile = pile_of({"patient": patients})
    kept_M = cap(pile, every_row(pile), CapSettings(num=num), context(seed=seed), 1).kept_M
    counts = Counter(p for p, is_kept in zip(patients, kept_M, strict=True) if is_kept)
    for patient, size in Counter(patients).items():
        assert counts[patient] == (size if not patient else min(size, num))


def test_a_pair_that_is_kept_among_all_is_kept_among_fewer() -> None:
    pile = pile_of({"patient": list("abcabcabcabc" * 5)})
    rows = every_row(pile)
    every = cap(pile, rows, CapSettings(num=3), context(seed=5), 2).kept_M
    fewer = rows[::2]
    assert not (every[fewer] & ~cap(pile, fewer, CapSettings(num=3), context(seed=5), 2).kept_M).any()


def test_seed_and_place_of_the_step_choose_others() -> None:
    pile = pile_of({"patient": ["a"] * 100})
    rows, settings = every_row(pile), CapSettings(num=10)
    first = cap(pile, rows, settings, context(seed=0), 1).kept_M
    assert (first == cap(pile, rows, settings, context(seed=0), 1).kept_M).all()
    assert (first != cap(pile, rows, settings, context(seed=1), 1).kept_M).any()
    assert (first != cap(pile, rows, settings, context(seed=0), 2).kept_M).any()


def test_groups_are_made_by_several_columns_and_by_labels(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", [{"key": str(i), "primary": "Plots" if i % 2 else "Maps"} for i in range(8)])
    pile = pile_of({"patient": ["a"] * 8, "source": ["x"] * 4 + ["y"] * 4})
    settings = CapSettings(num=1, by=("patient", "source", "primary"), labels=Path("labels.csv"))
    kept_M = cap(pile, every_row(pile), settings, context(tmp_path), 1).kept_M
    assert len({(i // 4, i % 2) for i in np.flatnonzero(kept_M)}) == kept_M.sum() == 4


def test_a_value_is_the_place_in_the_group() -> None:
    pile = pile_of({"patient": ["a", "a", "a", "b", "", ""]})
    verdict = cap(pile, every_row(pile), CapSettings(num=2), context(), 1)
    assert verdict.value_M is not None
    assert sorted(verdict.value_M[:3]) == [1, 2, 3]
    assert verdict.value_M[3:].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(verdict.kept_M, verdict.value_M <= 2)


def test_a_column_that_is_not_there_is_refused() -> None:
    pile = pile_of({"patient": ["a"]})
    with pytest.raises(MedclipError, match="no column 'patent'") as e:
        cap(pile, every_row(pile), CapSettings(num=1, by=("patent",)), context(), 1)
    assert "'patient'" in e.value.hint

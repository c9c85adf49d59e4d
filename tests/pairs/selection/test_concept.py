"""`concept`: a predicate over a table of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from medclip.errors import MedclipError
from medclip.pairs.selection.concept import ConceptSettings, concept
from medclip.pairs.selection.steps import Verdict
from tests.kits.piles import context, every_row, pile_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "key": ["0", "1", "2", "3"],
            "cluster": [7, 7, 8, 9],
            "panel_type": ["single", "single", "multiple", "single"],
            "primary": [["Clinical Imaging"], ["Plots and Charts"], ["Clinical Imaging", "Plots and Charts"], []],
        }
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    return tmp_path


def asked(folder: Path, **settings: Any) -> Verdict:
    pile = pile_of({"key": ["3", "2", "1", "0", "new"]})
    settings = {"labels": Path("labels.parquet"), **settings}
    return concept(pile, every_row(pile), ConceptSettings(**settings), context(folder), 1)


def kept(folder: Path, **settings: Any) -> list[bool]:
    return asked(folder, **settings).kept_M.tolist()


def test_a_value_counts_the_labels_that_decide(folder: Path) -> None:
    both = ("Clinical Imaging", "Plots and Charts")
    for values, settings in (
        ([0, 2, 1, 1, np.nan], {"keep": both}),
        ([0, -1, -1, 1, np.nan], {"keep": both[:1], "drop": both[1:]}),
        ([0, -1, -1, 1, np.nan], {"drop": both[1:]}),
    ):
        np.testing.assert_array_equal(asked(folder, **settings).value_M, values)


def test_a_pair_is_kept_by_one_of_its_labels_and_dropped_by_any(folder: Path) -> None:
    assert kept(folder, keep=("Clinical Imaging",)) == [False, True, False, True, False]
    assert kept(folder, keep=("clinical-imaging",), drop=("Plots and Charts",)) == [False, False, False, True, False]
    assert kept(folder, drop=("Plots and Charts",)) == [True, False, False, True, False]
    assert kept(folder, column="panel_type", keep=("single",)) == [True, False, True, True, False]
    assert kept(folder, column="cluster", drop=("7",)) == [True, True, False, False, False]


def test_a_pair_without_labels_is_dropped_and_counted(folder: Path) -> None:
    pile = pile_of({"key": ["0", "new"]})
    settings = ConceptSettings(labels=Path("labels.parquet"), drop=("Plots and Charts",))
    verdict = concept(pile, every_row(pile), settings, context(folder), 1)
    assert verdict.facts == {"without_labels": 1}
    assert verdict.notes == ("1 pair without a row in the table of labels; dropped.",)


def test_a_label_that_no_pair_has_is_refused_with_those_like_it(folder: Path) -> None:
    with pytest.raises(MedclipError, match="no pair has the label 'Plots and Carts'") as e:
        kept(folder, drop=("Plots and Carts",))
    assert "Plots and Charts" in e.value.hint
    with pytest.raises(MedclipError, match="no column 'secondary'"):
        kept(folder, column="secondary", keep=("x",))
    with pytest.raises(ValidationError, match="under keep or drop"):
        ConceptSettings(labels=Path("labels.parquet"))


def test_a_table_that_names_a_key_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_text("key,primary\na,x\na,y\n")
    with pytest.raises(MedclipError, match="a key stands twice"):
        kept(tmp_path, keep=("x",))

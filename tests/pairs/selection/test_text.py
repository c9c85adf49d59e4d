"""Pairs whose text names a concept of a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.lazy import import_name
from medclip.pairs.selection.steps import FILTERS
from medclip.pairs.selection.text import TextSettings, names_an_entry
from tests.kits.piles import context, pile_of, pile_of_texts

TEXTS = ["Small pleural effusion.", "A photograph of a cat.", "", "No pleural effusion.", "Effusion and cardiomegaly."]


def test_texts_that_name_nothing_are_dropped_and_concepts_are_counted(tmp_path: Path) -> None:
    verdict = names_an_entry(*pile_of_texts(TEXTS), TextSettings(), context(tmp_path), 0)
    assert verdict.kept_M.tolist() == [True, False, False, True, True]
    assert verdict.value_M is not None
    assert verdict.value_M[[1, 2]].tolist() == [0, 0]
    assert verdict.value_M[4] > verdict.value_M[3]
    assert verdict.notes == ("2 pairs of 5 without a concept of the metadata.",)


def test_what_is_denied_does_not_count_where_affirmed_is_wanted(tmp_path: Path) -> None:
    verdict = names_an_entry(*pile_of_texts(TEXTS), TextSettings(polarity="affirmed"), context(tmp_path), 0)
    assert verdict.kept_M.tolist() == [True, False, False, False, True]


def test_a_list_of_ones_own_is_matched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("cat\nphotograph\n")
    verdict = names_an_entry(*pile_of_texts(TEXTS), TextSettings(metadata="mine.txt"), context(tmp_path), 0)
    assert verdict.kept_M.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("step", ["text", "balance", "rebalance"])
def test_what_has_no_caption_is_judged_by_its_report(step: str, tmp_path: Path) -> None:
    settings, run = import_name(FILTERS[step].settings)(), import_name(FILTERS[step].target)
    captions, rows_M = pile_of_texts(TEXTS)
    by_caption = run(captions, rows_M, settings, context(tmp_path), 0)
    by_report = run(pile_of({"report": TEXTS}), rows_M, settings, context(tmp_path), 0)
    assert by_report.kept_M.any()
    assert by_report.kept_M.tolist() == by_caption.kept_M.tolist()
    np.testing.assert_array_equal(by_report.value_M, by_caption.value_M)

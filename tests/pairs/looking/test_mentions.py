"""Concepts are counted by polarity and by patient, and tails are measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.pairs.looking.mentions import count_concepts, count_words, tail_of
from medclip.pairs.looking.texts import texts_of
from medclip.progress import Silent
from medclip.text.checks.metadata import medical_metadata
from tests.kits.image_piles import pile_of

TEXTS = [
    "Left pleural effusion.",
    "Small effusion and a nodule.",
    "No effusion.",
    "Right effusion. No left effusion.",
    "A normal film.",
]
METADATA = medical_metadata(
    [("Effusion", ["effusion", "pleural effusion"]), ("Nodule", ["nodule"]), ("Mass", ["mass"])], "mine"
)


def test_affirmed_denied_and_both_are_counted_apart_with_their_patients() -> None:
    counts = count_concepts(texts_of(pile_of(text=TEXTS)), METADATA, np.array([0, 0, 1, 2, 3]), Silent())
    effusion, nodule = counts.concepts
    assert (effusion.concept, effusion.affirmed, effusion.denied, effusion.both) == ("Effusion", 2, 1, 1)
    assert (effusion.patients_affirmed, effusion.patients_denied, effusion.pairs) == (2, 2, 4)
    assert effusion.wordings == "effusion, pleural effusion"
    assert (nodule.affirmed, nodule.denied, nodule.both) == (1, 0, 0)
    assert counts.num_listed == 3
    assert counts.names_any_N.tolist() == [True] * 4 + [False]
    assert counts.affirmed.counts_K.tolist() == [3, 1]


def test_counts_do_not_depend_on_how_many_texts_are_matched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, patients = texts_of(pile_of(text=TEXTS)), np.array([0, 0, 1, 0, 1])
    at_once = count_concepts(texts, METADATA, patients, Silent())
    monkeypatch.setattr("medclip.text.checks.matching.TEXTS_AT_ONCE", 1)
    parted = count_concepts(texts, METADATA, patients, Silent())
    assert parted.concepts == at_once.concepts
    assert (parted.concepts[0].patients_affirmed, parted.concepts[0].patients_denied) == (1, 2)
    assert parted.names_any_N.tolist() == at_once.names_any_N.tolist()


def test_texts_that_name_nothing_have_no_tail() -> None:
    counts = count_concepts(texts_of(pile_of(text=["A film.", ""])), METADATA, np.arange(2), Silent())
    assert counts.concepts == ()
    assert counts.affirmed.counts_K.tolist() == []


def test_words_are_counted_without_case_and_digits() -> None:
    tail = count_words(texts_of(pile_of(text=["Nodule nodule 12", "", "NODULE, mass"])), Silent())
    assert tail.counts_K.tolist() == [3, 1]


@given(st.lists(st.integers(0, 500), max_size=60))
def test_shares_of_a_tail_are_shares(counts: list[int]) -> None:
    tail = tail_of(np.array(counts, np.int64))
    assert 0 <= tail.share_of_rare <= 1
    assert 0 <= tail.share_of_top <= 1
    assert 0 <= tail.gini < 1
    assert (tail.share_of_rare == 1) == (bool(len(tail.counts_K)) and tail.num_rare == len(tail.counts_K))

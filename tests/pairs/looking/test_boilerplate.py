"""What many patients share is counted and printed; what few have is counted alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medclip.pairs.looking.boilerplate import LEAST_PATIENTS, Boilerplate, find_boilerplate
from medclip.pairs.looking.texts import look_at_texts, texts_of
from medclip.progress import Silent
from tests.kits.image_piles import pile_of

COMMON = "The heart is of normal size."


def found(texts: Sequence[str], patients: Sequence[int | None]) -> Boilerplate:
    pile = pile_of(text=texts)
    numbers = np.array([10_000 + n if p is None else p for n, p in enumerate(patients)])
    is_known = np.array([p is not None for p in patients])
    column = texts_of(pile)
    return find_boilerplate(column, look_at_texts(pile, column, None, Silent()), numbers, is_known, Silent())


def test_a_sentence_of_ten_patients_is_printed_and_one_of_nine_is_not() -> None:
    texts = [f"{COMMON} Finding number {n} is seen." for n in range(12)]
    texts = [f"{text} A word of nine patients." if n < LEAST_PATIENTS - 1 else text for n, text in enumerate(texts)]
    result = found(texts, range(12))
    assert [(one.kind, one.text, one.pairs, one.patients) for one in result.repeats] == [("sentence", COMMON, 12, 12)]
    assert result.num_withheld == 1
    assert result.num_distinct == 12
    assert not result.is_repeated_N.any()
    assert not result.only_repeats_N.any()


def test_thirty_images_of_one_patient_print_nothing_whether_the_patient_is_known_or_not() -> None:
    secret = "Report of Jane Doe of Elm Street."
    for patients in ([7] * 30, [None] * 30):
        result = found([secret] * 30, patients)
        assert result.repeats == ()
        assert result.shares_text_N.all()
        assert not result.is_repeated_N.any()


def test_whole_texts_of_many_patients_are_boilerplate_and_empty_ones_are_none() -> None:
    texts = (
        ["No acute  finding here.", "no acute finding HERE."] * 6
        + [""] * 20
        + [f"Lesion {n} is here." for n in range(5)]
    )
    result = found(texts, range(len(texts)))
    assert [(one.kind, one.pairs) for one in result.repeats] == [("text", 12), ("sentence", 12)]
    assert result.is_repeated_N.tolist() == [True] * 12 + [False] * 25
    assert result.only_repeats_N.tolist() == [True] * 12 + [False] * 25
    assert result.num_distinct == 6


def test_a_sentence_of_unknown_patients_is_printed_where_ten_different_texts_have_it() -> None:
    assert found([f"{COMMON} Finding {n} is seen." for n in range(10)], [None] * 10).repeats[0].patients == 10
    assert found([f"{COMMON} Finding {n} is seen." for n in range(9)] * 5, [None] * 45).repeats == ()


def test_ten_patients_are_enough_for_a_sentence() -> None:
    texts = [f"{COMMON} Finding {n} is seen." for n in range(5)] + [COMMON] * 5
    result = found(texts, range(LEAST_PATIENTS))
    assert result.only_repeats_N.tolist() == [False] * 5 + [True] * 5
    assert result.num_withheld == 0

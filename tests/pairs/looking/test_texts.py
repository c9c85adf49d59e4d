"""Texts are measured one by one: lengths, tokens, languages, faults."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.pairs.looking.texts import FAULTS, look_at_texts, texts_of
from medclip.progress import Silent
from medclip.text.checks.prompt_words import num_tokens
from medclip.text.tokenizers.clip import ClipTokenizer
from tests.kits.image_piles import pile_of


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("A nodule in the left lobe.", set()),
        ("", {"empty"}),
        ("...", {"empty"}),
        ("https://x.org/a.png", {"address"}),
        ("See https://x.org/a.png for the nodule.", {"link"}),
        ("CT image", {"modality"}),
        ("nodule", {"few words"}),
        ("A nodule. " * 256, set()),
        ("A nodule. " * 257, {"long"}),
        ("RÃ¶ntgen of the chest.", {"damaged"}),
        ("R\ufffdntgen of the chest.", {"damaged"}),
        ("Röntgen des Thorax von vorn.", set()),
        ("Dr. ___ saw the film.", {"placeholder"}),
        ("The film of <name> shows a nodule.", {"placeholder"}),
        ("A <b>large</b> nodule<br>on the left.", set()),
        ("The effusion is unchanged.", {"comparison"}),
        ("Please correlate with the CT.", {"talk"}),
        ("Film of 12/03/2020, a nodule.", {"date"}),
    ],
)
def test_a_fault_is_seen_and_nothing_else(text: str, faults: set[str]) -> None:
    pile = pile_of(text=["A normal film of the chest.", text])
    facts = look_at_texts(pile, texts_of(pile), None, Silent())
    assert {name for name, mask in facts.faults.items() if mask[1]} == faults
    assert not any(mask[0] for mask in facts.faults.values())
    assert facts.faults.keys() == FAULTS.keys()


def test_a_report_stands_for_the_caption_that_there_is_not() -> None:
    pile = pile_of(text=["A caption.", ""], report=["A report of some length.", "Another report."])
    assert texts_of(pile).to_pylist() == ["A caption.", "Another report."]


def test_lengths_are_those_of_the_longest_caption() -> None:
    pile = pile_of(text=["one two\none two three four\none", ""])
    facts = look_at_texts(pile, texts_of(pile), ClipTokenizer(77), Silent())
    assert facts.num_words_N.tolist() == [4, 0]
    assert facts.num_letters_N.tolist() == [18, 0]
    assert facts.num_tokens_N is not None
    assert facts.num_tokens_N.tolist() == [6, 2]


def test_tokens_are_counted_beyond_the_context_that_cuts_them() -> None:
    texts = ["a " * n for n in (0, 1, 5, 6, 7, 40_000)]
    assert num_tokens(texts, ClipTokenizer(8)).tolist() == [2, 3, 7, 8, 9, 40_002]


def test_a_column_of_languages_is_believed_and_letters_are_looked_at_where_there_is_none() -> None:
    texts = ["A film of the chest.", "Der Thorax ist ohne Befund und das Herz normal.", "胸部正位片未见异常。", "12"]
    pile = pile_of(text=texts)
    languages = look_at_texts(pile, texts_of(pile), None, Silent()).languages
    assert languages == (
        "English, or too short to tell",
        "another in Latin letters",
        "not in Latin letters",
        "no words",
    )
    french = "Radiographie thoracique, opacité dans le lobe supérieur droit sur fond de fibrose."
    assert look_at_texts(pile_of(text=[french]), texts_of(pile_of(text=[french])), None, Silent()).languages == (
        "another in Latin letters",
    )
    named = pile_of(text=texts, language=["en", "de", "zh", ""])
    assert look_at_texts(named, texts_of(named), None, Silent()).languages == ("en", "de", "zh", "no words")


def test_equal_texts_are_equal_whatever_case_and_blanks() -> None:
    pile = pile_of(text=["A  Nodule.", "a nodule.", "No nodule."])
    hashes = look_at_texts(pile, texts_of(pile), None, Silent()).hash_N
    assert np.unique(hashes, return_inverse=True)[1].tolist() in ([0, 0, 1], [1, 1, 0])

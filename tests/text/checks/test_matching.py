"""Entries in texts: MetaCLIP's rule letter by letter, the medical form, and which mentions are denied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.text.checks import matching
from medclip.text.checks.matching import match_texts
from medclip.text.checks.metadata import medical_metadata, plain_metadata


def naive(texts: list[str], entries: tuple[str, ...]) -> list[list[int]]:
    """Return what the loop of the paper's first version finds, by the words of the specification."""
    rows = []
    for number, text in enumerate(texts):
        for mark in ",.;:?!`":
            text = text.replace(mark, f" {mark} ")
        text = f" {text} ".replace("\t", " ").replace("\n", " ").replace("\r", " ")
        rows += [[e, number] for e, entry in enumerate(entries) if f" {entry} " in text]
    return rows


@pytest.mark.golden
def test_the_inverted_index_is_that_of_the_published_code(golden: Path) -> None:
    g = np.load(golden / "metaclip_balance.npz")
    metadata = plain_metadata(g["metadata"].tolist(), "golden")
    matches = match_texts(pa.chunked_array([g["texts"][:100].tolist(), g["texts"][100:].tolist()]), metadata)
    assert np.array_equal(matches.index_M2, g["inverted_index"])
    assert matches.num_texts == len(g["texts"])


PIECES = st.text(st.sampled_from("ab .,;:?!`\n\t\r/-('\"Bİß\x00"), max_size=12)


@given(st.lists(PIECES, max_size=6), st.lists(PIECES, min_size=1, max_size=6, unique=True))
def test_the_automaton_finds_what_a_loop_over_all_entries_finds(texts: list[str], entries: list[str]) -> None:
    if not any(entry.strip() and (len(entry) > 1 or entry.isalnum()) for entry in entries):
        return
    metadata = plain_metadata(entries, "drawn")
    expected = naive(texts, metadata.entries)
    assert match_texts(texts, metadata).index_M2.tolist() == expected
    assert match_texts(pa.array(texts, pa.string()), metadata).index_M2.tolist() == expected


@pytest.mark.parametrize(
    ("entry", "text", "matches"),
    [
        ("effusion", "effusion.", True),
        ("effusion", "Effusion.", False),
        ("effusion", "effusions", False),
        ("rib fracture", "rib\tfracture", True),
        ("mass", "`mass`", True),
        ("lung", "lung/rib", False),
        ("rib", "lung (rib)", False),
    ],
)
def test_the_reference_matches_as_the_specification_says(entry: str, text: str, matches: bool) -> None:
    assert bool(len(match_texts([text], plain_metadata([entry], "one")).index_M2)) is matches


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("Effusion.", ["effusion"]),
        ("lung/rib", ["lung", "rib"]),
        ("Ground-glass\u00a0opacity", ["ground glass opacity"]),
        ("ﬁbrosis (FIBROSIS)", ["fibrosis"]),
        ("effusions", []),
        ("ground\nglass opacity", []),
        ("İ PE", ["PE"]),
        ("a rope, pe", []),
    ],
)
def test_the_medical_form_matches_words_whatever_their_case_and_brackets(text: str, entries: list[str]) -> None:
    wordings = ["Effusion", "lung", "rib", "ground-glass opacity", "fibrosis", "PE"]
    metadata = medical_metadata([(w, [w]) for w in wordings], "mine")
    assert [metadata.entries[e] for e, _ in match_texts([text], metadata).index_M2] == entries


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = medical_metadata([("Lung", ["lung"]), ("Rib", ["rib"])], "mine")
    texts = ["lung", "no rib, no lung", "", "rib\nlung"] * 3
    at_once = match_texts(texts, metadata, polarity=True)
    monkeypatch.setattr(matching, "TEXTS_AT_ONCE", 5)
    parted = match_texts(texts, metadata, polarity=True)
    assert np.array_equal(at_once.index_M2, parted.index_M2)
    assert np.array_equal(at_once.denied_M, parted.denied_M)


def test_an_entry_counts_once_a_text_and_may_be_both_affirmed_and_denied() -> None:
    metadata = medical_metadata([("Effusion", ["effusion"])], "mine")
    matches = match_texts(["Effusion on the left. No effusion on the right; effusion."], metadata, polarity=True)
    assert matches.index_M2.tolist() == [[0, 0]]
    assert (matches.affirmed_M.tolist(), matches.denied_M.tolist()) == ([True], [True])


def test_no_denial_reaches_into_the_next_caption_of_a_pair() -> None:
    metadata = medical_metadata([("Effusion", ["effusion"])], "mine")
    assert match_texts(["lungs without\neffusion"], metadata, polarity=True).affirmed_M.all()
    assert match_texts(["lungs without effusion"], metadata, polarity=True).denied_M.all()


def test_no_text_has_no_match() -> None:
    metadata = medical_metadata([("Effusion", ["effusion"])], "mine")
    assert match_texts([], metadata).index_M2.shape == (0, 2)
    assert match_texts(pa.array([None, ""], pa.string()), metadata).index_M2.shape == (0, 2)

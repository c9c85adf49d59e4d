"""CLIP's tokenizer is open_clip's, at any context length and cleaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from medclip.errors import MedclipError, Reason
from medclip.text.tokenizers.clip import MARK, ClipTokenizer
from medclip.text.tokenizers.tokenizer import load_tokenizer

TEXTS = ["Chest X-ray, NO pneumonia!", "", "long " * 300, "µm &amp; naïve 肺", "<end_of_text> in the text", "a!!b"]


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
@pytest.mark.parametrize("length", [16, 77, 256])
def test_the_ids_are_open_clips(length: int, clean: str) -> None:
    ours, theirs = ClipTokenizer(length, clean=clean), SimpleTokenizer(context_length=length, clean=clean)
    ids = ours.encode(TEXTS)
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, theirs(TEXTS).numpy())


SHORT = ClipTokenizer(24)


@given(st.text(max_size=200))
def test_any_text_keeps_its_end_and_the_end_is_the_highest_id(text: str) -> None:
    row = SHORT.encode([text])[0]
    assert row.max() == SHORT.eos_id == SHORT.vocab_size - 1
    assert row[0] == SHORT.eos_id - 1


def test_saving_and_loading_give_the_same_ids_and_open_clip_needs_no_file(tmp_path: Path) -> None:
    ClipTokenizer(33, clean="whitespace").save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [MARK]
    again = load_tokenizer(tmp_path)
    np.testing.assert_array_equal(again.encode(TEXTS), ClipTokenizer(33, clean="whitespace").encode(TEXTS))
    by_config = load_tokenizer(
        tmp_path / "nowhere", {"context_length": 33, "tokenizer_kwargs": {"clean": "whitespace"}}
    )
    np.testing.assert_array_equal(again.encode(TEXTS), by_config.encode(TEXTS))


def test_words_come_back_without_the_marks() -> None:
    tokenizer = ClipTokenizer()
    assert tokenizer.decode(tokenizer.encode("No pneumonia")[0]) == "no pneumonia"
    assert tokenizer.encode([]).shape == (0, 77)
    assert tokenizer.pad_id == 0


@pytest.mark.parametrize("text", ["", "{", "{}", '{"context_length": "long", "clean": "lower"}'])
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MARK).write_text(text)
    with pytest.raises(MedclipError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.reason is Reason.PACK_INVALID

"""Texts of a pile, one by one: how long they are, in which language, and what is wrong with them.

A pair's text is its caption, a line each where it has several, and its report where it has no caption. Lengths are of
the longest line: training draws one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.files.tables.table import Table
from medclip.pairs.pile import Pile
from medclip.pairs.selection.basic import LONG_WORDS, is_english, is_modality_alone
from medclip.text.checks.prompt_words import num_tokens
from medclip.text.free_text import KINDS

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.progress import Progress
    from medclip.text.tokenizers.tokenizer import Tokenizer

AT_ONCE = 4096
FAULTS: Mapping[str, str] = {
    "empty": "have neither a caption nor a report",
    "address": "have an address (URL) and no word for a text",
    "link": "hold an address (URL) among their words",
    "modality": "name nothing but their modality",
    "few words": "have a text of one or two words",
    "long": f"have a text of more than {LONG_WORDS} words, of which a text tower reads the beginning",
    "damaged": "have letters that were read in a wrong encoding",
    "placeholder": "hold marks of de-identification, such as ___ or XXXX",
    "comparison": "speak of change or of an earlier study, which no single image shows",
    "talk": "speak to a colleague: recommend, discuss, refer to the history",
    "date": "hold a date or a time",
}
"""What pairs are counted by, in words that follow a number of pairs."""
NO_WORDS = "no words"
"""Language of a text without a letter."""
_ADDRESS = re.compile(r"(?:(?:https?://|www\.)\S+\s*)+", re.I)
_DAMAGED = re.compile(r"\ufffd|Ã[\x80-\xbf]|â€|Â[\xa0°µ±]")
"""The mark of a letter that could not be read, and UTF-8 that was read as Latin-1."""
_ASIDES = ("placeholder", "comparison", "talk", "date")
_MOST_LETTERS = 10_000
"""Letters of a text that are searched for asides."""
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, eq=False)
class TextFacts:
    """What is known of the texts of N pairs."""

    num_letters_N: NDArray[np.int64]
    num_words_N: NDArray[np.int64]
    num_tokens_N: NDArray[np.int64] | None
    """Of a pack's tokenizer, begin and end included; None where no pack is asked."""
    languages: tuple[str, ...]
    """What a column of the pile names, else what letters and small words speak for."""
    hash_N: NDArray[np.int64]
    """Equal for texts that are equal but for case and blanks; it holds in this process alone."""
    faults: Mapping[str, NDArray[np.bool_]]
    """By the names of `FAULTS`."""


def texts_of(pile: Pile) -> pa.ChunkedArray:
    """Return the text of each pair: its captions, or its report where there are none."""
    import pyarrow as pa
    import pyarrow.compute

    compute: Any = pyarrow.compute
    text, report = (pile.table.column(name).cast(pa.large_string()) for name in ("text", "report"))
    return compute.if_else(compute.equal(text, ""), report, text)


def batches(texts: pa.ChunkedArray) -> Iterator[tuple[int, list[str]]]:
    """Yield some texts at a time, with the number of the first."""
    for start in range(0, len(texts), AT_ONCE):
        yield start, texts.slice(start, AT_ONCE).to_pylist()


def look_at_texts(pile: Pile, texts: pa.ChunkedArray, tokenizer: Tokenizer | None, progress: Progress) -> TextFacts:
    """Measure texts, a batch at a time.

    Args:
        pile: Pairs, whose column `language` is believed.
        texts: Texts of the N pairs.
        tokenizer: Tokenizer of a pack; None where tokens are not counted.
        progress: Progress bar of the texts.
    """
    num = len(texts)
    letters_N, words_N, hash_N = (np.zeros(num, np.int64) for _ in range(3))
    tokens_N = None if tokenizer is None else np.zeros(num, np.int64)
    faults = {name: np.zeros(num, bool) for name in FAULTS}
    column = Table(pile.table, "the pile").find("language", "lang")
    languages: list[str] = []
    progress.stage("Reading texts", num)
    for start, part in batches(texts):
        rows = slice(start, start + len(part))
        lines = [max(text.split("\n"), key=len) for text in part]
        letters_N[rows], words_N[rows] = [len(line) for line in lines], [len(line.split()) for line in lines]
        hash_N[rows] = [hash(" ".join(text.casefold().split())) for text in part]
        if tokens_N is not None and tokenizer is not None:
            tokens_N[rows] = num_tokens(lines, tokenizer)
        named = [None] * len(part) if column is None else pile.cells(column, np.arange(start, start + len(part)))
        languages += [str(cell) if cell else _language(text) for cell, text in zip(named, part, strict=True)]
        for row, text in enumerate(part, start):
            for name in _faults(text):
                faults[name][row] = True
        faults["long"][rows] = words_N[rows] > LONG_WORDS
        progress.step(len(part))
    return TextFacts(letters_N, words_N, tokens_N, tuple(languages), hash_N, faults)


def _faults(text: str) -> Iterator[str]:
    if not any(letter.isalnum() for letter in text):
        yield "empty"
        return
    if _ADDRESS.fullmatch(text):
        yield "address"
        return
    if is_modality_alone(text):
        yield "modality"
    elif len(text.split()) <= 2:
        yield "few words"
    if not text.isascii() and _DAMAGED.search(text):
        yield "damaged"
    lowered = text[:_MOST_LETTERS].lower()
    if KINDS["address"].search(lowered):
        yield "link"
    for name in _ASIDES:
        if KINDS[name].search(lowered):
            yield name


def _language(text: str) -> str:
    """Name what letters and small words speak for; short texts without a sign of another language count as English."""
    letters = _LETTER.findall(text)
    if not letters:
        return NO_WORDS
    if not text.isascii() and 4 * len(_OTHER_SCRIPT.findall(text)) > len(letters):
        return "not in Latin letters"
    return "English, or too short to tell" if is_english(text) else "another in Latin letters"

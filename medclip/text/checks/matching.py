"""Which entries of metadata texts name, found by one automaton over all of them, and whether they are denied.

An entry is in a text if it stands there between blanks: MetaCLIP's rule (Xu et al., ICLR 2024), whose naive loop over
entries this equals. The automaton (Aho and Corasick, 1975) is that of ahocorasick_rs, which takes a text once however
many entries there are. Many texts are handed over as one: a call for each costs more than the search.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medclip.progress import Progress, Silent
from medclip.text.checks.metadata import Metadata, normalised, spaced
from medclip.text.checks.negation import denied_spans

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

TEXTS_AT_ONCE = 4096
_LINES = " ; "
"""Stands for a line break inside a text of the medical kind: a line is a caption, and no denial reaches out of it."""


class SlicedTexts(Protocol):
    """Texts that are read a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> list[str]: ...


@dataclass(frozen=True, eq=False)
class Matches:
    """M entries in N texts, each entry once a text."""

    num_texts: int
    index_M2: NDArray[np.int32]
    """Number of the entry and number of the text, sorted by text and then by entry."""
    affirmed_M: NDArray[np.bool_]
    """Some mention is not denied; true of all where polarity was not asked for."""
    denied_M: NDArray[np.bool_]
    """Some mention is denied."""


def match_texts(
    texts: Sequence[str] | pa.Array | pa.ChunkedArray | SlicedTexts,
    metadata: Metadata,
    *,
    polarity: bool = False,
    progress: Progress | None = None,
) -> Matches:
    """Find the entries of metadata in texts.

    Args:
        texts: N texts; of Arrow columns and of what is sliced a batch at a time is held as Python values.
        metadata: Entries, which also say how texts are spaced.
        polarity: Whether it is told which mentions are denied.
        progress: Shows how many texts were read.

    Example:
        >>> from medclip.text.checks.metadata import medical_metadata
        >>> metadata = medical_metadata([("Effusion", ["effusion"]), ("Lung", ["lung"])], "mine")
        >>> matches = match_texts(["Left lung.", "No effusion (lung)."], metadata, polarity=True)
        >>> matches.index_M2.tolist(), matches.denied_M.tolist()
        ([[1, 0], [0, 1], [1, 1]], [False, True, True])
    """
    # They grow by realloc, which moves pages and copies none: parts that are joined would be held twice.
    index, affirmed, denied, num_texts = array("i"), bytearray(), bytearray(), 0
    for batch in match_batches(texts, metadata, polarity=polarity, progress=progress):
        index.frombytes(batch.index_M2.tobytes())
        if polarity:
            affirmed += batch.affirmed_M.tobytes()
            denied += batch.denied_M.tobytes()
        num_texts += batch.num_texts
    index_M2 = np.frombuffer(index, np.int32).reshape(-1, 2)
    if not polarity:
        return Matches(num_texts, index_M2, *(np.broadcast_to(value, len(index_M2)) for value in (True, False)))
    return Matches(num_texts, index_M2, np.frombuffer(affirmed, np.bool_), np.frombuffer(denied, np.bool_))


def match_batches(
    texts: Sequence[str] | pa.Array | pa.ChunkedArray | SlicedTexts,
    metadata: Metadata,
    *,
    polarity: bool = False,
    progress: Progress | None = None,
) -> Iterator[Matches]:
    """Yield the matches of a batch of texts at a time, whose numbers are those among all texts; see `match_texts`."""
    progress = progress or Silent()
    progress.stage("Looking for names in texts", len(texts))
    first = 0
    for batch in _batches(texts):
        entry_H, text_H, denied_H = _match_batch(batch, metadata, polarity)
        key_H = text_H.astype(np.int64) * len(metadata) + entry_H
        key_M, row_H = np.unique(key_H, return_inverse=True)
        polarities_2M = np.zeros((2, len(key_M)), bool)
        polarities_2M[denied_H.astype(np.intp), row_H] = True
        index_M2 = np.stack([key_M % len(metadata), key_M // len(metadata) + first], axis=1).astype(np.int32)
        yield Matches(len(batch), index_M2, polarities_2M[0], polarities_2M[1])
        first += len(batch)
        progress.step(len(batch))


def _batches(texts: Any) -> Iterator[list[str]]:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE]
        yield [text or "" for text in (part.to_pylist() if hasattr(part, "to_pylist") else part)]


def _match_batch(texts: list[str], metadata: Metadata, polarity: bool) -> tuple[NDArray[Any], ...]:
    """Return the entry and the text of each mention, and whether it is denied, in no order."""
    block = "\n".join(texts)
    if block.count("\n") != len(texts) - 1:
        block = "\n".join(text.replace("\n", " " if metadata.reference else _LINES) for text in texts)
    block = spaced(block) if metadata.reference else normalised(block)
    none = np.zeros(0, np.int64)
    mentions = [(none, none, np.zeros(0, bool))]  # a list may have no entry that can be met
    for automaton, numbers_A, keeps_case in _automata(metadata):
        # In lower case a letter may become two, so each form has places of its own.
        form = block if keeps_case or metadata.reference else block.lower()
        hits = automaton.find_matches_as_indexes(form, overlapping=True)
        hit_H3 = np.fromiter(_flat(hits), np.int64, 3 * len(hits)).reshape(-1, 3)
        lines = form.split("\n")
        end_N = np.cumsum([len(line) + 1 for line in lines])
        text_H = np.searchsorted(end_N, hit_H3[:, 1], side="right")
        denied_H = np.zeros(len(hits), bool)
        if polarity:
            start_N = np.concatenate([[0], end_N[:-1]])
            spans_H2 = hit_H3[:, 1:] - start_N[text_H, None]
            denied_H = _denied(lines, text_H, spans_H2)
        mentions.append((numbers_A[hit_H3[:, 0]], text_H, denied_H))
    return tuple(np.concatenate(column) for column in zip(*mentions, strict=True))


def _flat(hits: Iterable[tuple[int, int, int]]) -> Iterator[int]:
    for hit in hits:
        yield from hit


def _denied(lines: list[str], text_H: NDArray[Any], spans_H2: NDArray[Any]) -> NDArray[np.bool_]:
    """Return of each mention whether it is denied; mentions stand in the order of their texts."""
    answers: list[bool] = []
    bounds = [*np.flatnonzero(np.diff(text_H, prepend=-1)).tolist(), len(text_H)]
    for start, stop in pairwise(bounds):
        spans = [(begin + 1, end - 1) for begin, end in spans_H2[start:stop].tolist()]  # without the blanks around it
        answers += denied_spans(lines[text_H[start]].lower(), spans)
    return np.array(answers, bool)


@lru_cache(maxsize=2)
def _automata(metadata: Metadata) -> tuple[tuple[Any, NDArray[np.int64], bool], ...]:
    """Return automata of the entries in lower case and of those that keep their case, with the numbers of theirs."""
    from ahocorasick_rs import AhoCorasick

    automata = []
    for keeps_case in (False, True):
        numbers = np.flatnonzero(metadata.keeps_case_E == keeps_case)
        # Texts are lines, so an entry with a line break is in none.
        numbers = np.array([n for n in numbers.tolist() if "\n" not in metadata.entries[n]], np.int64)
        if len(numbers):
            patterns = [f" {metadata.entries[n]} " for n in numbers.tolist()]
            automata.append((AhoCorasick(patterns, store_patterns=False), numbers, keeps_case))
    return tuple(automata)

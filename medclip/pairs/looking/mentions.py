"""Concepts that texts affirm and deny, and how long the tails are: of concepts, and of words.

Entries, matching and polarity are those of the steps `text` and `balance`: what is counted here is what they would see.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip.pairs.looking.texts import batches
from medclip.pairs.selection.balance import LEAST_T, gini
from medclip.text.checks.matching import match_batches

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.progress import Progress
    from medclip.text.checks.metadata import Metadata

TOP = 10
"""The most frequent ones, whose share is stated."""
_MOST_WORDINGS = 3
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Concept:
    """How many pairs name a concept."""

    concept: str
    wordings: str
    """The entries by which it is named most: "mass" may be an entry of a lung mass."""
    affirmed: int
    """Pairs that affirm it and deny it nowhere."""
    denied: int
    both: int
    """Pairs that affirm it in one place and deny it in another."""
    patients_affirmed: int
    patients_denied: int

    @property
    def pairs(self) -> int:
        """Pairs that name it."""
        return self.affirmed + self.denied + self.both


@dataclass(frozen=True, eq=False)
class Tail:
    """Counts of K things, and how unequal they are."""

    counts_K: NDArray[np.int64]
    """The most frequent first."""
    share_of_top: float
    """Share of all mentions that are of the ten most frequent."""
    num_rare: int
    """Things below `LEAST_T`."""
    share_of_rare: float
    """Share of all mentions that are of those."""
    gini: float


@dataclass(frozen=True, eq=False)
class ConceptCounts:
    """What N texts name of a list of concepts."""

    metadata: str
    num_listed: int
    concepts: tuple[Concept, ...]
    """Those that any pair names, the most frequent first."""
    affirmed: Tail
    """Pairs that affirm each concept."""
    names_any_N: NDArray[np.bool_]


def count_concepts(
    texts: pa.ChunkedArray,
    metadata: Metadata,
    patients_N: NDArray[np.int64],
    progress: Progress,
) -> ConceptCounts:
    """Count the pairs and patients that affirm and deny each concept.

    Args:
        texts: Texts of the N pairs.
        metadata: Concepts with their wordings.
        patients_N: Patient of each pair, as a number; of its own where none is known.
        progress: Progress bar of the texts.
    """
    num, counts_E = len(metadata.concepts), np.zeros(len(metadata), np.int64)
    counts, names_any_N = np.zeros((3, num), np.int64), np.zeros(len(texts), bool)
    most = int(patients_N.max(initial=0)) + 1
    # Mentions of a batch become counts at once: of all texts only concepts of patients are held, each once a batch.
    keys = (array("q"), array("q"))
    for batch in match_batches(texts, metadata, polarity=True, progress=progress):
        entry_M, text_M = batch.index_M2.T
        counts_E += np.bincount(entry_M, minlength=len(metadata))
        # A concept has several wordings: one line for each concept of a text.
        key_M = text_M.astype(np.int64) * num + metadata.concept_E[entry_M]
        key_L, line_M = np.unique(key_M, return_inverse=True)
        affirmed_L, denied_L = np.zeros(len(key_L), bool), np.zeros(len(key_L), bool)
        affirmed_L[line_M[batch.affirmed_M]] = True
        denied_L[line_M[batch.denied_M]] = True
        concept_L, row_L = key_L % num, key_L // num
        names_any_N[row_L] = True
        both_L = affirmed_L & denied_L
        for place, of in enumerate((affirmed_L & ~both_L, denied_L & ~both_L, both_L)):
            counts[place] += np.bincount(concept_L[of], minlength=num)
        for column, of in zip(keys, (affirmed_L, denied_L), strict=True):
            column.frombytes(np.unique(concept_L[of] * most + patients_N[row_L[of]]).astype(np.int64).tobytes())
    patients = [np.bincount(np.unique(np.frombuffer(k, np.int64)) // most, minlength=num) for k in keys]
    wordings = _wordings(counts_E, metadata)
    total_K = np.sum(counts, axis=0)
    concepts = [
        Concept(metadata.concepts[k], wordings[k], *(int(column[k]) for column in (*counts, *patients)))
        for k in np.argsort(-total_K, kind="stable").tolist()
        if total_K[k]
    ]
    return ConceptCounts(metadata.name, num, tuple(concepts), tail_of(counts[0] + counts[2]), names_any_N)


def count_words(texts: pa.ChunkedArray, progress: Progress) -> Tail:
    """Count how often each word stands, without digits and case. Words themselves are not kept: some are names."""
    counts: Counter[str] = Counter()
    progress.stage("Counting words", len(texts))
    for _, part in batches(texts):
        counts.update(word for text in part for word in _WORD.findall(text.casefold()))
        progress.step(len(part))
    return tail_of(np.fromiter(counts.values(), np.int64, len(counts)))


def tail_of(counts_K: NDArray[np.int64]) -> Tail:
    """Measure how unequal counts are; those of 0 are left out.

    Example:
        >>> tail = tail_of(np.array([90, 0, 8, 2]))
        >>> tail.counts_K.tolist(), tail.num_rare, tail.share_of_rare
        ([90, 8, 2], 2, 0.1)
    """
    counts_K = np.sort(counts_K[counts_K > 0])[::-1].astype(np.int64)
    total, rare_K = max(1, int(counts_K.sum())), counts_K < LEAST_T
    return Tail(
        counts_K,
        float(counts_K[:TOP].sum() / total),
        int(rare_K.sum()),
        float(counts_K[rare_K].sum() / total),
        gini(counts_K),
    )


def _wordings(counts_E: NDArray[np.int64], metadata: Metadata) -> dict[int, str]:
    """Return the most frequent entries of each concept in one line."""
    wordings: dict[int, list[str]] = {}
    for entry in np.argsort(-counts_E, kind="stable").tolist():
        if not counts_E[entry]:
            break
        wordings.setdefault(int(metadata.concept_E[entry]), []).append(metadata.entries[entry])
    return {concept: ", ".join(entries[:_MOST_WORDINGS]) for concept, entries in wordings.items()}

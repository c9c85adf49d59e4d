"""What texts say again and again: whole texts, and sentences of them, with the patients that they stand at.

A sentence is printed only where it stands at `LEAST_PATIENTS` patients or more: what so many share can be no name, date
or number of one of them. Of a pair whose patient is not known, everything that has the same whole text counts as one
patient: a report that was copied to its thirty images is no boilerplate. The limit is the audit's least size of a cell.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip.pairs.looking.texts import TextFacts, batches
from medclip.text.free_text import sentences

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.progress import Progress

LEAST_PATIENTS = 10
_MOST_LINES = 30


@dataclass(frozen=True)
class Repeat:
    """A text or a sentence that many patients have."""

    kind: str
    """"text" or "sentence"."""
    text: str
    pairs: int
    patients: int
    share: float
    """Share of all pairs."""


@dataclass(frozen=True, eq=False)
class Boilerplate:
    """What is said again in N pairs."""

    repeats: tuple[Repeat, ...]
    """Those of most patients, whole texts first."""
    num_distinct: int
    """Texts that differ by more than case and blanks; empty ones are none."""
    num_withheld: int
    """Sentences of two pairs and more that fewer than `LEAST_PATIENTS` patients have, which are not printed."""
    is_repeated_N: NDArray[np.bool_]
    """Whole texts that `LEAST_PATIENTS` patients or more have."""
    shares_text_N: NDArray[np.bool_]
    """Texts that another pair has, too, of whichever patient."""
    only_repeats_N: NDArray[np.bool_]
    """Texts of which every sentence is one of so many patients."""


def find_boilerplate(
    texts: pa.ChunkedArray,
    facts: TextFacts,
    patients_N: NDArray[np.int64],
    is_known_N: NDArray[np.bool_],
    progress: Progress,
) -> Boilerplate:
    """Count texts and sentences by the patients that they stand at.

    Args:
        texts: Texts of the N pairs.
        facts: Facts of these texts.
        patients_N: Patient of each, as a number.
        is_known_N: Whether the patient is known.
        progress: Progress bar of the texts.
    """
    has_text_N = ~facts.faults["empty"]
    # Of pairs without a patient the text stands for one; negative numbers are no patient's.
    unit_N = np.where(is_known_N, patients_N, -2 - np.unique(facts.hash_N, return_inverse=True)[1])
    hashes, rows = array("q"), array("q")  # lists of five million texts take gigabytes
    progress.stage("Comparing sentences", len(texts))
    for start, part in batches(texts):
        for row, text in enumerate(part, start):
            codes = dict.fromkeys(hash(sentence.casefold()) for sentence in sentences(text))
            hashes.extend(codes)
            rows.extend(row for _ in codes)
        progress.step(len(part))
    row_S = np.array(rows, np.int64)
    names, code_S = np.unique(np.array(hashes, np.int64), return_inverse=True)
    pairs_C = np.bincount(code_S, minlength=len(names))
    patients_C = _num_units(code_S, unit_N[row_S], len(names))
    common_C = patients_C >= LEAST_PATIENTS
    rare_N = np.zeros(len(texts), bool)
    rare_N[row_S[~common_C[code_S]]] = True
    with_sentence_N = np.zeros(len(texts), bool)
    with_sentence_N[row_S] = True

    texts_W, text_T = np.unique(facts.hash_N[has_text_N], return_inverse=True)
    patients_W = _num_units(text_T, unit_N[has_text_N], len(texts_W))
    is_repeated_N = np.zeros(len(texts), bool)
    is_repeated_N[has_text_N] = patients_W[text_T] >= LEAST_PATIENTS
    shares_text_N = np.zeros(len(texts), bool)
    shares_text_N[has_text_N] = np.bincount(text_T, minlength=len(texts_W))[text_T] > 1
    repeats = [
        *_repeats("text", texts, np.flatnonzero(has_text_N), text_T, patients_W, texts_W),
        *_repeats("sentence", texts, row_S, code_S, patients_C, names),
    ]
    num_withheld = int(((pairs_C > 1) & ~common_C).sum())
    only_N = with_sentence_N & ~rare_N
    return Boilerplate(tuple(repeats), len(texts_W), num_withheld, is_repeated_N, shares_text_N, only_N)


def _num_units(code_S: NDArray[np.int64], unit_S: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Count the different units of each code."""
    if not len(code_S):
        return np.zeros(num, np.int64)
    units, unit_S = np.unique(unit_S, return_inverse=True)
    return np.bincount(np.unique(code_S * len(units) + unit_S) // len(units), minlength=num)


def _repeats(
    kind: str,
    texts: pa.ChunkedArray,
    row_S: NDArray[np.int64],
    code_S: NDArray[np.int64],
    patients_C: NDArray[np.int64],
    names: NDArray[np.int64],
) -> list[Repeat]:
    """Return what most patients have, in the words of the first pair that has it."""
    if not len(code_S):
        return []
    pairs_C = np.bincount(code_S, minlength=len(patients_C))
    first_C = np.unique(code_S, return_index=True)[1]
    repeats = []
    for code in np.lexsort((first_C, -pairs_C, -patients_C))[:_MOST_LINES].tolist():
        if patients_C[code] < LEAST_PATIENTS:
            break
        text = texts[int(row_S[first_C[code]])].as_py()
        if kind == "sentence":
            text = next(one for one in sentences(text) if hash(one.casefold()) == names[code])
        repeats.append(Repeat(kind, text, int(pairs_C[code]), int(patients_C[code]), float(pairs_C[code] / len(texts))))
    return repeats

"""Balance a pile over the concepts that its texts name: frequent ones are thinned, rare ones stay (MetaCLIP).

Xu et al., "Demystifying CLIP Data" (ICLR 2024): an entry that c texts name is kept with probability t / max(c, t). With
`reference: true` numbers are those of its published code. The medical default counts concepts and not their wordings,
tells affirmed from denied ones, and counts a concept once a patient: of a patient's texts the first that names it
carries it, images of one text together. Balance last, after steps that drop: counts are of what is left.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from medclip.pairs.pile import Pile, Words
from medclip.pairs.selection.metadata_files import MetadataSettings, read_metadata
from medclip.pairs.selection.steps import Context, Verdict
from medclip.text.checks.matching import Matches, match_batches
from medclip.text.checks.metadata import Metadata, left_out_notes
from medclip.wording import count, number

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

LEAST_T = 20
"""Where t is chosen by the share of the tail, it is not lower: in a small pile nothing is thinned."""
_MOST_BARS = 20
_ROWS_AT_ONCE = 1 << 16
_MENTIONS_AT_ONCE = 1 << 20
DENIED = "no "
"""Begins the name of a concept that is denied."""

Polarity = Literal["all", "affirmed", "split"]


class BalanceSettings(MetadataSettings):
    """How a pile is balanced."""

    t: float | None = Field(None, gt=0)
    """Texts of a concept above which it is thinned, .inf keeps each text that names one; None chooses it by
    `tail_share`."""
    tail_share: float = Field(0.06, ge=0, le=1)
    """Share of all mentions that are of concepts below t."""
    rule: Literal["pair", "text"] = "text"
    """One draw for each concept of a text, or one for the text: the same in the mean."""
    polarity: Polarity = "split"
    """`all` does not tell affirmed from denied, `affirmed` leaves denied ones out, `split` counts them apart."""
    reference: bool = False

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.t is not None and "tail_share" in self.model_fields_set:
            raise ValueError("balance takes t or a tail_share, one of them.")
        return self


def entry_counts(index_M2: NDArray[np.integer[Any]], num_entries: int) -> NDArray[np.uint64]:
    """Count the texts of each entry, uint64 [E]."""
    counts_E = np.zeros(num_entries, np.uint64)
    for part in _blocks(len(index_M2)):
        counts_E += np.bincount(index_M2[part, 0], minlength=num_entries).astype(np.uint64)
    return counts_E


def _blocks(num: int) -> Iterator[slice]:
    """Yield mentions a block at a time: what is computed of 125 million of them would take GB."""
    return (slice(start, start + _MENTIONS_AT_ONCE) for start in range(0, num, _MENTIONS_AT_ONCE))


def probabilities(counts_E: NDArray[np.uint64], t: float) -> NDArray[np.float64]:
    """Compute with which probability a mention of each entry is kept.

    Example:
        >>> probabilities(np.array([10, 2], np.uint64), 4).tolist()
        [0.4, 1.0]
    """
    counts = counts_E.astype(np.float64)
    return np.ones(len(counts)) if math.isinf(t) else t / np.maximum(counts, t)


def tail_share(counts_E: NDArray[np.uint64], t: float) -> float:
    """Compute the share of all mentions that are of entries below t."""
    return float(counts_E[counts_E < t].sum() / counts_E.sum()) if counts_E.any() else 0.0


def t_of_share(counts_E: NDArray[np.uint64], share: float) -> int:
    """Choose the count t below which about `share` of all mentions lie: the first of the nearest ones."""
    ascending = np.sort(counts_E)
    shares = np.cumsum(ascending) / max(1, int(counts_E.sum()))
    return int(ascending[np.argmin(np.abs(shares - share))])


def keep_probabilities(
    index_M2: NDArray[np.integer[Any]], p_E: NDArray[np.float64], num_texts: int
) -> NDArray[np.float64]:
    """Compute with which probability each text is kept; 0 for one that names no entry.

    Example:
        >>> keep_probabilities(np.array([[0, 0], [1, 0]]), np.array([0.4, 0.4]), 2).round(2).tolist()
        [0.64, 0.0]
    """
    misses = np.ones(num_texts)
    for part in _blocks(len(index_M2)):
        np.multiply.at(misses, index_M2[part, 1], 1 - p_E[index_M2[part, 0]])
    return 1 - misses


def kept_by_pairs(
    index_M2: NDArray[np.integer[Any]], p_E: NDArray[np.float64], u_M: NDArray[np.float64], num_texts: int
) -> NDArray[np.bool_]:
    """Keep texts of which one entry is drawn.

    Args:
        index_M2: Entry and text of each mention.
        p_E: Probability of each entry.
        u_M: Draws from 0 to 1, one for each mention.
        num_texts: Number of texts.
    """
    kept_N = np.zeros(num_texts, bool)
    kept_N[index_M2[u_M < p_E[index_M2[:, 0]], 1]] = True
    return kept_N


@dataclass(frozen=True, eq=False)
class Mentions:
    """Which concepts are named by which of N units: texts, or in the medical way texts of patients.

    125 million of them take 0.5 GB, and would take twice as much with the number of its unit beside each.
    """

    concept_M: NDArray[np.int32]
    """Numbers of the concepts of the first unit, ascending, then of the second."""
    num_N: NDArray[np.int32]
    """How many concepts each unit names."""
    names: tuple[str, ...]
    """Names of the concepts; of split ones the denied ones stand behind the affirmed ones."""

    @property
    def index_M2(self) -> NDArray[np.int32]:
        """Return the number of the concept and that of the unit, sorted by unit and then by concept."""
        return np.stack([self.concept_M, np.repeat(np.arange(len(self.num_N)), self.num_N)], axis=1).astype(np.int32)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Yield some units at a time, with their concepts and the places of these units among them, int64 [K, 2]."""
        stop_N = np.cumsum(self.num_N, dtype=np.int64)
        firsts = (np.flatnonzero(np.diff(stop_N // _MENTIONS_AT_ONCE)) + 1).tolist()
        start = 0
        for first, last in pairwise([0, *firsts, len(stop_N)]):
            num_K = self.num_N[first:last]
            concept_K = self.concept_M[start : start + int(num_K.sum())].astype(np.int64)
            start += len(concept_K)
            yield slice(first, last), np.stack([concept_K, np.repeat(np.arange(len(num_K)), num_K)], axis=1)


def concept_mentions(matches: Iterable[Matches], metadata: Metadata, polarity: Polarity) -> Mentions:
    """Turn the entries of batches into concepts, and into affirmed and denied ones where that is asked for."""
    num, names, concepts = len(metadata.concepts), metadata.concepts, array("i")
    if polarity == "split":
        names = (*names, *(DENIED + name for name in names))
    nums, first = [np.zeros(0, np.int32)], 0
    for batch in matches:
        concept_M = metadata.concept_E[batch.index_M2[:, 0]].astype(np.int64)
        text_M = batch.index_M2[:, 1].astype(np.int64) - first
        if polarity != "all":
            affirmed_M, denied_M = batch.affirmed_M, batch.denied_M & (polarity == "split")
            concept_M = np.concatenate([concept_M[affirmed_M], concept_M[denied_M] + num])
            text_M = np.concatenate([text_M[affirmed_M], text_M[denied_M]])
        key_M = np.unique(text_M * len(names) + concept_M)
        # It grows by realloc, which moves pages and copies none: parts that are joined would be held twice.
        concepts.frombytes((key_M % len(names)).astype(np.int32).tobytes())
        nums.append(np.bincount(key_M // len(names), minlength=batch.num_texts).astype(np.int32))
        first += batch.num_texts
    return Mentions(np.frombuffer(concepts, np.int32), np.concatenate(nums), names)


def once_a_patient(mentions: Mentions, patient_N: NDArray[np.intp]) -> Mentions:
    """Leave the first text of each patient that names a concept.

    Args:
        mentions: Concepts of N texts, which are used up: those that stay move to the front of their array.
        patient_N: Number of the patient of each text.
    """
    concept_M, num_N = mentions.concept_M, mentions.num_N
    start_N = np.cumsum(num_N, dtype=np.int64) - num_N
    stays_M, staying_N = np.zeros(len(concept_M), bool), np.zeros_like(num_N)
    for text_P in _patients_at_once(patient_N, num_N):
        num_P = num_N[text_P]
        row_K = np.repeat(start_N[text_P] - (np.cumsum(num_P) - num_P), num_P) + np.arange(num_P.sum())
        key_K = np.repeat(patient_N[text_P].astype(np.int64), num_P) * len(mentions.names) + concept_M[row_K]
        first_K = np.unique(key_K, return_index=True)[1]
        stays_M[row_K[first_K]] = True
        staying_N[text_P] = np.bincount(np.repeat(np.arange(len(text_P)), num_P)[first_K], minlength=len(text_P))
    stop = 0
    for part in _blocks(len(concept_M)):
        staying = concept_M[part][stays_M[part]]
        concept_M[stop : stop + len(staying)] = staying
        stop += len(staying)
    return Mentions(concept_M[:stop], staying_N, mentions.names)


def _patients_at_once(patient_N: NDArray[np.intp], num_N: NDArray[np.int32]) -> Iterator[NDArray[np.intp]]:
    """Yield the texts of whole patients, of about as many mentions as a block has; a patient's texts in their order."""
    order = np.argsort(patient_N, kind="stable")
    stops = np.append(np.flatnonzero(np.diff(patient_N[order])) + 1, len(order))
    blocks = np.append(0, np.cumsum(num_N[order], dtype=np.int64))[stops] // _MENTIONS_AT_ONCE
    yield from np.split(order, stops[:-1][np.diff(blocks) > 0])


def units_of(pile: Pile, rows_M: NDArray[np.int64]) -> tuple[NDArray[np.intp], Words, NDArray[np.intp]]:
    """Put images of one patient with one text together: they are of one study, and share their fate.

    Returns:
        The unit of each row; the text of each unit; the patient of each unit, a number of its own where unknown.
    """
    patients: dict[str, int] = {}
    patient_M, hash_M = np.empty(len(rows_M), np.int64), np.empty(len(rows_M), np.int64)
    for start in range(0, len(rows_M), _ROWS_AT_ONCE):
        rows = rows_M[start : start + _ROWS_AT_ONCE]
        cells = enumerate(pile.cells("patient", rows), start)
        patient_M[start : start + len(rows)] = [
            patients.setdefault(patient, len(patients)) if patient else -1 - i for i, patient in cells
        ]
        # Of five million texts two have one hash by chance once in 1.5 million times.
        hash_M[start : start + len(rows)] = [hash(text) for text in pile.words(rows)]
    order = np.lexsort((hash_M, patient_M))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(patient_M[order]) != 0) | (hash_M[order][1:] != hash_M[order][:-1])
    first_M = np.empty(len(order), np.int64)
    first_M[order] = order[is_new][np.cumsum(is_new) - 1]  # the sort is stable: the first of a unit is its earliest row
    first_U, unit_M = np.unique(first_M, return_inverse=True)
    return unit_M, Words(pile, rows_M[first_U]), patient_M[first_U]


def balance(pile: Pile, rows_M: NDArray[np.int64], settings: BalanceSettings, context: Context, step: int) -> Verdict:
    """Keep texts by how rare the concepts are that they name; one that names none is dropped.

    Returns:
        Verdict whose value is the probability with which a row is kept.

    Raises:
        MedclipError: Refusals of `read_metadata`.
    """
    metadata = read_metadata(settings.metadata, context.folder, reference=settings.reference)
    polarity: Polarity = "all" if settings.reference else settings.polarity
    unit_M, texts, patient_U = np.arange(len(rows_M)), Words(pile, rows_M), None
    if not settings.reference:
        unit_M, texts, patient_U = units_of(pile, rows_M)
    batches = match_batches(texts, metadata, polarity=polarity != "all", progress=context.progress)
    mentions = concept_mentions(batches, metadata, polarity)
    matched_U = mentions.num_N > 0
    if patient_U is not None:
        mentions = once_a_patient(mentions, patient_U)
    counts_E = np.zeros(len(mentions.names), np.uint64)
    for _, index in mentions.blocks():
        counts_E += entry_counts(index, len(counts_E))
    t = settings.t
    if t is None:
        t = t_of_share(counts_E[counts_E > 0], settings.tail_share) if counts_E.any() else 0
        t = t if settings.reference else max(LEAST_T, t)
    p_E = probabilities(counts_E, t) if t else np.ones(len(counts_E))
    rng, keep_U, kept_U = context.rng("balance", step), np.zeros(len(texts)), np.zeros(len(texts), bool)
    for part, index in mentions.blocks():
        keep_U[part] = keep_probabilities(index, p_E, part.stop - part.start)
        if settings.rule == "pair":
            kept_U[part] = kept_by_pairs(index, p_E, rng.random(len(index)), part.stop - part.start)
    if settings.rule == "text":
        kept_U = (keep_U >= rng.random(len(texts))) & (keep_U > 0)
    num_repeats = int((matched_U & (keep_U == 0))[unit_M].sum())
    facts = metadata.about() | {
        "t": None if math.isinf(t) else t,
        "tail_share": tail_share(counts_E, t),
        "without_concept": int((~matched_U[unit_M]).sum()),
        "repeats_of_a_patient": num_repeats,
        "expected": float(keep_U[unit_M].sum()),
        "histogram": histogram(mentions, kept_U),
    }
    notes = left_out_notes(facts) + _notes(len(unit_M), int(matched_U[unit_M].sum()), num_repeats, counts_E, t)
    return Verdict(kept_U[unit_M], keep_U[unit_M], facts=facts, notes=notes)


def histogram(mentions: Mentions, kept_N: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how often concepts are named before and after: those that are named most and least, and how many are."""
    num = len(mentions.names)
    before_E, after_E = np.zeros(num, np.int64), np.zeros(num, np.int64)
    for part, index in mentions.blocks():
        before_E += entry_counts(index, num).astype(np.int64)
        after_E += entry_counts(index[kept_N[part][index[:, 1]]], num).astype(np.int64)
    order = [e for e in np.argsort(-before_E, kind="stable").tolist() if before_E[e]]
    bars = [{"concept": mentions.names[e], "before": int(before_E[e]), "after": int(after_E[e])} for e in order]
    return {
        "named_before": len(order),
        "named_after": int((after_E > 0).sum()),
        "gini_before": gini(before_E[order]),
        "gini_after": gini(after_E[order]),
        "top": bars[:_MOST_BARS],
        "tail": bars[max(_MOST_BARS, len(bars) - _MOST_BARS) :],
    }


def gini(counts_E: NDArray[np.int64]) -> float:
    """Compute the Gini coefficient of counts: 0 where all are equal, near 1 where one has all.

    Example:
        >>> gini(np.array([3, 3])), gini(np.array([0, 0, 0, 4]))
        (0.0, 0.75)
    """
    if not counts_E.any():
        return 0.0
    ascending = np.sort(counts_E)
    ranks = np.arange(1, len(counts_E) + 1)
    return float((2 * ranks - len(counts_E) - 1) @ ascending / (len(counts_E) * ascending.sum()))


def _notes(
    num_rows: int, num_matched: int, num_repeats: int, counts_E: NDArray[np.uint64], t: float
) -> tuple[str, ...]:
    notes = []
    if num_matched < num_rows:
        pairs = count(num_rows - num_matched, "pair")
        notes.append(f"{pairs} of {number(num_rows)} name no concept of the metadata, and are dropped.")
    if num_repeats:
        notes.append(f"{count(num_repeats, 'pair')} dropped: what it names, an earlier text of its patient names, too.")
    if num_matched and t >= int(counts_E.max()):
        highest = number(int(counts_E.max()))
        notes.append(f"No concept is named more often than t allows (at most {highest} times): nothing is thinned.")
    return tuple(notes)

"""Which change each text gets, so that no word betrays the false one: every change is made as often as its reverse.

A false text that lends its sentence to another, and borrows the other's, leaves the words of all texts together as they
were: where the mean of every feature is the same on both sides, a linear classifier of words has nothing to learn. So
"effusion present" is exchanged with "effusion absent" between two texts, and "left" becomes "right" of a finding as
often as the reverse. A text for whose changes no partner is left has no hard negative, and says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip.pairs.words.reports.hard_negatives import Edit, Labels, fault_of, num_contradicted


@dataclass(frozen=True)
class Negative:
    """One hard negative of a text."""

    text: str
    edit_type: str
    entity: str
    before: str
    after: str
    start: int
    """First letter of the change in `text`, the edit span."""
    end: int


@dataclass(frozen=True, eq=False)
class Editable:
    """A text that is true of its image, and the changes that it can have."""

    text: str
    edits: tuple[Edit, ...]
    modality: str = ""
    labels: Labels | None = None
    """Labels of the image; a negative must contradict exactly one where there are any and the text is made of them."""


_Offer = tuple[int, Edit]


def balanced_negatives(
    texts: Sequence[Editable], *, most: int = 1, seed: int = 0, balance: bool = True
) -> tuple[list[tuple[Negative, ...]], dict[str, int]]:
    """Choose the changes of N texts.

    Args:
        texts: The texts.
        most: Most negatives of a text.
        seed: Seed of the order in which texts are paired.
        balance: Whether each change is made as often as its reverse; without it every text gets a change where it can,
            and a classifier of words may tell the false texts.

    Returns:
        Negatives of each text, and how many changes were refused by reason (see `hard_negatives.fault_of`), with
        `no_partner` for texts that have changes and no negative.
    """
    chosen: list[list[Negative]] = [[] for _ in texts]
    used: list[set[tuple[str, str]]] = [set() for _ in texts]
    refused: dict[str, int] = defaultdict(int)
    groups = _groups(texts, seed)
    for key in sorted(groups, key=lambda k: (min(map(len, groups[k])), k)):
        first, second = groups[key]
        while first and second:
            one = _next(first, chosen, used, most)
            other = _next(second, chosen, used, most, besides=None if one is None else one[0])
            if one is None or other is None:
                break
            pair = _exchanged(texts, one, other, refused)
            if pair is None:
                second.remove(other)
                continue
            for offer, negative in zip((one, other), pair, strict=True):
                chosen[offer[0]].append(negative)
                used[offer[0]].add((offer[1].kind, offer[1].entity))
            first.remove(one)
            second.remove(other)
    if not balance:
        _fill(texts, chosen, refused, seed)
    refused["no_partner"] = sum(bool(t.edits) and not n for t, n in zip(texts, chosen, strict=True))
    return [tuple(n) for n in chosen], {name: n for name, n in sorted(refused.items()) if n}


def _groups(texts: Sequence[Editable], seed: int) -> Mapping[tuple[str, ...], tuple[list[_Offer], list[_Offer]]]:
    """Return the changes of a kind, of a finding, between two values: those of either direction."""
    groups: dict[tuple[str, ...], tuple[list[_Offer], list[_Offer]]] = defaultdict(lambda: ([], []))
    for number in np.random.default_rng([seed, len(texts)]).permutation(len(texts)):
        text = texts[number]
        for edit in text.edits:
            low, high = sorted((edit.before, edit.after))
            key = (text.modality, edit.kind, edit.entity, low, high, "" if edit.new else "borrowed")
            groups[key][edit.before != low].append((int(number), edit))
    return groups


def _next(
    offers: list[_Offer],
    chosen: Sequence[Sequence[Negative]],
    used: Sequence[set[tuple[str, str]]],
    most: int,
    besides: int | None = None,
) -> _Offer | None:
    """Return the first change of a text that still takes one; those that take none are dropped from the list."""
    offers[:] = [o for o in offers if len(chosen[o[0]]) < most and (o[1].kind, o[1].entity) not in used[o[0]]]
    return next((o for o in offers if o[0] != besides), None)


def _exchanged(
    texts: Sequence[Editable], one: _Offer, other: _Offer, refused: dict[str, int]
) -> tuple[Negative, Negative] | None:
    """Make both negatives; None where one of them is none."""
    negatives = []
    for (number, edit), (_, lender) in ((one, other), (other, one)):
        negative = _negative(texts[number], edit, edit.new or lender.lends, refused)
        if negative is None:
            return None
        negatives.append(negative)
    return negatives[0], negatives[1]


def _negative(text: Editable, edit: Edit, new: str, refused: dict[str, int]) -> Negative | None:
    written, start, end = edit.written(text.text, new)
    if text.labels:
        fault = None if num_contradicted(written, text.labels) == 1 else "not_one_label"
    else:
        fault = fault_of(text.text, written, edit, text.modality)
    if fault is not None:
        refused[fault] += 1
        return None
    return Negative(written, edit.kind, edit.entity, edit.before, edit.after, start, end)


def _fill(texts: Sequence[Editable], chosen: list[list[Negative]], refused: dict[str, int], seed: int) -> None:
    """Add to texts without a negative the first change that holds, with a sentence of a text that lends one."""
    lent: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for text in texts:
        for edit in text.edits:
            if edit.lends:
                lent[text.modality, edit.entity, edit.before].append(edit.lends)
    for number, text in enumerate(texts):
        if chosen[number]:
            continue
        rng = np.random.default_rng([seed, number])
        for place in rng.permutation(len(text.edits)):
            edit = text.edits[place]
            lenders = lent[text.modality, edit.entity, edit.after]
            new = edit.new or (lenders[int(rng.integers(len(lenders)))] if lenders else "")
            negative = _negative(text, edit, new, refused) if new else None
            if negative is not None:
                chosen[number].append(negative)
                break

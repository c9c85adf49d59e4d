"""Can two images be told to be of one patient? Verification over pairs, with intervals that resample patients.

A genuine pair is two images of one patient from different studies, an impostor pair is of two patients. In a replicate
a genuine pair counts as often as its patient was drawn, an impostor pair as often as the product of its two. All
genuine pairs are kept; of the impostors the most alike (which alone decide the threshold of a small false positive
rate), and an even sample of all for AUROC and equal error rate. Where there are few enough, both are all of them, and
exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients

FALSE_POSITIVES = 1e-3
"""The false positive rate at which linkage is stated."""
_TAIL = 5 * FALSE_POSITIVES
"""Share of impostor pairs that is kept for the threshold; replicates move it by far less than five times."""
_KEPT = 300_000
"""Impostor pairs up to which everything is exact."""
_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images: how alike, and whose."""

    cosine_M: NDArray[np.float32]
    first_M: NDArray[np.int32]
    """Patient, 0 to P - 1."""
    second_M: NDArray[np.int32]

    def take(self, chosen: NDArray[np.integer] | slice) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.cosine_M[chosen], self.first_M[chosen], self.second_M[chosen])

    def weights(self, drawn_P: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how often each pair is there when patients are drawn so often."""
        first = drawn_P[self.first_M]
        return np.where(self.first_M == self.second_M, first, first * drawn_P[self.second_M]).astype(np.float64)

    @staticmethod
    def joined(parts: list[Pairs]) -> Pairs:
        """Join pairs."""
        if not parts:
            nobody = np.empty(0, np.int32)
            return Pairs(np.empty(0, np.float32), nobody, nobody)
        columns = zip(*((p.cosine_M, p.first_M, p.second_M) for p in parts), strict=True)
        return Pairs(*(np.concatenate(c) for c in columns))


@dataclass
class Impostors:
    """Collects impostor pairs as they come by: the most alike, and every n-th.

    Args:
        most: Upper bound of the number of pairs to come.
    """

    most: int
    count: int = 0
    _near: list[Pairs] = field(default_factory=list)
    _even: list[Pairs] = field(default_factory=list)
    _held: int = 0
    _floor: float = -math.inf

    @property
    def stride(self) -> int:
        """Of how many pairs one is in the even sample."""
        return max(1, -(-self.most // _KEPT))

    def add(self, pairs: Pairs) -> None:
        """Take some more pairs."""
        size = len(pairs.cosine_M)
        self._even.append(pairs.take(slice((-self.count) % self.stride, None, self.stride)))
        self.count += size
        if self.stride > 1:
            near = pairs.take(np.flatnonzero(pairs.cosine_M >= self._floor))
            self._near.append(near)
            self._held += len(near.cosine_M)
            if self._held > 3 * self._room:
                self._shrink()

    def even(self) -> Pairs:
        """Return the even sample, least alike first."""
        pairs = Pairs.joined(self._even)
        return pairs.take(np.argsort(pairs.cosine_M, kind="stable"))

    def near(self) -> Pairs:
        """Return the most alike pairs, most alike first."""
        if self.stride == 1:
            return self.even().take(slice(None, None, -1))
        pairs = Pairs.joined(self._near)
        return pairs.take(np.argsort(-pairs.cosine_M, kind="stable")[: self._room])

    @property
    def _room(self) -> int:
        return max(_KEPT, math.ceil(_TAIL * self.most))

    def _shrink(self) -> None:
        pairs = Pairs.joined(self._near)
        chosen = np.argpartition(-pairs.cosine_M, self._room)[: self._room]
        self._near, self._held = [pairs.take(chosen)], self._room
        self._floor = float(pairs.cosine_M[chosen].min())


@dataclass(frozen=True)
class Linkage:
    """How well images of one patient are told from images of two; each figure with its interval."""

    auroc: Estimate
    equal_error: Estimate
    linked: Estimate
    """Share of genuine pairs more alike than all but one in a thousand impostor pairs."""
    num_genuine: int
    num_impostors: int
    num_patients: int
    """Patients with a genuine pair."""


def pair_rows(
    patients_N: NDArray[np.integer], groups: tuple[NDArray[np.integer], ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of all pairs of one patient that differ in each of `groups` (study, series, bytes).

    Args:
        patients_N: Patient of each row.
        groups: Codes of each row, [N]; a code of -1 is not known, and then in no pair.
    """
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, second in _same_patient(patients_N):
        fits = np.ones(len(first), bool)
        for codes_N in groups:
            fits &= (codes_N[first] != codes_N[second]) & (codes_N[first] >= 0) & (codes_N[second] >= 0)
        firsts.append(first[fits])
        seconds.append(second[fits])
    return np.concatenate(firsts), np.concatenate(seconds)


def genuine_pairs(
    vectors_ND: NDArray[np.float32], patients_N: NDArray[np.int32], groups: tuple[NDArray[np.integer], ...]
) -> Pairs:
    """Return the pairs of `pair_rows` with their cosines; vectors are of unit length."""
    first, second = pair_rows(patients_N, groups)
    parts = [rounded(np.einsum("md,md->m", vectors_ND[f], vectors_ND[s])) for f, s in _pieces(first, second)]
    return Pairs(np.concatenate(parts), patients_N[first], patients_N[second])


def rounded(cosines: NDArray[np.floating]) -> NDArray[np.float32]:
    """Round to what float32 products of unit vectors can tell apart, so that equal images are ties."""
    return np.round(cosines, 6).astype(np.float32)


def linkage(genuine: Pairs, impostors: Impostors, weights_PB: NDArray[np.integer]) -> Linkage:
    """Measure verification over genuine and impostor pairs, at least one of each."""
    genuine = genuine.take(np.argsort(genuine.cosine_M, kind="stable"))
    even, near = impostors.even(), impostors.near()
    below_M = np.searchsorted(even.cosine_M, genuine.cosine_M, "left")
    up_to_M = np.searchsorted(even.cosine_M, genuine.cosine_M, "right")

    def measure(drawn_P: NDArray[np.float32]) -> tuple[float, float, float]:
        own_M = genuine.weights(drawn_P)
        sums = np.concatenate([[0.0], np.cumsum(even.weights(drawn_P))])
        total, num_genuine = sums[-1], own_M.sum()
        if total == 0 or num_genuine == 0:
            return math.nan, math.nan, math.nan
        area = float(own_M @ (sums[below_M] + sums[up_to_M]) / (2 * num_genuine * total))
        accepted_M, refused_M = 1 - sums[below_M] / total, (np.cumsum(own_M) - own_M) / num_genuine
        crossing = int(np.argmin(np.abs(accepted_M - refused_M)))
        error = float(accepted_M[crossing] + refused_M[crossing]) / 2
        over = np.cumsum(near.weights(drawn_P)) > FALSE_POSITIVES * total * impostors.stride * (1 + 1e-12)
        threshold = near.cosine_M[int(np.argmax(over)) if over.any() else -1]
        return area, error, float(own_M[genuine.cosine_M > threshold].sum() / num_genuine)

    point = measure(np.ones(len(weights_PB), np.float32))
    drawn = np.array([measure(w) for w in weights_PB.T.astype(np.float32)]).reshape(-1, 3)
    people, num = effective_patients(genuine.first_M), len(genuine.cosine_M)
    pairs = (float(num), float(impostors.count))
    auroc, error, linked = (
        interval_of(share(value, column, cases=num, patients=people, pairs=sides))
        for value, column, sides in zip(point, drawn.T, (pairs, None, None), strict=True)
    )
    return Linkage(auroc, error, linked, num, impostors.count, len(np.unique(genuine.first_M)))


def _pieces(*columns: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Cut columns into pieces of which vectors fit into memory; one empty piece where there is nothing."""
    for start in range(0, max(1, len(columns[0])), _AT_ONCE):
        yield tuple(c[start : start + _AT_ONCE] for c in columns)


def _same_patient(patients_N: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the rows of all pairs of each patient with more than one row."""
    order = np.argsort(patients_N, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(patients_N[order])) + 1):
        if len(rows) > 1:
            first, second = np.triu_indices(len(rows), 1)
            yield rows[first], rows[second]

"""k-reciprocal re-ranking: images that name each other as neighbours, and share neighbours, are brought together.

It knows no patient: it reads the whole gallery, which an attacker who holds the embeddings can do as well. What it
finds beyond plain distances is therefore part of what embeddings give away.

Reference: Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017, as CLIP-ReIdent
(Habel et al., MMSports 2022) computes it: on the squares of squared distances, and with its k1, k2 and lambda.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medclip.auditing.checks.embeddings.verification import rounded

K1, K2, SHARE = 20, 6, 0.3
"""Neighbours that must name each other, neighbours whose encodings are averaged, and share of the plain distance."""
_ROWS = 256
_PAIRS = 50_000


@dataclass(frozen=True, eq=False)
class ReciprocalNeighbours:
    """The neighbours of N images, encoded; from `encode_neighbours`."""

    vectors_ND: NDArray[np.float32]
    largest_N: NDArray[np.float32]
    """Largest distance of each image, by which its distances are divided."""
    encodings: sparse.csr_array
    """Of each image over its neighbours, [N, N]; rows add up to 1."""
    by_neighbour: sparse.csc_array
    """The same, to be read by column."""
    share: float

    def distances(self, part: slice) -> NDArray[np.float32]:
        """Return the distances of some images from all, [part, N]: Jaccard's, and a share of the plain ones."""
        plain = _distances(self.vectors_ND, part) / self.largest_N[part, None]
        jaccard = np.stack([self._jaccard(i) for i in range(*part.indices(len(self.vectors_ND)))])
        return ((1 - self.share) * jaccard + self.share * plain).astype(np.float32)

    def _jaccard(self, image: int) -> NDArray[np.float64]:
        """Return 1 - intersection / union of the encoding of an image with those of all, [N]."""
        start, end = self.encodings.indptr[image : image + 2]
        columns = self.by_neighbour[:, self.encodings.indices[start:end]]
        own = np.repeat(self.encodings.data[start:end], np.diff(columns.indptr))
        common = np.bincount(columns.indices, np.minimum(columns.data, own), len(self.vectors_ND))
        return 1 - common / (2 - common)


def encode_neighbours(
    vectors_ND: NDArray[np.float32], *, k1: int = K1, k2: int = K2, share: float = SHARE
) -> ReciprocalNeighbours:
    """Encode each image by its reciprocal neighbours.

    Args:
        vectors_ND: Unit vectors of all images, queries and gallery alike.
        k1: Number of neighbours that must name each other.
        k2: Number of neighbours whose encodings are averaged; 1 for none.
        share: Share of the plain distance in that of `ReciprocalNeighbours.distances`; 1 leaves the ranking as it was.
    """
    num = len(vectors_ND)
    k1, k2 = min(k1, num - 1), min(k2, num)
    largest_N = np.empty(num, np.float32)
    nearest_NK = np.empty((num, k1 + 1), np.int64)
    for start in range(0, num, _ROWS):
        part = slice(start, start + _ROWS)
        distance = _distances(vectors_ND, part)
        largest_N[part] = np.maximum(distance.max(axis=1), np.finfo(np.float32).tiny)
        distance[
            np.arange(len(distance)), np.arange(start, start + len(distance))
        ] = -1  # itself is first, also of ties
        near = np.argpartition(distance, k1, axis=1)[:, : k1 + 1]
        order = np.argsort(np.take_along_axis(distance, near, axis=1), axis=1, kind="stable")
        nearest_NK[part] = np.take_along_axis(near, order, axis=1)
    reciprocal, close = _reciprocal(nearest_NK), _reciprocal(nearest_NK[:, : round(k1 / 2) + 1])
    common = (reciprocal @ close.T).multiply(reciprocal).tocoo()
    joins = common.data > 2 / 3 * close.sum(axis=1)[common.col]
    joined = sparse.csr_array((np.ones(joins.sum()), (common.row[joins], common.col[joins])), shape=(num, num))
    pairs = (reciprocal + joined @ close).tocoo()
    plain = np.empty(len(pairs.row))
    for start in range(0, len(plain), _PAIRS):
        rows, columns = pairs.row[start : start + _PAIRS], pairs.col[start : start + _PAIRS]
        cosines = rounded(np.einsum("md,md->m", vectors_ND[rows], vectors_ND[columns]))
        plain[start : start + _PAIRS] = (2 - 2 * cosines) ** 2 / largest_N[rows]
    weights = np.exp(-plain)
    weights /= np.bincount(pairs.row, weights, num)[pairs.row]
    encodings = sparse.csr_array((weights, (pairs.row, pairs.col)), shape=(num, num))
    if k2 > 1:
        encodings = sparse.csr_array(_members(nearest_NK[:, :k2]) @ encodings / k2)
    return ReciprocalNeighbours(vectors_ND, largest_N, encodings, encodings.tocsc(), share)


def _distances(vectors_ND: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
    """Return the squares of the squared distances of some unit vectors from all, [part, N]."""
    return (2 - 2 * rounded(vectors_ND[part] @ vectors_ND.T)) ** 2


def _members(nearest_NK: NDArray[np.int64]) -> sparse.csr_array:
    """Return 1 where an image is among the nearest of another, [N, N]."""
    num, k = nearest_NK.shape
    return sparse.csr_array((np.ones(num * k), (np.repeat(np.arange(num), k), nearest_NK.ravel())), shape=(num, num))


def _reciprocal(nearest_NK: NDArray[np.int64]) -> sparse.csr_array:
    """Return 1 where two images are among the nearest of each other, [N, N]."""
    members = _members(nearest_NK)
    return sparse.csr_array(members.multiply(members.T))

"""k-reciprocal re-ranking: neighbours that name each other count more than distance alone.

Each item is described by its reciprocal neighbourhood (those among its nearest that have it among theirs, with their
own close reciprocal neighbours where most of them are shared already), and two items are near where these descriptions
overlap. It is transductive: a result depends on the whole gallery.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from medclip.errors import MedclipError, Reason

MOST_ITEMS = 8_000
"""Queries and gallery together: the matrix of distances takes 256 MB then."""


def rerank(
    query_query: NDArray[np.floating],
    query_gallery_QG: NDArray[np.floating],
    gallery_gallery: NDArray[np.floating],
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> NDArray[np.float32]:
    """Re-rank a gallery for separate queries.

    Args:
        query_query: Squared Euclidean distances between the unit vectors of queries, [Q, Q].
        query_gallery_QG: Queries to gallery.
        gallery_gallery: Between gallery items, [G, G].
        k1: Size of the neighbourhood.
        k2: Number of neighbours whose descriptions are averaged; 1 for none.
        weight: λ of the original distance; 1 - λ is that of the overlap.

    Returns:
        New distances, float32 [Q, G].

    Raises:
        MedclipError: WRONG_USE for shapes that do not fit; TOO_LARGE for more than `MOST_ITEMS` items.

    Reference: Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017.
    """
    whole = np.block([[query_query, query_gallery_QG], [np.asarray(query_gallery_QG).T, gallery_gallery]])
    num = len(query_query)
    return rerank_all(whole, k1=k1, k2=k2, weight=weight, rows=num)[:, num:]


def rerank_all(
    distances_NN: NDArray[np.floating], *, k1: int = 20, k2: int = 6, weight: float = 0.3, rows: int | None = None
) -> NDArray[np.float32]:
    """Re-rank items that are queries and gallery at once, as `rerank` does.

    Args:
        distances_NN: Squared Euclidean distances of unit vectors between all items.
        k1: Size of the neighbourhood.
        k2: Number of neighbours whose descriptions are averaged.
        weight: λ of the original distance.
        rows: How many of the first items are queries; None for all.

    Returns:
        New distances, float32 [rows, N].

    Raises:
        MedclipError: As `rerank`.
    """
    distances = np.asarray(distances_NN, np.float32)
    count = len(distances)
    if distances.ndim != 2 or distances.shape[1] != count or min(k1, k2) < 1 or not 0 <= weight <= 1:
        raise MedclipError(
            Reason.WRONG_USE,
            f"distances of shape {list(distances.shape)}, k1 {k1}, k2 {k2} and weight {weight}.",
            hint="Distances are square, k1 and k2 at least 1, and the weight is between 0 and 1.",
        )
    if count > MOST_ITEMS:
        raise MedclipError(
            Reason.TOO_LARGE, f"{count} items; re-ranking takes at most {MOST_ITEMS}.", hint="Draw fewer patients."
        )
    squared = distances**2
    original = np.ascontiguousarray((squared / np.maximum(squared.max(axis=0), np.finfo(np.float32).tiny)).T)
    order = np.argsort(original, axis=1, kind="stable")[:, : max(k1 + 1, k2)]
    near = _neighbourhoods(order, k1)
    described = _described(near, original)
    if k2 > 1:
        described = csr_array(_first(order, k2, count) @ described) * np.float32(1 / min(k2, count))
    rows = count if rows is None else rows
    return ((1 - weight) * _jaccard(described, rows) + weight * original[:rows]).astype(np.float32)


def _first(order: NDArray[np.int64], k: int, count: int) -> csr_array:
    """Mark the first k ranked of each item, sparse [N, N]."""
    chosen = order[:, :k]
    starts = np.arange(count + 1) * chosen.shape[1]
    return csr_array((np.ones(chosen.size, np.float32), chosen.ravel(), starts), shape=(count, count))


def _neighbourhoods(order: NDArray[np.int64], k1: int) -> csr_array:
    """Give each item's expanded set of reciprocal neighbours, sparse [N, N] of ones."""
    count = len(order)
    wide = _first(order, k1 + 1, count)
    reciprocal = wide.multiply(wide.T).tocsr()
    tight = _first(order, round(k1 / 2) + 1, count)  # round half to even, as the original does
    half = tight.multiply(tight.T).tocsr()
    sizes = np.asarray(half.sum(axis=1)).ravel()
    shared = (reciprocal @ half.T).multiply(reciprocal).tocoo()  # |half(j) ∩ reciprocal(i)| for each j of i
    enough = shared.data > np.float64(2) / 3 * sizes[shared.col]
    taken = csr_array(
        (np.ones(int(enough.sum()), np.float32), (shared.row[enough], shared.col[enough])), (count, count)
    )
    # itself too, which it always is unless more than k1 others are exactly alike
    union = csr_array(reciprocal + taken @ half + eye_array(count).astype(np.float32))
    union.data[:] = 1
    return union


def _described(near: csr_array, original: NDArray[np.float32]) -> csr_array:
    """Weigh each neighbourhood by exp(-distance), rows summing to 1."""
    row, column = near.tocoo().coords
    weights = np.exp(-original[row, column])
    sums = np.bincount(row, weights, minlength=len(original))
    return csr_array(((weights / sums[row]).astype(np.float32), (row, column)), near.shape)


def _jaccard(described: csr_array, rows: int) -> NDArray[np.float32]:
    """Give 1 - overlap / union of the first rows with all items; walks over what is not zero only."""
    columns = described.tocsc()
    starts, indices, data = (np.asarray(x) for x in (columns.indptr, columns.indices, columns.data))
    first, neighbours, shares = (np.asarray(x) for x in (described.indptr, described.indices, described.data))
    count = len(first) - 1
    result = np.empty((rows, count), np.float32)
    for i in range(rows):
        named, own = (x[first[i] : first[i + 1]] for x in (neighbours, shares))
        spans = [slice(starts[g], starts[g + 1]) for g in named]
        whose = np.concatenate([indices[s] for s in spans])
        smaller = np.concatenate([np.minimum(data[s], w) for s, w in zip(spans, own, strict=True)])
        overlap = np.bincount(whose, smaller, minlength=count)
        result[i] = 1 - overlap / (2 - overlap)
    return result

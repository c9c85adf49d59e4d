"""Some patches of each kind of tissue on a slide, asked for or not: k-means on the patches' vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 128
"""Patches to one unit of `n` in the number of clusters: PathGen counts batches of its loader."""


def number_of_clusters(num_patches: int, batch: int = BATCH) -> int:
    """Return k = ceil(sqrt(1.6 n)), n the number of batches.

    Args:
        num_patches: Patches of the slide.
        batch: 128 is what PathGen's code does; 1 counts patches, which may be what its authors meant: 5,000 patches
            have 90 clusters then, and not 8.

    Example:
        >>> number_of_clusters(5000), number_of_clusters(5000, 1)
        (8, 90)
    """
    return max(1, min(num_patches, math.ceil(math.sqrt(1.6 * math.ceil(num_patches / batch)))))


def cluster_patches(features_ND: NDArray[np.floating[Any]], num_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    """Assign patches to clusters.

    Args:
        features_ND: Unit vectors.
        num_clusters: At most as many as there are different vectors.
        seed: Of the first centres.

    Returns:
        int64 [N].
    """
    from sklearn.cluster import KMeans

    vectors = np.asarray(features_ND, np.float64)
    distinct = len(np.unique(vectors, axis=0))
    # "auto" is one start of k-means++.
    means: Any = KMeans(min(num_clusters, distinct), n_init="auto", random_state=seed)
    return np.asarray(means.fit_predict(vectors), np.int64)


def draw_from_clusters(clusters_N: NDArray[np.int64], num: int, seed: int = 0) -> list[int]:
    """Draw patches of every cluster.

    Args:
        clusters_N: Cluster of each patch.
        num: How many in all, at most; of each cluster `num // k`, at least one, and all of a smaller one.
        seed: Of the draw.

    Returns:
        Rows, cluster by cluster, each in ascending order.

    Example:
        >>> drawn = draw_from_clusters(np.repeat(np.arange(8), [100] * 7 + [5]), 256)
        >>> len(drawn), sum(row >= 700 for row in drawn)
        (229, 5)
    """
    names = np.unique(clusters_N)
    quota = max(1, num // max(1, len(names)))
    rng = np.random.default_rng(seed)
    drawn: list[int] = []
    for name in names:
        members = np.flatnonzero(clusters_N == name)
        if len(members) > quota:
            members = np.sort(rng.choice(members, quota, replace=False))
        drawn += members.tolist()
    return drawn[:num]

"""What is known of every sample of a split at once, as columns of small numbers: fit for millions of samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Columns:
    """Shard, source, modality and stratum of N samples, each as a number and a list of names."""

    shard_N: NDArray[np.int32]
    """Number of the shard that each sample lies in; samples of a shard follow each other."""
    num_shards: int
    source_N: NDArray[np.integer]
    sources: tuple[str, ...]
    """Names that `source_N` points into; "" where the source is not named."""
    modality_N: NDArray[np.integer]
    modalities: tuple[str, ...]
    """Names that `modality_N` points into; "" where the modality is not known."""
    stratum_N: NDArray[np.integer] | None = None
    """None: all samples are of one stratum."""
    strata: tuple[str, ...] = ("",)
    """Names that `stratum_N` points into; "" where the table stated none."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.shard_N)


def coded(values: Iterable[str | None]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Turn names into numbers and the sorted list that these point into.

    Example:
        >>> coded(["b", None, "b"])[1]
        ('', 'b')
    """
    named = [v or "" for v in values]
    names = tuple(sorted(set(named)))
    number = {name: i for i, name in enumerate(names)}
    return np.fromiter((number[v] for v in named), np.int32, len(named)), names

"""The rows of one rank against the columns of all: what each pair is, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.pairs import Pairs, positives


@dataclass(frozen=True, eq=False)
class Block:
    """One rank's b rows and all N columns, without the samples that take no part. No tensor is of size b x N.

    Args:
        rows_b: int64: which of this rank's samples take part; None where all do.
        cols_N: int64: which of all samples take part; None where all do.
        own_b: int64: the column in which each row's own partner stands.
        row_weights_b: float32. The weights of all ranks' rows add up to the number of ranks, so that the mean over
            ranks of a weighted sum is the weighted mean over the whole batch.
        col_weights_N: float32, the same for columns.
        even: Whether all weights are equal.
        positive_keys: int64 [b, K] keys of the rows and [N, K] of the columns; None: only partners are positives.
        ignored_keys: The same for pairs that are neither positives nor negatives.
    """

    rows_b: Tensor | None
    cols_N: Tensor | None
    own_b: Tensor
    row_weights_b: Tensor
    col_weights_N: Tensor
    even: bool = True
    positive_keys: tuple[Tensor, Tensor] | None = None
    ignored_keys: tuple[Tensor, Tensor] | None = None

    def take_rows(self, local_bD: Tensor) -> Tensor:
        """Return the rows that take part."""
        return local_bD if self.rows_b is None else local_bD[self.rows_b]

    def take_cols(self, whole_ND: Tensor) -> Tensor:
        """Return the columns that take part."""
        return whole_ND if self.cols_N is None else whole_ND[self.cols_N]

    def parts(self, chunk: int) -> Iterator[slice]:
        """Cut the rows into chunks.

        Raises:
            MedclipError: WRONG_USE for a chunk of no rows.
        """
        if chunk < 1:
            raise MedclipError(Reason.WRONG_USE, f"chunk is {chunk}; at least one row is needed at a time.")
        size = len(self.own_b)
        for start in range(0, size, chunk):
            yield slice(start, min(start + chunk, size))

    def positive(self, part: slice) -> Tensor | None:
        """Mark the positives of some rows: bool [c, N]; None where each row has only its own partner."""
        if self.positive_keys is None:
            return None
        rows, cols = self.positive_keys
        same = positives(rows[part], cols)
        return same.scatter_(1, self.own_b[part, None], True)

    def pair_weights(self, part: slice) -> Tensor:
        """Return the mean weight of the two samples of each pair: float32 [c, N], or [1] where all are equal."""
        if self.even:
            return self.col_weights_N[:1]
        return (self.row_weights_b[part, None] + self.col_weights_N) / 2

    def ignored(self, part: slice, positive: Tensor | None) -> Tensor | None:
        """Mark the pairs of some rows that are neither positives nor negatives: bool [c, N]; None without any."""
        if self.ignored_keys is None:
            return None
        rows, cols = self.ignored_keys
        same = positives(rows[part], cols)
        return same.scatter_(1, self.own_b[part, None], False) if positive is None else same & ~positive


def make_block(pairs: Pairs | None, size: int, rank: int, ranks: int, device: torch.device) -> Block:
    """Lay out one rank's rows against the columns of all ranks.

    Args:
        pairs: Pairs of the whole batch, in the order of ranks.
        size: Number of samples of the whole batch.
        rank: Whose rows: samples rank * b to (rank + 1) * b, with b = size // ranks.
        ranks: Number of ranks.
        device: Of the features.

    Raises:
        MedclipError: WRONG_USE for pairs of another size.
    """
    own_rows = slice(rank * (size // ranks), (rank + 1) * (size // ranks))
    own_N = torch.arange(size, device=device)
    if pairs is None:
        weights_N = torch.full((size,), ranks / max(size, 1), device=device)
        return Block(None, None, own_N[own_rows], weights_N[own_rows], weights_N)
    pairs.check(size)
    weights_N = torch.ones(size, device=device) if pairs.weights_B is None else pairs.weights_B.float()
    rows_b, cols_N = None, None
    if pairs.valid_B is not None and not bool(pairs.valid_B.all()):
        rows_b = pairs.valid_B[own_rows].nonzero().flatten()
        cols_N = pairs.valid_B.nonzero().flatten()
        own_N = pairs.valid_B.cumsum(0) - 1
        weights_N = weights_N * pairs.valid_B
    weights_N = weights_N * (ranks / weights_N.sum().clamp_min(1e-30))

    def rows(values: Tensor) -> Tensor:
        return values[own_rows] if rows_b is None else values[own_rows][rows_b]

    def cols(values: Tensor) -> Tensor:
        return values if cols_N is None else values[cols_N]

    positive, ignored = (k if k is not None and k.shape[1] else None for k in (pairs.positive_BK, pairs.ignored_BK))
    return Block(
        rows_b=rows_b,
        cols_N=cols_N,
        own_b=rows(own_N),
        row_weights_b=rows(weights_N),
        col_weights_N=cols(weights_N),
        even=pairs.weights_B is None,
        positive_keys=None if positive is None else (rows(positive), cols(positive)),
        ignored_keys=None if ignored is None else (rows(ignored), cols(ignored)),
    )


def check_features(*features_BD: Tensor) -> None:
    """Raise WRONG_USE if features of the same samples are not all [B, D]."""
    shapes = [list(x.shape) for x in features_BD]
    if len(shapes[0]) != 2 or any(shape != shapes[0] for shape in shapes):
        raise MedclipError(Reason.WRONG_USE, f"features have the shapes {shapes}; expected the same [B, D] for all.")

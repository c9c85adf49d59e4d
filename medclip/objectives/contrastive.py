"""The symmetric InfoNCE loss of CLIP, for one process or many, with any number of positives, in memory O(N x chunk)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medclip.objectives.block import Block, FeatureGradients, check_features, make_block, scalar, walked
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, max_values, rank_and_size, sum_values

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


_LOWEST, _LEAST = torch.finfo(torch.float32).min, 1e-30


def symmetric_info_nce(
    rows_bD: Tensor,
    cols_ND: Tensor,
    scale: Tensor,
    block: Block,
    *,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
    factor: float = 0.5,
) -> Tensor:
    """Return factor * (rows to columns + columns to rows), where each direction is a weighted mean over samples.

    The loss of row i is logsumexp over its columns minus the mean logit of its positives, which is the cross-entropy
    with the mass shared equally among the positives. Ignored pairs stand in neither direction.

    The logits are computed twice (once where they fit one chunk): first for the sums along rows and columns, then for
    the gradients of both directions at once. That is four products of matrices, or three, where two separate
    directions need six. Ranks add up only the sums along columns, so only the columns were gathered.

    Args:
        rows_bD: float32 [b, D], this rank's rows.
        cols_ND: float32 [N, D], the columns of all ranks.
        scale: float32 scalar that multiplies the cosines.
        block: Kind and weight of each pair.
        group: The ranks among which the columns were gathered.
        chunk: Number of rows at a time.
        factor: Factor of the sum of directions.

    Returns:
        Scalar float32 of this rank: its rows, and the columns that are its own. The mean over ranks is the loss of the
        whole batch; gradients agree where every rank multiplies the result by the same number.
    """
    rows, cols = block.take_rows(rows_bD), block.take_cols(cols_ND)
    table = _Table(rows.detach(), cols.detach(), scale.detach(), block)
    parts = list(block.parts(chunk))

    def walk(needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        kept = [table.chunk(part) for part in parts] if len(parts) == 1 else None
        of_rows, of_cols = _sums(table, parts, kept, group)
        row_weights_b, col_weights_N = block.row_weights_b * factor, block.col_weights_N * factor
        value = row_weights_b @ of_rows.losses() + (col_weights_N * of_cols.losses())[block.own_b].sum()
        if not any(needs):
            return value, []
        grads = FeatureGradients(table.rows_bD, table.cols_ND, needs)
        for i, part in enumerate(parts):
            chunk = kept[i] if kept else table.chunk(part)
            grads.add(part, chunk.gradient(of_rows.part(part), of_cols, row_weights_b[part], col_weights_N))
            del chunk
        return value, grads.result(table.scale)

    return walked(walk, rows, cols, scale)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is known about n rows, or n columns, from the logits seen so far."""

    top_n: Tensor
    """The largest logit."""
    sum_n: Tensor
    """The sum of exp(logit - largest)."""
    positive_n: Tensor
    """The sum of the logits of positives."""
    count_n: Tensor
    """The number of positives: at least one in the whole table, the partner."""

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.top_n, self.sum_n, self.positive_n, self.count_n

    def part(self, part: slice) -> _Sums:
        return _Sums(*(x[part] for x in self.all()))

    def losses(self) -> Tensor:
        """Return the cross-entropy of each, with its mass shared equally among its positives; finite everywhere."""
        # in this order a small loss keeps its digits
        return self.sum_n.log() + (self.top_n - self.positive_n / self.count_n)

    @staticmethod
    def joined(parts: Iterable[_Sums]) -> _Sums:
        """Join what is known from parts of the table."""
        top_Pn, sum_Pn, positive_Pn, count_Pn = (torch.stack(x) for x in zip(*(p.all() for p in parts), strict=True))
        top_n = top_Pn.amax(0)
        return _Sums(top_n, (top_Pn.sub_(top_n).exp_() * sum_Pn).sum(0), positive_Pn.sum(0), count_Pn.sum(0))

    def over_ranks(self, group: ProcessGroup | None) -> _Sums:
        """Join what all ranks know of the same columns: two sums of O(N), however many ranks there are."""
        if group is None:
            return self
        top_n = max_values(self.top_n, group)
        sums_3n = torch.stack([self.sum_n * (self.top_n - top_n).exp_(), self.positive_n, self.count_n])
        return _Sums(top_n, *sum_values(sums_3n, group))

    def filled(self) -> _Sums:
        """Return sums that can be divided by; where no pair takes part they are not used, their weight is 0."""
        return _Sums(self.top_n, self.sum_n.clamp_min(_LEAST), self.positive_n, self.count_n.clamp_min(1))


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Some rows of the table: exp(logit - largest of its row), the same by columns, and what is known of both."""

    by_row_cN: Tensor
    by_col_cN: Tensor
    positive_cN: Tensor | None
    """None: each row has only its own partner."""
    own_c: Tensor
    of_rows: _Sums
    of_cols: _Sums

    def gradient(self, of_rows: _Sums, of_cols: _Sums, row_weights_c: Tensor, col_weights_N: Tensor) -> Tensor:
        """Return the gradient of both directions with respect to the logits; uses the chunk up.

        In each direction it is weight * (softmax - share of the mass).
        """
        row_factors_c = row_weights_c / of_rows.sum_n
        col_factors_N = (self.of_cols.top_n - of_cols.top_n).exp_().mul_(col_weights_N).div_(of_cols.sum_n)
        grad_cN = self.by_row_cN.mul_(row_factors_c[:, None]).add_(self.by_col_cN.mul_(col_factors_N))
        row_shares_c, col_shares_N = row_weights_c / of_rows.count_n, col_weights_N / of_cols.count_n
        if self.positive_cN is None:
            shares_c = row_shares_c + col_shares_N[self.own_c]
            return grad_cN.scatter_add_(1, self.own_c[:, None], -shares_c[:, None])
        return grad_cN.sub_(torch.where(self.positive_cN, row_shares_c[:, None] + col_shares_N, 0))


@dataclass(frozen=True, eq=False)
class _Table:
    """The table of logits, of which only chunks of rows are ever made."""

    rows_bD: Tensor
    cols_ND: Tensor
    scale: Tensor
    block: Block

    def chunk(self, part: slice) -> _Chunk:
        """Make some rows. Pairs that are left out have logits of -inf."""
        logits_cN = (self.rows_bD[part] @ self.cols_ND.T).mul_(self.scale)
        positive_cN, own_c = self.block.positive(part), self.block.own_b[part]
        left_out_cN = self.block.left_out(part, positive_cN)
        if left_out_cN is not None:
            logits_cN.masked_fill_(left_out_cN, -torch.inf)
        if positive_cN is None:
            row_positive_c = logits_cN.gather(1, own_c[:, None])[:, 0].clamp_min_(_LOWEST)
            row_count_c = torch.ones_like(row_positive_c)
            col_positive_N = logits_cN.new_zeros(logits_cN.shape[1]).index_copy_(0, own_c, row_positive_c)
            col_count_N = torch.zeros_like(col_positive_N).index_copy_(0, own_c, row_count_c)
        else:
            chosen_cN = torch.where(positive_cN, logits_cN, 0)
            row_positive_c, row_count_c = chosen_cN.sum(1), positive_cN.sum(1, dtype=torch.float32)
            col_positive_N, col_count_N = chosen_cN.sum(0), positive_cN.sum(0, dtype=torch.float32)
            del chosen_cN
        # All pairs of a row or column may be left out: its largest logit is then the lowest number, not -inf.
        row_top_c, col_top_N = logits_cN.amax(1).clamp_min_(_LOWEST), logits_cN.amax(0).clamp_min_(_LOWEST)
        by_col_cN = (logits_cN - col_top_N).exp_()
        by_row_cN = logits_cN.sub_(row_top_c[:, None]).exp_()
        of_rows = _Sums(row_top_c, by_row_cN.sum(1), row_positive_c, row_count_c)
        of_cols = _Sums(col_top_N, by_col_cN.sum(0), col_positive_N, col_count_N)
        return _Chunk(by_row_cN, by_col_cN, positive_cN, own_c, of_rows, of_cols)


def _sums(
    table: _Table, parts: list[slice], kept: list[_Chunk] | None, group: ProcessGroup | None
) -> tuple[_Sums, _Sums]:
    """Walk over the rows once, for the sums along rows and, over all ranks, along columns."""
    of_rows: list[_Sums] = []
    of_cols: _Sums | None = None
    for i, part in enumerate(parts):
        chunk = kept[i] if kept else table.chunk(part)
        of_rows.append(chunk.of_rows)
        of_cols = chunk.of_cols if of_cols is None else _Sums.joined((of_cols, chunk.of_cols))
        del chunk
    assert of_cols is not None
    rows = of_rows[0] if kept else _Sums(*(torch.cat(x) for x in zip(*(r.all() for r in of_rows), strict=True)))
    return rows.filled(), of_cols.over_ranks(group).filled()


def clip_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    logit_scale: Tensor | float,
    pairs: Pairs | None = None,
    *,
    group: ProcessGroup | None = None,
    chunk: int = 1024,
) -> Tensor:
    """Return the mean of the image-to-text and text-to-image cross-entropies over a batch.

    MERL adds the two directions up: twice this (`objective.contrastive: 2`).

    Args:
        image_BD: [B, D] unit-norm image features; any float dtype, computed in float32.
        text_BD: [B, D] unit-norm text features; row i belongs to image i.
        logit_scale: exp of the learned log-scale (multiplies the cosines).
        pairs: Pairs that are positives too, ignored or of no part, and their weights; each row's mass is shared equally
            among its positives. None: each image has its own text only.
        group: Ranks: the features are this rank's rows of a batch spread over these ranks, each with the same number of
            rows and the same fields of pairs. The mean over ranks of the results is the loss of the whole batch, and so
            are the gradients of parameters once they are averaged over ranks. None: one process.
        chunk: Rows at a time. Memory is O(B x chunk); the result does not depend on it.

    Returns:
        Scalar float32. Identical features give ln B; without negatives (B = 1), or without a valid sample, it is 0.

    Raises:
        MedclipError: WRONG_USE for features or pairs of different sizes, or a chunk of no rows.

    Reference: Radford et al., Learning transferable visual models from natural language supervision, 2021; shared mass:
    Khosla et al., Supervised contrastive learning, 2020 (the form with the sum outside the logarithm).

    Example:
        >>> import torch
        >>> eye = torch.eye(3)
        >>> round(float(clip_loss(eye, eye, 10.0)), 6)
        9.1e-05
    """
    check_features(image_BD, text_BD)
    rank, ranks = rank_and_size(group)
    block = make_block(gather_pairs(pairs, group), ranks * len(image_BD), rank, ranks, image_BD.device)
    return symmetric_info_nce(
        image_BD.float(),
        gather(text_BD.float(), group),
        scalar(logit_scale, image_BD.device),
        block,
        group=group,
        chunk=chunk,
        factor=0.5,
    )

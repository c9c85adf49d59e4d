"""Features and pairs of all ranks, in the order of ranks, with gradients that find their way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from medclip.objectives.pairs import Pairs

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Their names from torch 2.13 on, and before.
_gather_into: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter_sum: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def rank_and_size(group: ProcessGroup | None) -> tuple[int, int]:
    """Return this process's rank in a group and the number of ranks; (0, 1) without a group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def gather(local_bD: Tensor, group: ProcessGroup | None) -> Tensor:
    """Stack the rows of all ranks; in the backward pass each rank gets the sum of its rows' gradients.

    Every rank must call it with the same shape, and must run the backward pass if any does.

    Args:
        local_bD: [b, ...] this rank's rows.
        group: Ranks; None or a group of one: the rows are returned as they are.

    Returns:
        [ranks * b, ...].
    """
    if rank_and_size(group)[1] == 1:
        return local_bD
    return _Gather.apply(local_bD, group)  # type: ignore[return-value]


def gather_values(local: Tensor, group: ProcessGroup | None) -> Tensor:
    """Stack the rows of all ranks, without gradients."""
    size = rank_and_size(group)[1]
    if size == 1:
        return local
    gathered = local.new_empty((size * len(local), *local.shape[1:]))
    _gather_into(gathered, local.detach().contiguous(), group=group)
    return gathered


def sum_values(local: Tensor, group: ProcessGroup | None) -> Tensor:
    """Add up a tensor over ranks, without gradients."""
    if rank_and_size(group)[1] == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total, group=group)
    return total


def max_values(local: Tensor, group: ProcessGroup | None) -> Tensor:
    """Return the largest of each value over ranks, without gradients."""
    if rank_and_size(group)[1] == 1:
        return local
    largest = local.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    return largest


def gather_pairs(pairs: Pairs | None, group: ProcessGroup | None) -> Pairs | None:
    """Stack the pairs of all ranks, all fields at once.

    Every rank must give the same fields with the same columns.
    """
    if pairs is None or rank_and_size(group)[1] == 1:
        return pairs
    weights, valid = pairs.weights_B, pairs.valid_B
    fields = {
        "positive_BK": pairs.positive_BK,
        "ignored_BK": pairs.ignored_BK,
        "weights_B": None if weights is None else weights.float().view(torch.int32).long()[:, None],  # by their bits
        "valid_B": None if valid is None else valid.long()[:, None],
        "sources_B2": pairs.sources_B2,
        "text_positive_BK": pairs.text_positive_BK,
    }
    present = {name: columns for name, columns in fields.items() if columns is not None}
    if not present:
        return pairs
    table = gather_values(torch.cat(list(present.values()), dim=1), group)
    every = dict(zip(present, table.split([c.shape[1] for c in present.values()], dim=1), strict=True))
    if "weights_B" in every:
        every["weights_B"] = every["weights_B"][:, 0].int().view(torch.float32)
    if "valid_B" in every:
        every["valid_B"] = every["valid_B"][:, 0].bool()
    return Pairs(**every)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local_bD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return gather_values(local_bD, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rank, size = rank_and_size(ctx.group)
        gradient = grads[0].contiguous()
        rows = len(gradient) // size
        if gradient.device.type == "cpu":  # gloo: it has no faster way than the sum of everything
            return sum_values(gradient, ctx.group)[rank * rows : (rank + 1) * rows], None
        mine = gradient.new_empty((rows, *gradient.shape[1:]))
        _scatter_sum(mine, gradient, group=ctx.group)
        return mine, None

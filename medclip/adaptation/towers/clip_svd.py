"""CLIP-SVD: only the singular values of the towers' matrices learn, and they merge back into the weights.

Koleilat et al., "Singular Value Few-shot Adaptation of Vision-Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medclip.adaptation.towers.layers import Layer
from medclip.adaptation.towers.split_attention import (
    join_attention,
    read_all_tokens,
    read_class_token_only,
    replace_module,
)
from medclip.adaptation.towers.svd_linear import SVDConv, SVDLinear
from medclip.errors import MedclipError, Reason


@dataclass(frozen=True)
class TrainableReport:
    """How much of a model learns."""

    num_trainable: int
    num_dense: int
    """Parameters of the model before it was decomposed."""
    num_total: int
    """Parameters now: U and V are counted, though they never change."""
    by_layer: Mapping[str, int]
    """Singular values of each layer."""

    @property
    def share_of_dense(self) -> float:
        """What learns, of the dense model."""
        return self.num_trainable / self.num_dense


def decompose(
    clip: nn.Module,
    layers: Sequence[Layer],
    rank_ratio: float = 1.0,
    compat: bool = False,
    side: torch.dtype | None = None,
) -> None:
    """Replace layers by their singular value decomposition, in place, and freeze all but the singular values.

    Args:
        clip: Dual encoder after `split_attention`.
        layers: Layers of this model, from `choose_layers`; the others stay dense.
        rank_ratio: Share of the singular values that is kept, the largest first; 1 keeps every one.
        compat: Whether the rank is rounded down to a multiple of 4 for a ratio of 1, too, as the reference code does.
        side: Precision of the products that only the gradient of S needs; the weights' own where None. bfloat16 takes
            half the time on processors that compute in it (AVX-512 BF16, AMX) and leaves outputs as they are; the
            gradient of S is off by less than a hundredth.

    Raises:
        MedclipError: WRONG_USE for a ratio outside (0, 1].
    """
    check_ratio(rank_ratio)
    clip.requires_grad_(False)
    for layer in layers:
        dense = layer.module
        assert isinstance(dense, nn.Linear | nn.Conv2d)
        rows, columns = dense.weight.flatten(1).shape
        rank = rank_of(rows, columns, rank_ratio, compat)
        decomposed = SVDConv(dense, rank) if isinstance(dense, nn.Conv2d) else SVDLinear(dense, rank)
        decomposed.side = side or decomposed.side
        replace_module(clip, layer.name, decomposed)
    read_class_token_only(clip)


def check_ratio(rank_ratio: float) -> None:
    """Refuse a share of singular values outside (0, 1].

    Raises:
        MedclipError: WRONG_USE.
    """
    if not 0 < rank_ratio <= 1:
        raise MedclipError(Reason.WRONG_USE, f"rank_ratio is {rank_ratio}; it takes a number above 0, up to 1.")


def merge(clip: nn.Module) -> None:
    """Restore dense layers and fused attention, in place, with the singular values of now in their weights.

    Nothing is sorted: singular values that learned may be negative or out of order.
    """
    read_all_tokens(clip)
    for name, module in decomposed(clip).items():
        replace_module(clip, name, module.merge())
    join_attention(clip)


def rank_of(rows: int, columns: int, rank_ratio: float = 1.0, compat: bool = False) -> int:
    """Return the number of singular values that are kept of a matrix.

    Args:
        rows: Rows of the matrix, m.
        columns: Columns of the matrix, n.
        rank_ratio: Share of the singular values that is kept; below 1 by the reference's rule:
            max(1, 4·⌊⌊min(m, n)·ratio⌋ / 4⌋).
        compat: Whether the reference's rule holds for a ratio of 1, too: a matrix of odd size loses rank.
    """
    full = min(rows, columns)
    return full if rank_ratio == 1 and not compat else max(1, int(full * rank_ratio) // 4 * 4)


def decomposed(clip: nn.Module) -> dict[str, SVDLinear]:
    """Return the decomposed layers by name."""
    return {n: m for n, m in clip.named_modules() if isinstance(m, SVDLinear)}


def singular_values(clip: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the singular values by layer: all that has to be stored; float32 [r] on the CPU."""
    return {n: m.S.detach().float().cpu().clone() for n, m in decomposed(clip).items()}


def load_singular_values(clip: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set the singular values, in place.

    Args:
        clip: Dual encoder, decomposed as it was when `values` were taken. Whether it is the same base is for the caller
            to check (by the hash of its weights): U and V are not stored.
        values: Singular values from `singular_values`.

    Raises:
        MedclipError: PACK_INVALID when layers or ranks differ.
    """
    own = decomposed(clip)
    if set(own) != set(values):
        odd = sorted(set(own) ^ set(values))
        raise MedclipError(
            Reason.PACK_INVALID,
            f"these singular values are of other layers: {odd[0]} is "
            f"{'missing' if odd[0] in own else 'not in the model'} ({len(odd)} differ).",
        )
    for name, layer in own.items():
        if values[name].shape != layer.S.shape:
            raise MedclipError(
                Reason.PACK_INVALID, f"{name} has {len(layer.S)} singular values; {len(values[name])} were given."
            )
    with torch.no_grad():
        for name, layer in own.items():
            layer.S.copy_(values[name])


def trainable_report(clip: nn.Module) -> TrainableReport:
    """Count what learns. Works on the meta device, too: counts need shapes only."""
    layers = decomposed(clip)
    total = sum(p.numel() for p in clip.parameters())
    extra = sum(m.U.numel() + m.S.numel() + m.V.numel() - m.in_features * m.out_features for m in layers.values())
    trained = sum(p.numel() for p in clip.parameters() if p.requires_grad)
    return TrainableReport(trained, total - extra, total, {n: m.S.numel() for n, m in layers.items()})

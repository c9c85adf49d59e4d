"""Which pairs of a batch are positives, which are left out, and how much each sample weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.keys import key_of


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is known about a batch of B samples beside their features; all tensors on the device of the features.

    Relations are given as keys, so that they cost O(B) to keep and to send to other ranks. A sample's image and text
    are always positives of each other.

    Args:
        positive_BK: int64 [B, K], -1 = no key. Samples i and j are positives of each other if any column holds equal
            keys for both: the same study, the same caption, the same labels.
        ignored_BK: Keys, likewise, of pairs that are neither positives nor negatives: it is not known whether they fit.
            Where a pair is both, it is positive.
        weights_B: float [B], >= 0: how much the rows of each sample count. A loss is sum(w * l) / sum(w).
        valid_B: bool [B]. A sample with False takes no part at all, neither as a row nor as a negative of others.
        sources_B2: int64 [B, 2], keys of the kind of image and of its source, -1 = not known. Two samples of one kind,
            or of a kind that is not known, are negatives only within one source; of two sources they are positives or
            left out. What tells one source from another is then no way to make the loss smaller.
        text_positive_BK: The keys of `positive_BK` that hold of a sample's text, where they are not those of its image:
            image i and text j are positives if image i's key is that of text j. A caption made of labels fits every
            image that is labelled so, and what a text says of its own image fits no other. None: the same.

    Raises:
        MedclipError: WRONG_USE for tensors of another shape or type.

    Example:
        >>> pairs = Pairs(positive_BK=keys_of(["study 1", "study 1", ""]))
        >>> positives(pairs.positive_BK, pairs.positive_BK).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """

    positive_BK: Tensor | None = None
    ignored_BK: Tensor | None = None
    weights_B: Tensor | None = None
    valid_B: Tensor | None = None
    sources_B2: Tensor | None = None
    text_positive_BK: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse other shapes and types, and tensors of different lengths."""
        lengths = set()
        for name, dims, right in (
            ("positive_BK", 2, "int64"),
            ("ignored_BK", 2, "int64"),
            ("weights_B", 1, "float"),
            ("valid_B", 1, "bool"),
            ("sources_B2", 2, "int64"),
            ("text_positive_BK", 2, "int64"),
        ):
            value: Tensor | None = getattr(self, name)
            if value is None:
                continue
            lengths.add(len(value) if value.ndim else -1)
            kind = "float" if value.dtype.is_floating_point else str(value.dtype).removeprefix("torch.")
            if value.ndim != dims or kind != right:
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"{name} is a {kind} tensor of shape {list(value.shape)}; expected {right} with {dims} axes.",
                )
        if len(lengths) > 1:
            raise MedclipError(Reason.WRONG_USE, f"the tensors of Pairs have different lengths: {sorted(lengths)}.")

    def of_texts(self, positive_BK: Tensor) -> Tensor:
        """Return the keys that hold of texts, where those of images are these."""
        return positive_BK if self.text_positive_BK is None else self.text_positive_BK

    def check(self, size: int) -> None:
        """Raise WRONG_USE if a tensor is not of the batch's size."""
        for value in (getattr(self, field.name) for field in fields(self)):
            if value is not None and len(value) != size:
                raise MedclipError(Reason.WRONG_USE, f"pairs of {len(value)} samples, but features of {size}.")


def keys_of(*columns: Sequence[str]) -> Tensor:
    """Turn K columns of B strings into keys for Pairs.

    A key depends on nothing but the string, so keys of different ranks and runs can be compared.

    Args:
        columns: Columns, each a sequence of B strings; "" has no key.

    Returns:
        int64 [B, K], on the CPU; -1 for "".

    Raises:
        MedclipError: WRONG_USE for no column or columns of different lengths.
    """
    if len({len(column) for column in columns}) != 1:
        raise MedclipError(Reason.WRONG_USE, "keys need one or more columns of the same length.")
    keys = [[key_of(value) for value in row] for row in zip(*columns, strict=True)]
    return torch.tensor(keys, dtype=torch.int64).view(len(columns[0]), len(columns))


def positives(rows_bK: Tensor, cols_NK: Tensor) -> Tensor:
    """Mark pairs of which any column holds equal keys.

    Args:
        rows_bK: int64 [b, K] keys of a chunk of rows.
        cols_NK: int64 [N, K] keys of all columns.

    Returns:
        bool [b, N]. The partner of a row is marked only through its keys: without any, the row is all False.
    """
    mask = torch.zeros(len(rows_bK), len(cols_NK), dtype=torch.bool, device=rows_bK.device)
    for column in range(rows_bK.shape[1]):
        # A row without a key gets one that no column has: one comparison of [b, N] instead of two and a product.
        rows_b = rows_bK[:, column].masked_fill(rows_bK[:, column] < 0, -2)
        cols_N = cols_NK[:, column].masked_fill(cols_NK[:, column] < 0, -1)
        mask |= rows_b[:, None] == cols_N[None, :]
    return mask


def of_other_source(rows_b2: Tensor, cols_N2: Tensor) -> Tensor:
    """Mark pairs of two sources of one kind of image, or of a kind that is not known.

    Args:
        rows_b2: int64 [b, 2] keys of kind and source of a chunk of rows.
        cols_N2: int64 [N, 2] of all columns.

    Returns:
        bool [b, N].

    Example:
        >>> xray, mri, here, there = 1, 2, 3, 4
        >>> keys = torch.tensor([[xray, here], [xray, there], [mri, there]])
        >>> of_other_source(keys, keys).int().tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    kind_b1, kind_1N = rows_b2[:, 0, None], cols_N2[None, :, 0]
    may_be_one_kind = (kind_b1 == kind_1N) | (kind_b1 < 0) | (kind_1N < 0)
    return may_be_one_kind & (rows_b2[:, 1, None] != cols_N2[None, :, 1])

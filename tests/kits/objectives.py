"""Batches for tests of objectives, and the losses once more, written densely in float64."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from medclip.objectives.pairs import Pairs


def unit(n: int, d: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def part_of(pairs: Pairs | None, rows: slice) -> Pairs | None:
    """The pairs of some samples."""
    if pairs is None:
        return None
    given = {f.name: getattr(pairs, f.name) for f in fields(pairs)}
    return Pairs(**{name: None if value is None else value[rows] for name, value in given.items()})


@st.composite
def batches(draw: st.DrawFn, some_valid: bool = True, of_texts: bool = False) -> tuple[int, int, Pairs | None, int]:
    """Size of a batch, width of features, pairs, chunk."""
    size, width, chunk = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 12))
    if draw(st.integers(0, 5)) == 0:
        return size, width, None, chunk

    def keys() -> Tensor | None:
        columns = draw(st.integers(-1, 2))
        one = st.lists(st.integers(-1, 3), min_size=columns, max_size=columns) if columns >= 0 else None
        return None if one is None else torch.tensor([draw(one) for _ in range(size)], dtype=torch.int64)

    weights = draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=size, max_size=size))
    valid = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
    if valid is not None and some_valid:
        valid[draw(st.integers(0, size - 1))] = True
    kind_and_source = st.tuples(st.integers(-1, 1), st.integers(-1, 2))
    sources = draw(st.none() | st.lists(kind_and_source, min_size=size, max_size=size))
    positive, text_positive = keys(), None
    if of_texts and positive is not None and draw(st.booleans()):
        quoted = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        text_positive = torch.where(quoted[:, None], -1, positive)
    pairs = Pairs(
        positive_BK=positive,
        ignored_BK=keys(),
        weights_B=None if weights is None else torch.tensor(weights),
        valid_B=None if valid is None else torch.tensor(valid),
        sources_B2=None if sources is None else torch.tensor(sources),
        text_positive_BK=text_positive,
    )
    return size, width, pairs, chunk


def relations(pairs: Pairs | None, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positives [B, B], ignored [B, B], weights [B] and valid [B], one pair of samples after the other."""
    pairs = pairs or Pairs()

    def related(keys: Tensor | None, i: int, j: int, of_texts: Tensor | None = None) -> bool:
        other = keys if of_texts is None else of_texts
        return (
            keys is not None
            and other is not None
            and any(a == b and a >= 0 for a, b in zip(keys[i].tolist(), other[j].tolist(), strict=True))
        )

    keys, texts = pairs.positive_BK, pairs.text_positive_BK
    positive = [[i == j or related(keys, i, j, texts) for j in range(size)] for i in range(size)]

    def left_out(i: int, j: int) -> bool:
        if related(pairs.ignored_BK, i, j):
            return True
        if pairs.sources_B2 is None:
            return False
        (kind, source), (other_kind, other_source) = pairs.sources_B2[i].tolist(), pairs.sources_B2[j].tolist()
        return source != other_source and (kind == other_kind or min(kind, other_kind) < 0)

    ignored = [[not positive[i][j] and left_out(i, j) for j in range(size)] for i in range(size)]
    weights = torch.ones(size, dtype=torch.float64) if pairs.weights_B is None else pairs.weights_B.double()
    valid = torch.ones(size, dtype=torch.bool) if pairs.valid_B is None else pairs.valid_B
    return torch.tensor(positive), torch.tensor(ignored), weights, valid


def dense_clip(image: Tensor, text: Tensor, scale: Tensor, pairs: Pairs | None = None) -> Tensor:
    positive, ignored, weights, valid = relations(pairs, len(image))
    logits = scale * image @ text.T
    total = torch.zeros((), dtype=torch.float64)
    for table, yes, out in ((logits, positive, ignored), (logits.T, positive.T, ignored.T)):
        for i in valid.nonzero().flatten().tolist():
            seen, own = table[i, valid & ~out[i]], table[i, valid & yes[i]]
            total = total + weights[i] * (seen.logsumexp(0) - own.mean())
    whole = float(weights[valid].sum())
    return total / whole / 2 if whole else 0 * (image.sum() + text.sum() + scale)


def dense_siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, pairs: Pairs | None = None) -> Tensor:
    positive, ignored, weights, valid = relations(pairs, len(image))
    logits = scale * image @ text.T + bias
    signs = torch.where(positive, 1.0, -1.0).double()
    each = -torch.nn.functional.logsigmoid(signs * logits)
    counts = (weights[:, None] + weights[None]) / 2 * (valid[:, None] & valid[None] & ~ignored)
    whole = float(weights[valid].sum())
    return (each * counts).sum() / whole if whole else 0 * each.sum()


def leaves(*values: Tensor | float, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.as_tensor(v).detach().clone().to(dtype).requires_grad_() for v in values]


def assert_equal_gradients(ours: list[Tensor], dense: list[Tensor], atol: float = 1e-5) -> None:
    for one, other in zip(ours, dense, strict=True):
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        torch.testing.assert_close(one.grad.double(), expected, atol=atol, rtol=1e-4)


def check_golden(value: Tensor, expected: np.ndarray) -> None:
    """Compare with the tolerance for forward values."""
    np.testing.assert_allclose(value.detach().numpy(), expected, atol=1e-5, rtol=1e-4)


def check_golden_gradient(tensor: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(tensor.grad.numpy(), expected, atol=1e-5, rtol=1e-3)

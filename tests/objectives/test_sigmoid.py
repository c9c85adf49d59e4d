"""The sigmoid loss against golden vectors, closed forms and a dense float64 form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.objectives.block import make_block
from medclip.objectives.pairs import Pairs
from medclip.objectives.sigmoid import siglip_loss, sigmoid_block
from tests.kits.objectives import (
    assert_equal_gradients,
    batches,
    check_golden,
    check_golden_gradient,
    dense_siglip,
    leaves,
    unit,
)

INPUTS = ("image_features", "text_features", "logit_scale", "logit_bias")


def test_logits_of_zero_and_orthonormal_pairs_give_the_closed_forms() -> None:
    eye = torch.eye(2)
    assert float(siglip_loss(eye, eye, 0.0, 0.0)) == pytest.approx(2 * math.log(2), abs=1e-6)
    assert float(siglip_loss(eye, eye, 10.0, -10.0)) == pytest.approx(math.log(2) + math.log1p(math.exp(-10)), abs=1e-6)


@given(n=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_the_gradient_of_the_bias_is_the_sum_of_what_the_answers_are_off_by(n: int, seed: int) -> None:
    image, text, bias = unit(n, 5, seed), unit(n, 5, seed + 1), torch.tensor(-3.0, requires_grad=True)
    siglip_loss(image, text, 10.0, bias, chunk=4).backward()
    off = torch.sigmoid(10 * image @ text.T - 3) - torch.eye(n)
    torch.testing.assert_close(bias.grad, off.sum() / n, atol=1e-5, rtol=1e-5)


@given(
    batch=batches(some_valid=False, of_texts=True),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.1, 60),
    bias=st.floats(-12, 2),
)
def test_loss_and_gradients_equal_the_dense_form(
    batch: tuple[int, int, Pairs | None, int], seed: int, scale: float, bias: float
) -> None:
    size, width, pairs, chunk = batch
    values = (unit(size, width, seed), unit(size, width, seed + 1), scale, bias)
    ours, dense = leaves(*values), leaves(*values, dtype=torch.float64)
    loss = siglip_loss(*ours, pairs, chunk=chunk)
    expected = dense_siglip(*dense, pairs)
    (2 * loss).backward()
    (2 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert_equal_gradients(ours, dense, atol=3e-5)


def test_half_precision_features_are_computed_in_float32_also_under_autocast() -> None:
    image, text = unit(4, 8, 0).half().requires_grad_(), unit(4, 8, 1).half()
    with torch.autocast("cpu", torch.bfloat16):
        loss = siglip_loss(image, text, 100.0, -10.0)
    loss.backward()
    assert image.grad.dtype == torch.float16
    torch.testing.assert_close(loss, siglip_loss(image.float(), text.float(), 100.0, -10.0), atol=0, rtol=0)


@pytest.mark.golden
def test_the_loss_its_chunks_and_its_gradients_equal_the_golden_vectors(golden: Path) -> None:
    stored = np.load(golden / "siglip_loss.npz", allow_pickle=False)
    for size, expected in zip([1024, *stored["chunk_sizes"]], [stored["loss"], *stored["chunk_losses"]], strict=True):
        given_ = leaves(*(torch.tensor(stored[name]) for name in INPUTS))
        loss = siglip_loss(*given_, chunk=int(size) or 1024)
        loss.backward()
        np.testing.assert_allclose(loss.item(), expected, atol=1e-6, rtol=1e-6)
        for tensor, name in zip(given_, ("image", "text", "logit_scale", "logit_bias"), strict=True):
            check_golden_gradient(tensor, stored[f"grad_{name}"])


@pytest.mark.golden
@pytest.mark.parametrize("mode", ["bidir", "shift", "gather", "reduce"])
def test_the_part_of_each_rank_equals_the_golden_one_and_their_mean_is_the_loss(golden: Path, mode: str) -> None:
    stored = np.load(golden / "siglip_loss.npz", allow_pickle=False)
    image, text, scale, bias = (torch.tensor(stored[name]) for name in INPUTS)
    expected = stored[f"{mode}_rank_losses"]
    ranks, rows = len(expected), len(image) // len(expected)
    for rank in range(ranks):
        block = make_block(None, len(image), rank, ranks, image.device)
        part = sigmoid_block(image[rank * rows : (rank + 1) * rows], text, scale, bias, block, chunk=3)
        np.testing.assert_allclose(part, expected[rank], atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(expected.mean(), stored["loss"], rtol=1e-6)


@pytest.mark.golden
def test_the_loss_equals_the_golden_vectors_of_the_core(golden: Path) -> None:
    stored = np.load(golden / "core_clip_siglip_losses.npz", allow_pickle=False)
    cases = sorted({key.split("/")[1] for key in stored if key.startswith("siglip/")})
    assert cases
    for case in cases:
        features = [torch.tensor(stored[f"clip/{case}/{name}"]) for name in ("image", "text")]
        given_ = leaves(*features, *(torch.tensor(stored[f"siglip/{case}/{name}"]) for name in ("scale", "bias")))
        loss = siglip_loss(*given_, chunk=4)
        loss.backward()
        check_golden(loss, stored[f"siglip/{case}/loss"])
        for tensor, name in zip(given_, ("image", "text", "scale", "bias"), strict=True):
            check_golden_gradient(tensor, stored[f"siglip/{case}/grad_{name}"])

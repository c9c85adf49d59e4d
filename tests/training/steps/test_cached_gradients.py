"""Gradients with features first and chunks afterwards equal those of the whole batch."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.sigmoid import siglip_loss
from medclip.training.steps.step import cached_backward


class Towers(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.log_scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))
        self.dropout, self.calls = dropout, 0

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        made = [torch.tanh(self.image(image)), torch.tanh(self.text(text))]
        return tuple(nn.functional.normalize(nn.functional.dropout(x, self.dropout), dim=1) for x in made)

    def clip(self, image: Tensor, text: Tensor) -> Tensor:
        return clip_loss(image, text, self.log_scale.exp())

    def siglip(self, image: Tensor, text: Tensor) -> Tensor:
        return siglip_loss(image, text, self.log_scale.exp(), self.bias)

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}


def _inputs(size: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 6, generator=generator), torch.randn(size, 5, generator=generator)


@given(size=st.integers(1, 9), chunk=st.integers(1, 9), name=st.sampled_from(["clip", "siglip"]))
def test_loss_and_gradients_equal_those_of_the_whole_batch(size: int, chunk: int, name: str) -> None:
    image, text = _inputs(size)
    whole, cached = Towers(), Towers()
    loss = getattr(whole, name)(*whole(image, text))
    loss.backward()
    chunks = list(zip(image.split(chunk), text.split(chunk), strict=True))
    value = cached_backward(chunks, lambda c: cached(*c), getattr(cached, name))
    assert not value.requires_grad
    torch.testing.assert_close(value, loss.detach(), atol=1e-6, rtol=1e-6)
    assert cached.gradients().keys() == whole.gradients().keys()
    for name_, gradient in whole.gradients().items():
        torch.testing.assert_close(cached.gradients()[name_], gradient, atol=1e-5, rtol=1e-5)


def test_dropout_draws_the_same_both_times_and_goes_on_afterwards() -> None:
    image, text = _inputs(6)
    towers, drawn = Towers(dropout=0.5), []

    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        found = towers(*chunk)
        drawn.append(found[0].detach())
        return found

    torch.manual_seed(7)
    value = cached_backward(list(zip(image.split(2), text.split(2), strict=True)), encode, towers.clip)
    after = torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(drawn[:3], drawn[3:], strict=True))

    other = Towers(dropout=0.5)
    torch.manual_seed(7)
    parts = [other(*c) for c in zip(image.split(2), text.split(2), strict=True)]
    expected = other.clip(*(torch.cat(x) for x in zip(*parts, strict=True)))
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    assert torch.equal(after, torch.rand(1))  # the second time does not move the generator on
    for name, gradient in other.gradients().items():
        torch.testing.assert_close(towers.gradients()[name], gradient, atol=1e-6, rtol=1e-5)


def test_gradients_are_added_to_those_that_are_there() -> None:
    image, text = _inputs(4)
    towers = Towers()
    for _ in range(2):
        cached_backward([(image[:2], text[:2]), (image[2:], text[2:])], lambda c: towers(*c), towers.clip)
    twice = towers.gradients()
    once = Towers()
    once.clip(*once(image, text)).backward()
    for name, gradient in once.gradients().items():
        torch.testing.assert_close(twice[name], 2 * gradient)


def test_a_locked_tower_gets_no_gradient_and_a_locked_pair_only_trains_the_scale() -> None:
    image, text = _inputs(4)
    towers = Towers()
    towers.image.requires_grad_(False)
    chunks = list(zip(image.split(2), text.split(2), strict=True))
    cached_backward(chunks, lambda c: towers(*c), towers.clip)
    assert set(towers.gradients()) == {"text.weight", "text.bias", "log_scale"}
    towers.zero_grad(set_to_none=True)
    towers.text.requires_grad_(False)
    cached_backward(chunks, lambda c: towers(*c), towers.clip)
    assert set(towers.gradients()) == {"log_scale"}


def test_everything_but_the_last_chunk_happens_without_telling_other_ranks() -> None:
    image, text = _inputs(6)
    towers, quiet, seen = Towers(), [False], []

    @contextmanager
    def no_sync():
        quiet[0] = True
        yield
        quiet[0] = False

    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        seen.append(quiet[0])
        return towers(*chunk)

    chunks = list(zip(image.split(2), text.split(2), strict=True))
    cached_backward(chunks, encode, towers.clip, no_sync=no_sync, loss_parameters=[towers.log_scale])
    assert seen == [True] * 5 + [False]


def test_no_more_than_one_chunk_is_encoded_with_gradients_at_a_time() -> None:
    image, text = _inputs(8)
    towers, alive = Towers(), []

    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        found = towers(*chunk)
        alive.append(found[0].grad_fn is not None)
        return found

    cached_backward(list(zip(image.split(2), text.split(2), strict=True)), encode, towers.clip)
    assert alive == [False] * 4 + [True] * 4


def test_a_batch_without_chunks_is_refused() -> None:
    with pytest.raises(MedclipError) as caught:
        cached_backward([], lambda c: (c,), torch.sum)
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.golden
@pytest.mark.parametrize("chunk", [3, 4, 5])
def test_loss_and_gradients_equal_the_golden_vectors(golden: Path, chunk: int) -> None:
    stored = np.load(golden / "gradcache_equivalence.npz", allow_pickle=False)
    parameters = {name: torch.tensor(stored[name], requires_grad=True) for name in ("A_w", "A_b", "B_w", "B_b")}
    log_scale = torch.tensor(float(stored["log_scale"]), requires_grad=True)

    def encode(c: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            nn.functional.normalize(
                torch.tanh(nn.functional.linear(x, parameters[f"{k}_w"], parameters[f"{k}_b"])), dim=1
            )
            for x, k in zip(c, "AB", strict=True)
        )

    inputs = [torch.tensor(stored[k]).split(chunk) for k in "XY"]
    loss = cached_backward(list(zip(*inputs, strict=True)), encode, lambda a, b: clip_loss(a, b, log_scale.exp()))
    for name in ("loss", "gradcache_loss"):
        np.testing.assert_allclose(loss, stored[name], atol=1e-5, rtol=1e-5)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(parameter.grad, stored[f"grad_{name}"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(log_scale.grad, stored["grad_ls"], rtol=1e-4)
    # Accumulation as in open_clip counts the scale's gradient once for each chunk; here it is counted once.
    parts = stored["openclip_accum_grad_ls"] / stored["grad_ls"]
    assert parts == pytest.approx(round(float(parts)), rel=1e-3)
    np.testing.assert_allclose(log_scale.grad * float(parts), stored["openclip_accum_grad_ls"], rtol=1e-4)

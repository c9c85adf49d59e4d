"""The learned soup: against a computation without autograd, and what must hold of any shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor
from torch.nn.functional import cross_entropy

from medclip.errors import MedclipError, Reason
from medclip.models.merging.learned_soup import EPOCHS, RATE, learned_soup
from medclip.models.merging.soups import uniform_soup


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "model_soups.npz"))


def heads(vectors: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
    return [{"W": torch.tensor(W), "b": torch.tensor(b)} for W, b in zip(vectors["W"], vectors["b"], strict=True)]


def losses(vectors: dict[str, np.ndarray]) -> Callable[[int], list[Callable[[Mapping[str, Tensor], Tensor], Tensor]]]:
    x, y = torch.tensor(vectors["X_val"]), torch.tensor(vectors["y_val"])

    def loss_of(rows: slice) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
        return lambda state, factor: cross_entropy(factor * (x[rows] @ state["W"].T + state["b"]), y[rows])

    return lambda epoch: [loss_of(slice(start, start + 100)) for start in range(0, len(x), 100)]


def learned_by_hand(vectors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """The same in numpy: gradients by the chain rule, AdamW from its paper."""
    W, b, x, y = (vectors[name] for name in ("W", "b", "X_val", "y_val"))
    raw = {"W": np.ones(len(W)), "b": np.ones(len(W)), "factor": np.ones(())}
    first, second = ({name: np.zeros_like(value) for name, value in raw.items()} for _ in range(2))
    step = 0
    for _ in range(EPOCHS):
        for start in range(0, len(x), 100):
            rows = slice(start, start + 100)
            shares = {name: softmax(raw[name]) for name in ("W", "b")}
            plain = x[rows] @ np.tensordot(shares["W"], W, 1).T + shares["b"] @ b
            wrong = (np.exp(log_softmax(raw["factor"] * plain, axis=1)) - np.eye(len(b[0]))[y[rows]]) / 100
            of_share = {
                "W": raw["factor"] * np.einsum("nc,nd,kcd->k", wrong, x[rows], W),
                "b": raw["factor"] * np.einsum("nc,kc->k", wrong, b),
            }
            gradient = {name: shares[name] * (g - shares[name] @ g) for name, g in of_share.items()}
            gradient["factor"] = (wrong * plain).sum()
            step += 1
            for name, g in gradient.items():
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                raw[name] = raw[name] - RATE * mean / (np.sqrt(square) + 1e-8)
    return {name: softmax(raw[name]) for name in ("W", "b")}, float(raw["factor"])


@pytest.mark.golden
def test_shares_and_temperature_are_those_of_a_computation_without_autograd(vectors: dict[str, np.ndarray]) -> None:
    soup = learned_soup(heads(vectors), losses(vectors))
    shares, factor = learned_by_hand(vectors)
    for name, expected in shares.items():
        np.testing.assert_allclose(soup.shares[name], expected, atol=1e-6)
        mixed = np.tensordot(expected, vectors[name], 1)
        np.testing.assert_allclose(soup.state[name], mixed, atol=1e-5)
    assert soup.temperature == pytest.approx(factor, abs=1e-5)


@pytest.mark.golden
def test_what_is_learned_is_better_on_its_data_than_the_uniform_soup_it_begins_with(
    vectors: dict[str, np.ndarray],
) -> None:
    def loss(state: dict[str, Tensor]) -> float:
        return float(np.mean([of_batch(state, torch.ones(())).item() for of_batch in losses(vectors)(0)]))

    soup = learned_soup(heads(vectors), losses(vectors), epochs=20)
    assert loss(soup.state) < loss(uniform_soup(heads(vectors)))
    assert soup.losses[-1] < soup.losses[0]
    assert sum(soup.mean_shares()) == pytest.approx(1)


def test_equal_models_stay_what_they_are_and_statistics_and_counts_are_not_learned() -> None:
    one = {
        "w": torch.tensor([1.0, -2.0], dtype=torch.float16),
        "bn.running_mean": torch.tensor([1.0]),
        "n": torch.tensor(3),
    }
    other = one | {"bn.running_mean": torch.tensor([3.0]), "n": torch.tensor(5)}
    soup = learned_soup([one, other], lambda _: [lambda state, factor: factor * state["w"].square().sum()])
    assert soup.state["w"].dtype == torch.float16
    torch.testing.assert_close(soup.state["w"], one["w"])
    assert soup.state["bn.running_mean"].item() == 2
    assert soup.state["n"].item() == 3
    assert set(soup.shares) == {"w"}
    assert soup.mean_shares() == pytest.approx([0.5, 0.5])


def test_one_model_alone_is_itself() -> None:
    one = {"w": torch.randn(5, generator=torch.Generator().manual_seed(0))}
    soup = learned_soup([one], lambda _: [lambda state, factor: factor * state["w"].square().sum()])
    torch.testing.assert_close(soup.state["w"], one["w"])


def test_no_model_no_label_and_other_tensors_are_refused() -> None:
    one = {"w": torch.zeros(1)}
    for states, batches, reason in (
        ([], [], Reason.WRONG_USE),
        ([one], [], Reason.NOTHING_TO_DO),
        ([one, {"w": torch.zeros(2)}], [], Reason.PACK_INVALID),
    ):
        with pytest.raises(MedclipError) as caught:
            learned_soup(states, lambda _, batches=batches: batches)
        assert caught.value.reason is reason

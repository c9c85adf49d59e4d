"""Soups and interpolation: the golden vectors, small sums by hand, and what must hold of any weights."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.models.merging.soups import greedy_soup, uniform_soup, wise_ft

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "model_soups.npz"))


def head(vectors: dict[str, np.ndarray], k: int) -> dict[str, Tensor]:
    return {"W": torch.tensor(vectors["W"][k]), "b": torch.tensor(vectors["b"][k])}


def loaders(vectors: dict[str, np.ndarray]) -> list[tuple[str, Callable[[], dict[str, Tensor]]]]:
    return [(str(k), lambda k=k: head(vectors, k)) for k in range(len(vectors["W"]))]


def accuracy(vectors: dict[str, np.ndarray]) -> Callable[..., float]:
    def measure(state: dict[str, Tensor]) -> float:
        logits = vectors["X_val"] @ state["W"].numpy().T + state["b"].numpy()
        return float((logits.argmax(1) == vectors["y_val"]).mean())

    return measure


@pytest.mark.golden
def test_the_greedy_soup_visits_accepts_and_averages_as_the_published_code(vectors: dict[str, np.ndarray]) -> None:
    result = greedy_soup(loaders(vectors), accuracy(vectors))
    visited = [int(result.ingredients[0]), *(int(tried.name) for tried in result.trace)]
    assert visited == vectors["sorted_order"].tolist()
    assert [int(name) for name in result.ingredients] == vectors["ingredients"].tolist()
    assert [tried.soup for tried in result.trace] == pytest.approx(vectors["candidate_acc"].tolist(), abs=1e-12)
    alone = {int(tried.name): tried.alone for tried in result.trace}
    assert all(value == pytest.approx(vectors["individual_acc"][k], abs=1e-12) for k, value in alone.items())
    assert result.figure == pytest.approx(float(vectors["soup_acc"]), abs=1e-12)
    np.testing.assert_allclose(result.state["W"], vectors["soup_W"], **EXACT)
    np.testing.assert_allclose(result.state["b"], vectors["soup_b"], **EXACT)


@pytest.mark.golden
def test_a_copy_of_the_best_model_is_refused_by_the_strict_rule_and_taken_by_the_other(
    vectors: dict[str, np.ndarray],
) -> None:
    best = greedy_soup(loaders(vectors), accuracy(vectors)).ingredients[0]
    models = [("copy", lambda: head(vectors, int(best))), *loaders(vectors)]
    strict, other = (greedy_soup(models, accuracy(vectors), rule).ingredients for rule in ("strict", "geq"))
    assert len({"copy", best} & set(strict)) == 1
    assert {"copy", best} <= set(other)


@pytest.mark.golden
def test_uniform_soup_and_interpolation_equal_the_golden_ones(vectors: dict[str, np.ndarray]) -> None:
    soup = uniform_soup([load for _, load in loaders(vectors)])
    np.testing.assert_allclose(soup["W"], vectors["uniform_W"], **EXACT)
    np.testing.assert_allclose(soup["b"], vectors["uniform_b"], **EXACT)
    assert accuracy(vectors)(soup) == pytest.approx(float(vectors["uniform_acc"]), abs=1e-12)
    mixed = wise_ft(head(vectors, 0), head(vectors, 1), float(vectors["wise_alpha"]))
    np.testing.assert_allclose(mixed["W"], vectors["wise_W"], **EXACT)


def weights(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values)}


def test_a_third_model_of_weight_seven_after_one_and_four_makes_four() -> None:
    seen: list[float] = []
    figures = {1.0: 0.9, 4.0: 0.8, 7.0: 0.7, 2.5: 0.95}

    def measure(state: dict[str, Tensor]) -> float:  # type: ignore[misc]
        seen.append(round(state["w"].item(), 6))
        return 1.0 if len(seen) > 4 else figures[seen[-1]]

    models = [(str(value), lambda value=value: weights(value)) for value in (1.0, 4.0, 7.0)]
    result = greedy_soup(models, measure)  # type: ignore[arg-type]
    assert seen[3:] == [2.5, 4.0]
    assert result.ingredients == ("1.0", "4.0", "7.0")
    assert result.state["w"].item() == pytest.approx(4.0, abs=1e-6)


@given(
    values=st.lists(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), min_size=1, max_size=6),
    goal=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
)
def test_a_greedy_soup_is_no_worse_than_its_best_model_and_the_mean_of_what_it_took(
    values: list[list[float]], goal: list[float]
) -> None:
    def near(state: dict[str, Tensor]) -> float:  # type: ignore[misc]
        return -float((state["w"] - torch.tensor(goal)).square().sum())

    models = [(str(k), lambda v=v: weights(*v)) for k, v in enumerate(values)]
    result = greedy_soup(models, near)  # type: ignore[arg-type]
    assert result.figure >= max(near(load()) for _, load in models)
    taken = torch.tensor([values[int(name)] for name in result.ingredients]).mean(0)
    torch.testing.assert_close(result.state["w"], taken, atol=1e-5, rtol=1e-5)


def test_one_model_alone_is_itself_bit_for_bit() -> None:
    one = {"w": torch.randn(5, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(3)}
    for state in (uniform_soup([one]), greedy_soup([("a", lambda: one)], lambda _: 0.0).state):
        assert torch.equal(state["w"], one["w"])
        assert torch.equal(state["n"], one["n"])


def test_half_precision_is_averaged_in_float32_and_whole_numbers_are_the_first_models() -> None:
    thirds = [
        {"w": torch.tensor([value], dtype=torch.float16), "n": torch.tensor(k)} for k, value in enumerate((1, 1, 2))
    ]
    soup = uniform_soup(thirds)
    assert soup["w"].dtype == torch.float16
    assert soup["w"].item() == torch.tensor(4 / 3).half().item()
    assert soup["n"].item() == 0


def test_a_gain_below_the_least_one_is_refused() -> None:
    models = [("a", lambda: weights(1.0)), ("b", lambda: weights(2.0))]
    figure = {1.0: 0.8, 2.0: 0.7, 1.5: 0.805}.__getitem__
    assert greedy_soup(models, lambda s: figure(s["w"].item())).ingredients == ("a", "b")
    assert greedy_soup(models, lambda s: figure(s["w"].item()), min_gain=0.01).ingredients == ("a",)


def test_halfway_to_a_refused_model_is_measured_so_that_another_basin_is_seen() -> None:
    models = [("a", lambda: weights(1.0)), ("b", lambda: weights(-1.0))]
    result = greedy_soup(models, lambda s: abs(s["w"].item()), midpoints=True)
    (tried,) = result.trace
    assert (tried.accepted, tried.midpoint) == (False, 0.0)


def test_no_more_than_three_state_dicts_are_in_memory_at_once() -> None:
    shape, most = (2, 1009, 3), 0

    def alive() -> int:
        return sum(type(x) is Tensor and x.shape == shape and x.device.type == "cpu" for x in gc.get_objects())

    def measure(state: dict[str, Tensor]) -> float:  # type: ignore[misc]
        nonlocal most
        most = max(most, alive())
        return float(state["w"].mean())

    models = [(str(k), lambda k=k: {"w": torch.full(shape, float(k))}) for k in (3, 1, 2, 4, 0)]
    greedy_soup(models, measure, midpoints=True)  # type: ignore[arg-type]
    assert 1 < most <= 3


def test_the_ends_of_the_line_are_the_models_and_equal_fishers_are_the_plain_form() -> None:
    generator = torch.Generator().manual_seed(1)
    old, new, fisher = ({"w": torch.rand(4, 3, generator=generator)} for _ in range(3))
    assert torch.equal(wise_ft(old, new, 0)["w"], old["w"])
    assert torch.equal(wise_ft(old, new, 1)["w"], new["w"])
    torch.testing.assert_close(wise_ft(old, new, 0.3, (fisher, fisher))["w"], wise_ft(old, new, 0.3)["w"])
    torch.testing.assert_close(wise_ft(old, new, 0.3, ({}, {}))["w"], wise_ft(old, new, 0.3)["w"])


def test_information_pulls_the_average_to_the_model_that_has_it() -> None:
    mixed = wise_ft(weights(0.0), weights(1.0), 0.5, (weights(1.0), weights(3.0)))
    assert mixed["w"].item() == pytest.approx(0.75)
    assert wise_ft(weights(0.0), weights(1.0), 0.5, (weights(0.0), weights(1.0)))["w"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("other", "named"), [({"v": torch.zeros(1)}, "w is"), ({"w": torch.zeros(2)}, "w is"), ({}, "w is")]
)
def test_the_first_tensor_that_differs_is_named(other: dict[str, Tensor], named: str) -> None:
    for merge in (lambda: uniform_soup([weights(1), other]), lambda: wise_ft(weights(1), other)):
        with pytest.raises(MedclipError, match=named) as told:
            merge()
        assert told.value.reason == Reason.PACK_INVALID


def test_no_model_and_a_share_outside_are_wrong_use() -> None:
    for merge in (lambda: uniform_soup([]), lambda: greedy_soup([], lambda _: 0), lambda: wise_ft({}, {}, 1.2)):
        with pytest.raises(MedclipError) as told:
            merge()
        assert told.value.reason == Reason.WRONG_USE

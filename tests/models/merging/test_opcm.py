"""OPCM: the golden vectors, the sums of the paper's steps by hand, and what must hold after every model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.merging.opcm import OpcmState, linear_weights, opcm_merge

LINEAR = {"fc1.weight", "fc2.weight", "sq.weight"}
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "opcm.npz"))


def of(vectors: dict[str, np.ndarray], part: str) -> State:
    return {k.removeprefix(f"{part}/"): torch.tensor(v) for k, v in vectors.items() if k.startswith(f"{part}/")}


@pytest.mark.golden
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_every_merge_factor_and_norm_equals_the_published_codes(vectors: dict[str, np.ndarray], alpha: float) -> None:
    state, norms = None, []
    for t in range(4):
        task = of(vectors, f"task{t}")
        merged, state = opcm_merge(of(vectors, "pre"), [task], alpha, linear_keys=LINEAR, state=state, unmerged={"cls"})
        expected = of(vectors, f"alpha{alpha}/merged_step{t}")
        assert merged.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-8)
        assert state.lam == pytest.approx(vectors[f"alpha{alpha}/lambda_t"][t], abs=1e-8)
        assert state.norms[t] == pytest.approx(vectors[f"alpha{alpha}/task_vector_norm"][t], abs=1e-8)
        norms.append(length(merged, of(vectors, "pre")))
        mean = sum(state.norms) / len(state.norms)
        assert mean == pytest.approx(vectors[f"alpha{alpha}/avg_task_vector_norm"][t], abs=1e-8)
    np.testing.assert_allclose(norms, vectors[f"alpha{alpha}/merged_task_vector_norm"], rtol=0, atol=1e-8)


def length(state: State, start: State) -> float:
    return math.sqrt(sum(float((state[n].double() - v.double()).square().sum()) for n, v in start.items()))


def models(count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[State, list[State]]:
    """A start with a linear layer, a fused matrix of attention, a bias and a kernel, and what learned from it."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"fc1.weight": (5, 4), "attn.in_proj_weight": (12, 4), "bias": (5,), "conv": (3, 2, 2, 2)}

    def drawn() -> State:
        return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}

    start = drawn()
    return start, [{n: start[n] + 0.1 * v for n, v in drawn().items()} for _ in range(count)]


ALL_LINEAR = {"fc1.weight", "attn.in_proj_weight"}


def test_the_merge_lies_as_far_from_the_start_as_the_models_do_on_average() -> None:
    start, experts = models(3)
    merged, state = opcm_merge(start, experts, linear_keys=ALL_LINEAR)
    assert length(merged, start) == pytest.approx(np.mean([length(x, start) for x in experts]), rel=1e-6)
    assert state.norms == pytest.approx([length(x, start) for x in experts])


def test_one_model_alone_is_returned_bit_for_bit() -> None:
    start, (expert,) = models(1, torch.float32)
    merged, state = opcm_merge(start, [expert], linear_keys=ALL_LINEAR)
    assert all(torch.equal(merged[name], expert[name]) for name in expert)
    assert state.lam == 1


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_nothing_along_the_directions_of_the_first_model_is_added_by_the_second(alpha: float) -> None:
    start, experts = models(2)
    merged, state = opcm_merge(start, experts, alpha, linear_keys=ALL_LINEAR)
    name = "fc1.weight"
    before = experts[0][name] - start[name]
    added = (merged[name] - start[name]) * state.lam - before
    u, sigma, vh = torch.linalg.svd(before)
    inner = u.T @ added @ vh.T
    cut = int((sigma.cumsum(0) / sigma.sum() > alpha).int().argmax())
    assert float(inner.diagonal().abs().max()) < 1e-12
    assert float(inner[:cut, :cut].abs().sum()) < 1e-12
    assert float(inner.abs().max()) > 0.01


def test_each_block_of_a_fused_matrix_is_projected_by_itself() -> None:
    start, experts = models(2)
    name = "attn.in_proj_weight"
    merged, state = opcm_merge(start, experts, linear_keys=ALL_LINEAR)
    for old, new, base in zip(*(x[name].chunk(3) for x in (experts[0], merged, start)), strict=True):
        u, _, vh = torch.linalg.svd(old - base)
        inner = u.T @ ((new - base) * state.lam - (old - base)) @ vh.T
        assert float(inner.diagonal().abs().max()) < 1e-12


def test_the_sum_by_hand() -> None:
    zero = {"w": torch.zeros(2, 2, dtype=torch.float64)}
    tasks = [{"w": torch.tensor(rows, dtype=torch.float64)} for rows in ([[3, 0], [0, 1]], [[2, 4], [6, 5]])]
    merged, state = opcm_merge(zero, tasks, 0.5, linear_keys={"w"})
    assert state.lam == pytest.approx(1.294825, abs=1e-6)
    expected = torch.tensor([[2.316916, 3.089222], [4.633832, 0.772305]], dtype=torch.float64)
    torch.testing.assert_close(merged["w"], expected, atol=1e-6, rtol=0)


def test_models_that_share_no_direction_are_added_up() -> None:
    zero = {"w": torch.zeros(4, 4, dtype=torch.float64)}
    first, second = ({"w": torch.zeros(4, 4, dtype=torch.float64)} for _ in range(2))
    first["w"][:2, :2] = torch.tensor([[2.0, 1.0], [0.5, 3.0]])
    second["w"][2:, 2:] = torch.tensor([[1.0, -1.0], [4.0, 2.0]])
    merged, state = opcm_merge(zero, [first, second], linear_keys={"w"})
    total = first["w"] + second["w"]
    torch.testing.assert_close(merged["w"] * state.lam, total, atol=1e-12, rtol=0)
    assert state.lam == pytest.approx(float(total.norm()) / (sum(state.norms) / 2))


def test_a_layer_that_the_first_model_left_alone_takes_what_the_second_learned() -> None:
    start, experts = models(2)
    experts[0]["fc1.weight"] = start["fc1.weight"].clone()
    merged, state = opcm_merge(start, experts, linear_keys=ALL_LINEAR)
    added = (merged["fc1.weight"] - start["fc1.weight"]) * state.lam
    torch.testing.assert_close(added, experts[1]["fc1.weight"] - start["fc1.weight"], atol=1e-12, rtol=0)


def test_directions_without_content_are_not_projected_away() -> None:
    zero = {"w": torch.zeros(3, 3, dtype=torch.float64)}
    first = {"w": torch.outer(torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 0, 0])).double()}
    second = {"w": torch.diag(torch.tensor([5.0, 2.0, 3.0])).double()}
    merged, state = opcm_merge(zero, [first, second], linear_keys={"w"})
    torch.testing.assert_close(merged["w"] * state.lam, torch.diag(torch.tensor([1.0, 2.0, 3.0])).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_four_models_in_one_call_equal_two_and_two_with_a_state_bit_for_bit(dtype: torch.dtype) -> None:
    start, experts = models(4, dtype)
    at_once, one = opcm_merge(start, experts, linear_keys=ALL_LINEAR)
    _, half = opcm_merge(start, experts[:2], linear_keys=ALL_LINEAR)
    stored = OpcmState({n: v.clone() for n, v in half.merged.items()}, float(repr(half.lam)), half.norms)
    in_two, two = opcm_merge(start, experts[2:], linear_keys=ALL_LINEAR, state=stored)
    assert all(torch.equal(at_once[name], in_two[name]) for name in start)
    assert (one.lam, one.norms) == (two.lam, two.norms)


def test_models_that_learned_nothing_leave_the_start_as_it_is() -> None:
    start, _ = models(0)
    merged, state = opcm_merge(start, [start, start], linear_keys=ALL_LINEAR)
    assert all(torch.equal(merged[name], start[name]) for name in start)
    assert math.isfinite(state.lam)


def test_buffers_of_whole_numbers_are_the_first_models_and_no_part_of_a_norm() -> None:
    start, experts = models(2)
    counted = [x | {"position_ids": torch.arange(3) + k} for k, x in enumerate((start, *experts))]
    merged, state = opcm_merge(counted[0], counted[1:], linear_keys=ALL_LINEAR)
    assert merged["position_ids"].tolist() == [1, 2, 3]
    assert state.norms == opcm_merge(start, experts, linear_keys=ALL_LINEAR)[1].norms


def test_what_is_averaged_is_the_mean_of_the_models_and_no_part_of_a_norm() -> None:
    start, experts = models(4)
    variances = [torch.tensor([value], dtype=torch.float64) for value in (1.0, 0.1, 0.2, 0.3, 0.4)]
    counted = [x | {"running_var": v} for x, v in zip((start, *experts), variances, strict=True)]
    how: dict[str, Any] = {"linear_keys": ALL_LINEAR, "averaged": ["running_var"]}
    merged, state = opcm_merge(counted[0], counted[1:], **how)
    assert merged["running_var"].item() == pytest.approx(0.25)
    plain, of_plain = opcm_merge(start, experts, linear_keys=ALL_LINEAR)
    assert state.norms == of_plain.norms
    assert all(torch.equal(merged[name], value) for name, value in plain.items())
    summed, _ = opcm_merge(counted[0], counted[1:], linear_keys=ALL_LINEAR)
    assert summed["running_var"].item() < 0  # added up as weights are, it would be no variance


def test_linear_weights_are_those_of_layers_and_of_attention_and_nothing_else() -> None:
    tower = nn.Sequential(nn.Conv2d(3, 8, 4), nn.MultiheadAttention(8, 2), nn.Linear(8, 4), nn.Embedding(5, 8))
    assert linear_weights(tower) == {"1.in_proj_weight", "1.out_proj.weight", "2.weight"}


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 2.0])
def test_an_alpha_outside_is_refused(alpha: float) -> None:
    start, experts = models(2)
    with pytest.raises(MedclipError, match="alpha") as told:
        opcm_merge(start, experts, alpha, linear_keys=ALL_LINEAR)
    assert told.value.reason == Reason.WRONG_USE


def test_a_tensor_of_another_shape_is_named_and_nothing_to_merge_is_wrong_use() -> None:
    start, (expert,) = models(1)
    with pytest.raises(MedclipError, match=r"bias is \[5\] in the pretrained model and \[4\] in model 1"):
        opcm_merge(start, [expert | {"bias": torch.zeros(4)}], linear_keys=ALL_LINEAR)
    with pytest.raises(MedclipError, match="no model"):
        opcm_merge(start, [], linear_keys=ALL_LINEAR)

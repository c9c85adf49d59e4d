"""Rollout and relevance: the spec's small examples, and the golden vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.explaining.relevance import gradient_rollout, relevance, rollout

A1 = np.array([[[0.6, 0.4], [0.5, 0.5]]])
A2 = np.array([[[0.8, 0.2], [0.1, 0.9]]])


def test_rollout_mixes_with_the_identity_and_multiplies_the_later_block_from_the_left():
    np.testing.assert_allclose(rollout([A1, A2]), [[0.745, 0.255], [0.2775, 0.7225]], atol=1e-12)


def test_rows_of_rollout_sum_to_one_whatever_is_discarded():
    attention = np.random.default_rng(0).dirichlet(np.ones(9), (4, 3, 9))
    for discard in (0.0, 0.5, 0.9):
        np.testing.assert_allclose(rollout(attention, discard=discard).sum(axis=1), 1, atol=1e-12)


def test_uniform_attention_is_a_uniform_map_and_attention_to_oneself_leaves_the_patches_nothing():
    uniform = np.full((3, 2, 5, 5), 0.2)
    assert np.ptp(rollout(uniform)[0, 1:]) < 1e-12
    assert not rollout(np.broadcast_to(np.eye(5), (3, 2, 5, 5)))[0, 1:].any()


def test_relevance_of_one_block_clamps_before_it_averages():
    attention, gradient = np.array([[[0.5, 0.5], [0.25, 0.75]]]), np.array([[[1, -1], [2, 0.4]]])
    np.testing.assert_allclose(relevance([attention], [gradient]), [[1.5, 0], [0.5, 1.3]], atol=1e-12)
    np.testing.assert_array_equal(relevance([attention], [0 * gradient]), np.eye(2))


def test_heads_in_another_order_change_nothing_and_a_scaled_score_scales_the_map():
    rng = np.random.default_rng(1)
    attention, gradient = rng.dirichlet(np.ones(6), (3, 4, 6)), rng.normal(size=(3, 4, 6, 6))
    order = [2, 0, 3, 1]
    for compute in (relevance, gradient_rollout):
        expected = compute(attention, gradient)
        np.testing.assert_allclose(compute(attention[:, order], gradient[:, order]), expected, atol=1e-12)
    last = relevance(attention, gradient, start=-1)[0, 1:]
    np.testing.assert_allclose(relevance(attention, 7 * gradient, start=-1)[0, 1:] / 7, last, atol=1e-12)


def test_a_pooling_reads_what_the_blocks_made_of_the_tokens():
    rng = np.random.default_rng(2)
    block, pool = rng.dirichlet(np.ones(4), (2, 4)), rng.dirichlet(np.ones(4), (2, 1))
    ones = np.ones_like
    flow = relevance([block, pool], [ones(block), ones(pool)])
    np.testing.assert_allclose(flow, pool.mean(0) @ (np.eye(4) + block.mean(0)), atol=1e-12)


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "explainability.npz"))


@pytest.mark.parametrize("discard", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.golden
def test_rollout_of_vit_explain(vectors: dict[str, np.ndarray], fusion, discard: float):
    flow = rollout(vectors["attn"][:, 0], fusion=fusion, discard=discard, normalisation="columns")
    np.testing.assert_allclose(_map(flow), vectors[f"vitexplain_{fusion}_d{discard}"], atol=1e-5)


@pytest.mark.parametrize("discard", [0.0, 0.5, 0.9])
@pytest.mark.golden
def test_gradient_rollout_of_vit_explain(vectors: dict[str, np.ndarray], discard: float):
    flow = gradient_rollout(vectors["attn"][:, 0], vectors["grad"][:, 0], discard=discard, normalisation="columns")
    np.testing.assert_allclose(_map(flow), vectors[f"vitexplain_grad_d{discard}"], atol=1e-5)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.golden
def test_rollout_with_rows_of_one(vectors: dict[str, np.ndarray], fusion):
    expected = vectors[f"rollout_rownorm_{fusion}_R"]
    cls = vectors[f"rollout_rownorm_{fusion}_cls"]
    flows = [rollout(vectors["attn"][:, 0], fusion=fusion, discard=d) for d in (0.0, 0.5, 0.9)]
    best = min(flows, key=lambda flow: float(np.abs(flow - expected).max()))
    np.testing.assert_allclose(best, expected, atol=1e-5)
    np.testing.assert_allclose(best[0, 1:].reshape(4, 4), cls, atol=1e-5)


@pytest.mark.golden
def test_relevance_of_all_blocks(vectors: dict[str, np.ndarray]):
    flow = relevance(vectors["attn"][:, 0], vectors["grad"][:, 0])
    np.testing.assert_allclose(flow, vectors["chefer_all_layers_R"], atol=1e-5)


@pytest.mark.parametrize("start", [-1, 0])
@pytest.mark.golden
def test_relevance_of_images_to_prompts_of_a_small_clip(vectors: dict[str, np.ndarray], start: int):
    for number, expected in enumerate(vectors[f"clip_image_relevance_start{start}"]):
        attention, gradient = (vectors[f"clip_{name}"][:, number : number + 1] for name in ("attn", "grad"))
        np.testing.assert_allclose(relevance(attention, gradient, start=start)[0, 1:], expected, atol=1e-5)


def _map(flow: np.ndarray) -> np.ndarray:
    return flow[0, 1:].reshape(4, 4) / flow[0, 1:].max()

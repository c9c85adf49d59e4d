"""Context first, then the class: PerceptionCLIP's own output, and what must hold of any numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.models.prototypes.class_vectors import in_context

SMALL = np.array([[[2.0, 0.0], [1.0, 1.0]]])
MANY = np.random.default_rng(0).normal(scale=5, size=(7, 3, 4))


@pytest.mark.golden
@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("temperature", [1, 3, 10])
def test_probabilities_are_the_published_ones(golden: Path, mode: int, temperature: int):
    with np.load(golden / "perceptionclip.npz") as g:
        image = g["image"].astype(np.float64)
        logits = (image @ g["text_yz"].astype(np.float64).T).reshape(len(image), int(g["Y"]), int(g["Z"]))
        contexts = image @ g["text_z"].astype(np.float64).T if mode else None
        answer = in_context(logits, contexts, temperature=temperature)
        key = f"mode{mode}_T{temperature}"
        np.testing.assert_allclose(answer.contexts_NZ, g[f"p_z_{key}"], atol=1e-8)
        np.testing.assert_allclose(answer.classes_NY, g[f"p_y_{key}"], atol=1e-8)
        np.testing.assert_allclose(answer.given_NYZ, g["p_y_given_z"], atol=1e-8)
        right = answer.classes_NY.argmax(axis=1) == g["y"]
        assert 100 * right.mean() == pytest.approx(g[f"acc_worst_{key}"][0], abs=1e-4)


def test_two_contexts_by_hand():
    answer = in_context(SMALL, temperature=3)
    np.testing.assert_allclose(answer.contexts_NZ, [[0.582570, 0.417430]], atol=1e-6)
    np.testing.assert_allclose(answer.classes_NY, [[0.538157, 0.461843]], atol=1e-6)


def test_at_a_temperature_of_one_the_answer_is_the_sum_over_contexts():
    joint = np.exp(MANY) / np.exp(MANY).sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(in_context(MANY).classes_NY, joint.sum(axis=2))


def test_one_context_is_an_ordinary_softmax():
    one = MANY[:, :, :1]
    np.testing.assert_allclose(in_context(one).classes_NY, np.exp(one[..., 0]) / np.exp(one[..., 0]).sum(1)[:, None])


def test_a_context_that_stands_twice_changes_no_answer():
    np.testing.assert_allclose(in_context(np.tile(MANY, 2)).classes_NY, in_context(MANY).classes_NY)


def test_what_is_added_to_all_classes_of_a_context_moves_the_context_alone():
    shifted = MANY + np.array([3.0, 0, 0, 0])
    np.testing.assert_allclose(in_context(shifted).given_NYZ, in_context(MANY).given_NYZ)
    assert (in_context(shifted).contexts_NZ[:, 0] > in_context(MANY).contexts_NZ[:, 0]).all()


def test_huge_logits_are_finite():
    answer = in_context(300 * np.sign(MANY))
    assert np.isfinite(answer.classes_NY).all()
    np.testing.assert_allclose(answer.classes_NY.sum(axis=1), 1)

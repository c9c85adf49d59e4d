from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.models.prototypes.class_vectors import (
    ClassVectors,
    class_vectors,
    ensemble,
    mean_vector,
    probabilities,
    score_features,
)
from medclip.statistics.metrics.ranks import auroc
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.own_words import ad_hoc_task, read_prompts
from medclip.text.vocabulary.prompts import expand


class WordHash:
    """A text encoder that gives every sentence its own fixed random direction."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(t.encode())).normal(size=16) for t in texts]
        return np.stack([r / np.linalg.norm(r) for r in rows]).astype(np.float32)


@pytest.mark.golden
def test_the_prompt_ensemble_gives_the_golden_class_vectors_and_logits(golden: Path) -> None:
    keys = np.load(golden / "unimed_clip_zeroshot_head.npz", allow_pickle=False)
    vectors = ensemble(keys["prompt_embeddings"], keys["group_index"], int(keys["group_index"].max()) + 1)
    np.testing.assert_allclose(vectors, keys["class_features"], atol=1e-5)
    logits, _ = score_features(
        keys["image_features"], ClassVectors(("",) * len(vectors), vectors.astype(np.float32), None), "multiclass", 1.0
    )
    np.testing.assert_allclose(logits, keys["logits"], atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(logits.argmax(axis=1), keys["pred"])


@pytest.mark.golden
def test_prompt_pairs_give_the_golden_probabilities_and_areas(golden: Path) -> None:
    held = np.load(golden / "zero_shot_retrieval.npz", allow_pickle=False)
    sides = []
    for name in ("pos_templates", "neg_templates"):
        templates, classes, dim = held[name].shape
        flat = held[name].reshape(templates * classes, dim)
        sides.append(ensemble(flat, np.tile(np.arange(classes), templates), classes).astype(np.float32))
    vectors = ClassVectors(("",) * len(sides[0]), *sides)
    image = held["image"] / np.linalg.norm(held["image"], axis=1, keepdims=True)
    _, at_1 = score_features(image, vectors, "multilabel", 1.0)
    _, at_100 = score_features(image, vectors, "multilabel", 100.0)
    np.testing.assert_allclose(at_1, held["prob_chexzero"], atol=1e-6)
    np.testing.assert_allclose(at_100, held["prob_scaled100"], atol=1e-4)
    # the areas are taken at scale 1: float32 saturates at scale 100 and would create ties
    areas = [float(auroc(at_1[:, c], held["y"][:, c])) for c in range(held["y"].shape[1])]
    np.testing.assert_allclose(areas, held["auroc"], atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)))
def test_the_order_and_the_repetition_of_prompts_change_nothing(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    prompts, classes = rng.normal(size=(6, 8)), np.array([0, 0, 0, 1, 1, 1])
    plain = ensemble(prompts, classes, 2)
    np.testing.assert_allclose(ensemble(prompts[order], classes[order], 2), plain, atol=1e-12)
    np.testing.assert_allclose(ensemble(np.tile(prompts, (3, 1)), np.tile(classes, 3), 2), plain, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1)


def test_one_prompt_per_class_is_no_ensembling() -> None:
    prompts = np.eye(4)[:3]
    np.testing.assert_array_equal(ensemble(prompts, [0, 1, 2], 3), prompts)


def test_a_prompt_pair_gives_the_softmax_of_its_two_cosines_at_the_model_scale() -> None:
    # CheXzero (Tiu et al., Nature Biomedical Engineering 6:1399, 2022) leaves the scale at 1; CLIP (Radford et al.,
    # ICML 2021) has 100. By hand: 1 / (1 + exp(-(0.28 - 0.21) * scale)).
    vectors = ClassVectors(("x",), np.array([[1, 0, 0]], np.float32), np.array([[0, 1, 0]], np.float32))
    feature = np.array([[0.28, 0.21, 0.5]], np.float32)
    _, at_100 = score_features(feature, vectors, "multilabel", 100.0)
    _, at_1 = score_features(feature, vectors, "multilabel", 1.0)
    assert at_100[0, 0] == pytest.approx(0.999089, abs=1e-5)
    assert at_1[0, 0] == pytest.approx(0.517493, abs=1e-5)


@pytest.mark.parametrize("bias", [0.0, -16.0])
def test_a_pair_is_the_softmax_of_both_logits_also_where_the_model_adds_a_bias_to_each(bias: float) -> None:
    # SigLIP's logit is scale * cosine + bias; against its opposite the bias is on both sides
    vectors = ClassVectors(("x",), np.array([[1, 0, 0]], np.float32), np.array([[0, 1, 0]], np.float32))
    plus, minus = np.exp(np.array([0.03, -0.02]) * 40.0 + bias)
    _, p = score_features(np.array([[0.03, -0.02, 0.9]], np.float32), vectors, "multilabel", 40.0)
    assert p[0, 0] == pytest.approx(plus / (plus + minus), abs=1e-6)


def test_swapping_the_prompts_gives_one_minus_the_probability() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(5, 8)).astype(np.float32)
    plus, minus = rng.normal(size=(2, 3, 8)).astype(np.float32)
    _, p = score_features(features, ClassVectors(("a", "b", "c"), plus, minus), "multilabel", 2.0)
    _, q = score_features(features, ClassVectors(("a", "b", "c"), minus, plus), "multilabel", 2.0)
    np.testing.assert_allclose(p, 1 - q, atol=1e-6)


def test_multiclass_probabilities_sum_to_one_also_for_huge_logits() -> None:
    p = probabilities(np.array([[1000.0, 0.0, -1000.0], [1.0, 1.0, 1.0]], np.float32), "multiclass")
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[1], 1 / 3, atol=1e-6)


def test_calibration_moves_probabilities_but_not_the_order_of_images() -> None:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(20, 8)).astype(np.float32)
    vectors = ClassVectors(("a",), *rng.normal(size=(2, 1, 8)).astype(np.float32))
    _, plain = score_features(features, vectors, "multilabel", 1.0)
    _, calibrated = score_features(features, vectors, "multilabel", 1.0, {"scale": {"a": 0.3}, "bias": {"a": -1.0}})
    assert not np.allclose(plain, calibrated)
    np.testing.assert_array_equal(plain[:, 0].argsort(), calibrated[:, 0].argsort())


def test_a_vocabulary_task_becomes_one_vector_per_class() -> None:
    task = load_task("brain_mri_tumour")
    vectors = class_vectors(WordHash(), task)
    assert vectors.names == tuple(c.name for c in task.classes)
    assert vectors.positive.shape == (len(task.classes), 16)
    assert vectors.negative is None


def test_a_subset_of_classes_keeps_the_order_asked_for() -> None:
    vectors = class_vectors(WordHash(), load_task("chest_xray_findings"), ["effusion", "pneumonia"])
    assert vectors.names == ("effusion", "pneumonia")
    assert vectors.negative is not None


def test_words_of_the_user_are_scored_against_their_negation() -> None:
    task = ad_hoc_task(read_prompts("a pacemaker"))
    vectors = class_vectors(WordHash(), task)
    assert vectors.positive.shape == vectors.negative.shape == (1, 16)  # type: ignore[union-attr]
    assert expand(task)[0].negative


def test_the_mean_of_vectors_is_at_unit_length_and_zeros_stay() -> None:
    views = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(mean_vector(views), np.array([1, 2]) / 5**0.5, atol=1e-7)
    assert mean_vector(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)).tolist() == [0.0, 0.0]

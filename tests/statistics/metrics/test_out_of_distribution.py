"""Scores of strangeness against MCM's own output, and where they end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.statistics.metrics.out_of_distribution import (
    energy,
    entropy,
    mahalanobis,
    max_logit,
    mcm,
    separation,
    shared_precision,
)

THREE = [[0.30, 0.25, 0.20]]
SCORES = {
    "MCM": mcm,
    "maxlogit": lambda cosines, _: max_logit(cosines),
    "energy": energy,
    "entropy": entropy,
}


@pytest.mark.golden
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_scores_and_separations_are_the_published_ones(golden: Path, name: str, temperature: float):
    with np.load(golden / "ood_scores.npz") as g:
        key = f"{name}_T{temperature:g}"
        text = g["text"] / np.linalg.norm(g["text"], axis=1, keepdims=True)
        known = [SCORES[name](g[part] @ text.T, temperature) for part in ("image_id", "image_ood")]
        for ours, part in zip(known, ("id", "ood"), strict=True):
            np.testing.assert_allclose(ours, g[f"{part}_{key}"], atol=1e-5)
        ours = separation(g[f"id_{key}"], g[f"ood_{key}"])
        np.testing.assert_allclose([ours.auroc, ours.aupr, ours.fpr95], g[f"metrics_{key}"], atol=1e-5)


@pytest.mark.golden
def test_the_distance_is_the_published_one(golden: Path):
    with np.load(golden / "ood_scores.npz") as g:
        known = [mahalanobis(g[part], g["maha_mean"], g["maha_precision"]) for part in ("image_id", "image_ood")]
        for ours, part in zip(known, ("id", "ood"), strict=True):
            np.testing.assert_allclose(ours, g[f"{part}_maha"], rtol=1e-4)
        ours = separation(*known)
        np.testing.assert_allclose([ours.auroc, ours.aupr, ours.fpr95], g["metrics_maha"], atol=1e-5)


def test_three_cosines_by_hand():
    assert float(entropy(THREE)[0]) == pytest.approx(1.097779, abs=1e-6)
    assert float(energy(THREE, 0.01)[0]) == pytest.approx(-0.300068, abs=1e-6)
    assert abs(float(energy(THREE, 0.01)[0]) - float(max_logit(THREE)[0])) < 1e-3


def test_equal_sets_cannot_be_told_apart():
    scores = np.random.default_rng(0).random(60)
    assert separation(scores, scores).auroc == pytest.approx(0.5)


def test_fewer_images_than_dimensions_still_have_a_distance():
    features = np.random.default_rng(0).normal(size=(8, 20))
    precision = shared_precision(features)
    near = mahalanobis(features, features.mean(axis=0)[None], precision)
    far = mahalanobis(features + 3, features.mean(axis=0)[None], precision)
    assert np.isfinite(near).all()
    assert far.min() > near.max()

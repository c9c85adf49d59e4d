"""CLIP-Adapter: the published numbers, the hand example, and zero-shot at ratio 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.adaptation.data.heads import load_head
from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.frozen.clip_adapter import ClipAdapterHead, fit_clip_adapter
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss
from tests.kits.adaptation import DIM, FakeModel, made_up, unit, words


@pytest.mark.golden
def test_logits_are_those_of_the_published_code_for_raw_and_for_unit_features(golden: Path) -> None:
    g = np.load(golden / "clip_adapter.npz")
    text = float(g["logit_scale_exp"]) * unit(g["text_features"]).T
    down, up = g["sd/fc.0.weight"], g["sd/fc.2.weight"]
    head = ClipAdapterHead(down, up, float(g["ratio"]), text.astype(np.float32), np.zeros(text.shape[1], bool))
    np.testing.assert_allclose(head.logits(g["image_features"], None), g["logits"], atol=1e-3)
    np.testing.assert_allclose(head.logits(unit(g["image_features"]), None), g["logits"], atol=1e-3)


def test_the_hand_example_of_the_spec() -> None:
    """A(3, 4) = (0, 5)."""
    head = ClipAdapterHead(
        np.array([[-1.0, 2.0]], np.float32),
        np.array([[-1.0], [1.0]], np.float32),
        0.2,
        np.eye(2, dtype=np.float32),
        np.zeros(2, bool),
    )
    np.testing.assert_allclose(head.adapted(np.array([[3.0, 4.0]], np.float32)), [[0.496139, 0.868243]], atol=1e-6)


@given(st.integers(0, 50), st.booleans())
def test_ratio_zero_is_zero_shot(seed: int, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model, train = FakeModel(text), made_up(9, seed=seed, multilabel=multilabel)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0)
    fitted = fit_clip_adapter(model, text, train, None, seed=seed, ratio=0.0, epochs=1)
    features = made_up(5, seed=seed + 1).pooled()
    np.testing.assert_allclose(fitted.head.logits(features, None), zero.head.logits(features, None), atol=1e-3)


def test_a_feature_that_is_mixed_away_gives_numbers() -> None:
    nothing = np.zeros((1, 2), np.float32)
    head = ClipAdapterHead(nothing, nothing.T, 1.0, np.eye(2, dtype=np.float32), np.zeros(2, bool))
    np.testing.assert_array_equal(head.logits(np.array([[1.0, 0.0]], np.float32), None), [[0, 0]])


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_training_fits_the_shots_and_gives_the_same_bytes_twice(multilabel: bool, optimiser: str) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train = made_up(24, seed=1, multilabel=multilabel, unknown=0.1, noise=2.0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0).head
    fits = [
        fit_clip_adapter(model, text, train, None, seed=3, lr=0.01, optimiser=optimiser, ratio=0.5) for _ in range(2)
    ]
    heads = [f.head for f in fits]
    assert all(np.array_equal(a, heads[1].arrays()[n]) for n, a in heads[0].arrays().items())
    losses = [log_loss(unit_logits(h, train), train.targets) for h in (heads[0], zero)]
    assert losses[0] < losses[1]
    assert fits[0].num_trainable == 2 * DIM * DIM // 4
    assert fits[0].settings["epochs"] == 100


def test_a_head_comes_back_from_its_arrays() -> None:
    text = words()
    head = fit_clip_adapter(FakeModel(text), text, made_up(6), None, seed=0, epochs=2).head
    again = load_head("clip_adapter", head.arrays())
    features = made_up(5, seed=1).pooled()
    assert np.array_equal(head.logits(features, None), again.logits(features, None))
    assert head.logits(features, None).dtype == np.float32


@pytest.mark.parametrize(
    "options", [{"ratio": 1.5}, {"ratio": -0.1}, {"reduction": 0}, {"optimiser": "lion"}, {"epochs": 0, "lr": 0.01}]
)
def test_settings_that_mean_nothing_are_refused(options: dict) -> None:
    text = words()
    with pytest.raises(MedclipError) as caught:
        fit_clip_adapter(FakeModel(text), text, made_up(6), None, seed=0, **options)
    assert caught.value.reason is Reason.WRONG_USE

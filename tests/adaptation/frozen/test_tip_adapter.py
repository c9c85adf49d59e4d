"""Tip-Adapter: the published numbers, the hand example, and what must hold for any cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import LinearHead, load_head
from medclip.adaptation.data.shot_features import Shots, take, unit_logits
from medclip.adaptation.frozen.tip_adapter import TipAdapter, TipHead, cache, fit_tip, fit_tip_f, search
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.class_vectors import ClassVectors
from medclip.statistics.metrics.selection_score import accuracy
from tests.kits.adaptation import DIM, FakeModel, made_up, of_features, unit, words


@pytest.mark.golden
def test_cache_mix_and_search_are_those_of_the_published_code(golden: Path) -> None:
    g = np.load(golden / "tip_adapter.npz")
    views = np.stack([g["view0"], g["view1"]], axis=1)
    pixels = tuple(np.zeros((2, 2, 2, 3), np.uint8) for _ in views)
    train = Examples(pixels, tuple(views), g["labels"], tuple(map(str, range(len(views)))))
    weight = (100 * g["clip_weights"]).astype(np.float32)
    names = tuple(map(str, range(weight.shape[1])))
    zero_head = LinearHead(weight, np.zeros(len(names), np.float32))
    vectors = ClassVectors(names, np.ascontiguousarray(g["clip_weights"].T), None)
    made = cache(Shots(names, train, None, vectors, 100.0, zero_head, "pooled"), train)
    np.testing.assert_allclose(made.keys_ND.T, g["cache_keys"], atol=1e-6)
    np.testing.assert_array_equal(made.values_NC, g["cache_values"])
    start = replace(made, alpha=float(g["init_alpha"]), beta=float(g["init_beta"]))
    val = of_features(g["val_features"], g["val_labels"])
    zero = g["val_features"] @ weight
    np.testing.assert_allclose(zero, g["val_clip_logits"], atol=1e-3)
    np.testing.assert_allclose(start.logits(g["val_features"], None), g["val_tip_logits_init"], atol=1e-3)

    (beta_end, alpha_end), (betas, alphas) = g["search_scale"].tolist(), g["search_step"].tolist()
    alpha, beta = search([(start, val)], (beta_end, alpha_end), (betas, alphas))
    assert (beta, alpha) == pytest.approx((float(g["best_beta"]), float(g["best_alpha"])), abs=1e-9)
    found = replace(start, alpha=alpha, beta=beta)
    found_logits = found.logits(g["test_features"], None)
    np.testing.assert_allclose(found_logits, g["test_tip_logits_best"], atol=1e-3)
    zero = zero_head.logits(g["test_features"], None)
    np.testing.assert_allclose(zero, g["test_clip_logits"], atol=1e-3)
    right = [accuracy(z, g["test_labels"]) for z in (found_logits, g["test_tip_logits_best"])]
    assert right[0] == right[1] > 1 / len(names)


def test_the_hand_example_of_the_spec() -> None:
    head = TipHead(
        np.array([[1, 0], [0.5, 0.75**0.5]], np.float32),
        np.eye(2, dtype=np.float32),
        np.array([[20, 22], [0, 0]], np.float32),
        alpha=1.5,
        beta=2.0,
    )
    np.testing.assert_allclose(head.logits(np.array([[1.0, 0.0]], np.float32), None), [[21.5, 22.551819]], atol=1e-5)


@given(st.integers(0, 50), st.floats(0.1, 50), st.booleans())
def test_alpha_zero_is_zero_shot(seed: int, beta: float, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model, train = FakeModel(text), made_up(9, seed=seed, multilabel=multilabel)
    fitted = fit_tip(model, text, train, None, seed=0, alpha=0.0, beta=beta)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0)
    features = made_up(5, seed=seed + 1).pooled()
    np.testing.assert_allclose(fitted.head.logits(features, None), zero.head.logits(features, None), atol=1e-4)


@given(st.integers(0, 50), st.booleans())
def test_the_order_of_the_shots_does_not_matter(seed: int, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model, train = FakeModel(text), made_up(12, seed=seed, multilabel=multilabel, unknown=0.1)
    order = np.random.default_rng(seed).permutation(12)
    features = made_up(5, seed=seed + 1).pooled()
    fits = [fit_tip(model, text, t, None, seed=0, alpha=2.0, beta=3.0) for t in (train, train.select(order))]
    one, other = (f.head.logits(features, None) for f in fits)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_sharp_cache_keeps_exact_matches_only() -> None:
    text = words()
    model, train = FakeModel(text), made_up(6)
    keys = train.pooled()
    sharp = fit_tip(model, text, train, None, seed=0, alpha=3.0, beta=1e6).head
    zero = fit_tip(model, text, train, None, seed=0, alpha=0.0, beta=1.0).head
    added = sharp.logits(keys, None) - zero.logits(keys, None)
    np.testing.assert_allclose(added[np.arange(6), train.targets], 3.0, atol=0.5)  # float32 cosines miss 1 by 1e-7
    others = made_up(4, seed=9).pooled()
    np.testing.assert_allclose(sharp.logits(others, None), zero.logits(others, None), atol=1e-4)


def test_search_on_validation_is_never_worse_there_than_zero_shot() -> None:
    text = words()
    model = FakeModel(text, noise=2.0)
    train, val = made_up(24, seed=1, noise=2.0), made_up(12, seed=2, noise=2.0)
    fitted = fit_tip(model, text, train, val, seed=0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0)
    right = [(unit_logits(h, val).argmax(axis=1) == val.targets).mean() for h in (fitted.head, zero.head)]
    assert right[0] > right[1]
    assert fitted.settings["chosen_on"] == "val"
    assert fitted.num_trainable == 0


def test_multilabel_values_weigh_both_sides_alike_and_leave_out_what_nobody_knows() -> None:
    text = words(multilabel=True)
    targets = np.array([[1, 0, 1], [0, 0, np.nan], [0, 0, 0], [0, 0, 1]], np.float32)
    train = replace(made_up(4, multilabel=True), targets=targets)
    values = cache(take(FakeModel(text), text, train, None), train).values_NC
    np.testing.assert_allclose(values[:, 0], [2, -2 / 3, -2 / 3, -2 / 3], atol=1e-6)
    np.testing.assert_array_equal(values[:, 1], 0)
    np.testing.assert_allclose(values[:, 2], [0.75, 0, -1.5, 0.75], atol=1e-6)
    fitted = fit_tip(FakeModel(text), text, train, None, seed=0)
    zero = find_method("zero-shot").fit(FakeModel(text), text, train, None, seed=0)
    features = made_up(5, seed=4).pooled()
    assert fitted.settings["no_examples"] == ["pear"]
    np.testing.assert_array_equal(fitted.head.logits(features, None)[:, 1], zero.head.logits(features, None)[:, 1])


@pytest.mark.parametrize("multilabel", [False, True])
def test_trained_keys_fit_the_shots_better_and_give_the_same_bytes_twice(multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, multilabel=multilabel, noise=2.0) for s in (1, 2))
    heads = [fit_tip_f(model, text, train, val, seed=3).head for _ in range(2)]
    assert all(np.array_equal(a, heads[1].arrays()[n]) for n, a in heads[0].arrays().items())
    options = {"alpha": 5.0, "beta": 5.0}
    plain = fit_tip(model, text, train, None, seed=0, **options)
    trained = fit_tip_f(model, text, train, None, seed=0, lr=0.01, **options)
    assert _loss(trained.head, train) < _loss(plain.head, train)
    assert trained.num_trainable == 24 * 16
    assert trained.settings["epochs"] == 100
    assert trained.settings["chosen_on"] == trained.settings["mix_chosen_on"] == "given"


def _loss(head: TipHead, examples: Examples) -> float:
    from medclip.statistics.metrics.selection_score import log_loss

    return log_loss(unit_logits(head, examples), examples.targets)


def test_without_validation_the_mix_is_found_in_folds_of_the_shots_or_stated() -> None:
    text = words()
    model, train = FakeModel(text, noise=2.0), made_up(24, seed=1)
    found = fit_tip(model, text, train, None, seed=0).settings
    assert found["chosen_on"] == "folds"
    stated = fit_tip(model, text, train.select([0, 1, 2]), None, seed=0).settings
    assert (stated["chosen_on"], stated["alpha"], stated["beta"]) == ("default", 1.17, 1.0)


def test_features_that_lie_close_together_are_searched_further() -> None:
    """The same geometry at a fiftieth of the distances: only a β in the hundreds tells neighbours apart."""
    text = words()
    rng = np.random.default_rng(0)
    common = unit(rng.normal(size=DIM))

    def close(examples: Examples) -> Examples:
        return replace(examples, features=tuple(unit(common + 0.02 * f) for f in examples.features))

    train, val, test = (close(made_up(n, seed=s, noise=1.0)) for n, s in ((24, 1), (12, 2), (90, 3)))
    model = FakeModel(text, noise=4.0)
    near, far = (fit_tip(model, text, train, val, seed=0, scale=s) for s in ((50.0, 50.0), None))
    right = [(unit_logits(f.head, test).argmax(axis=1) == test.targets).mean() for f in (near, far)]
    assert far.settings["beta"] > 50
    assert right[1] > right[0]


def test_trained_keys_keep_unit_norm() -> None:
    text = words()
    head = fit_tip_f(FakeModel(text), text, made_up(9), None, seed=0, lr=0.1, alpha=5.0, beta=5.0).head
    np.testing.assert_allclose(np.linalg.norm(head.keys_ND, axis=1), 1, atol=1e-5)


def test_after_training_the_mix_is_searched_again_on_validation() -> None:
    text = words()
    train, val = (made_up(15, seed=s, noise=2.0) for s in (1, 2))
    scale, steps = (20.0, 20.0), (7, 7)  # 1 is none of their values
    fitted = fit_tip_f(
        FakeModel(text, noise=2.0), text, train, val, seed=0, alpha=1.0, beta=1.0, scale=scale, steps=steps, lr=0.1
    )
    head = fitted.head
    assert isinstance(head, TipHead)
    assert (head.alpha, head.beta) == search([(head, val)], scale, steps) != (1.0, 1.0)
    assert (fitted.settings["alpha"], fitted.settings["beta"]) == (head.alpha, head.beta)
    assert fitted.settings["alpha_while_training"] == fitted.settings["beta_while_training"] == 1.0
    plain = fit_tip_f(FakeModel(text, noise=2.0), text, train, None, seed=0, alpha=1.0, beta=1.0, lr=0.1)
    assert (plain.settings["alpha"], plain.settings["beta"]) == (1.0, 1.0)


def test_every_view_may_be_a_key() -> None:
    text = words()
    train = made_up(6, views=(2, 4))
    head = fit_tip(FakeModel(text), text, train, None, seed=0, views="each").head
    assert len(head.arrays()["keys"]) == sum(len(f) for f in train.features)


def test_a_head_comes_back_from_its_arrays() -> None:
    text = words()
    head = fit_tip(FakeModel(text), text, made_up(6), None, seed=0).head
    again = load_head("tip", head.arrays())
    features = made_up(5, seed=1).pooled()
    assert np.array_equal(head.logits(features, None), again.logits(features, None))
    assert head.logits(features, None).dtype == np.float32


@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"scale": (0.0, 50.0)}, {"steps": (0, 5)}])
def test_half_a_setting_or_an_empty_search_is_refused(options: dict) -> None:
    text = words()
    with pytest.raises(MedclipError) as caught:
        fit_tip(FakeModel(text), text, made_up(6), made_up(6, seed=1), seed=0, **options)
    assert caught.value.reason is Reason.WRONG_USE


def test_a_learning_rate_that_ends_in_nan_is_said() -> None:
    text = words()
    with pytest.raises(MedclipError, match="not finite") as caught:
        fit_tip_f(FakeModel(text), text, made_up(6), None, seed=0, lr=float("inf"))
    assert caught.value.reason is Reason.NON_FINITE


@parametrize_with_checks([TipAdapter(alpha=20.0, beta=5.0)])
def test_the_estimator_follows_scikit_learn(estimator: TipAdapter, check) -> None:
    check(estimator)


def test_the_estimator_is_the_method() -> None:
    text = words()
    model, train = FakeModel(text), made_up(9)
    head = fit_tip(model, text, train, None, seed=0, alpha=2.0, beta=3.0).head
    vectors = text.vectors(model).positive
    estimator = clone(TipAdapter(vectors, model.logit_scale, alpha=2.0, beta=3.0)).fit(train.pooled(), train.targets)
    features = unit(made_up(5, seed=1).pooled())
    np.testing.assert_allclose(estimator.decision_function(features), head.logits(features, None), atol=1e-3)

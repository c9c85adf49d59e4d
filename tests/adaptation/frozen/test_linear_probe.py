"""The linear probe is scikit-learn's without text, zero-shot where C is small, and finds C as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.frozen.linear_probe import GRID, LinearProbe, Problem, fit_linear_probe
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss, quality
from tests.kits.adaptation import DIM, FakeModel, made_up, words


@given(st.sampled_from([0.01, 1.0, 30.0]), st.integers(0, 20), st.sampled_from([9, 40]))
def test_without_text_it_is_scikit_learns_logistic_regression(c: float, seed: int, num_units: int) -> None:
    train, test = made_up(num_units, seed=seed), made_up(10, seed=seed + 1).pooled()
    features = train.pooled().astype(np.float64)
    found = Problem(features, train.targets, 3).solve(c)
    oracle = LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(features, train.targets)
    ours = test @ found.weight_DC + found.bias_C
    theirs = oracle.decision_function(test)
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True), theirs - theirs.mean(axis=1, keepdims=True), atol=2e-2
    )
    assert found.converged


def test_each_multilabel_class_is_a_logistic_regression_over_what_is_known() -> None:
    train, test = made_up(30, multilabel=True, unknown=0.3), made_up(10, seed=1).pooled()
    features = train.pooled().astype(np.float64)
    found = Problem(features, train.targets, 3).solve(1.0)
    for c in range(3):
        known = ~np.isnan(train.targets[:, c])
        oracle = LogisticRegression(C=1.0, tol=1e-8).fit(features[known], train.targets[known, c])
        ours = test @ found.weight_DC[:, c] + found.bias_C[c]
        np.testing.assert_allclose(ours, oracle.decision_function(test), atol=2e-3)


@given(st.integers(0, 30), st.booleans())
def test_a_small_c_is_zero_shot_and_a_large_one_fits_the_shots(seed: int, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train = made_up(12, seed=seed, multilabel=multilabel, noise=2.0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0).head
    small, large = (fit_linear_probe(model, text, train, None, seed=0, c=c).head for c in (1e-9, 1e6))
    features = made_up(5, seed=seed + 1).pooled()
    np.testing.assert_allclose(small.logits(features, None), zero.logits(features, None), atol=1e-3)
    assert log_loss(unit_logits(large, train), train.targets) < 1e-3


def test_far_from_the_text_it_costs_and_the_pull_grows_as_c_falls() -> None:
    text = words()
    model, train = FakeModel(text, noise=2.0), made_up(24, noise=2.0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0).head.arrays()["weight"]
    weights = [fit_linear_probe(model, text, train, None, seed=0, c=c).head.arrays()["weight"] for c in (0.01, 1, 100)]
    away = [float(np.linalg.norm(w - zero)) for w in weights]
    assert away[0] < away[1] < away[2]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("start", ["text", "zeros"])
def test_c_is_searched_on_validation_else_in_the_shots_else_stated(multilabel: bool, start: str) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, multilabel=multilabel, noise=2.0) for s in (1, 2))
    chosen = [fit_linear_probe(model, text, train, v, seed=0, start=start).settings for v in (val, None)]
    assert [s["chosen_on"] for s in chosen] == ["val", "folds"]
    assert all(1e-8 <= s["c"] <= 1e8 for s in chosen)
    alone = made_up(3, multilabel=multilabel, patients=1, seed=4)
    if not multilabel:
        assert fit_linear_probe(model, text, alone, None, seed=0, start=start).settings["chosen_on"] == "default"
    best = log_loss(unit_logits(fit_linear_probe(model, text, train, val, seed=0, start=start).head, val), val.targets)
    on_grid = [fit_linear_probe(model, text, train, None, seed=0, start=start, c=c).head for c in GRID]
    if not multilabel:
        right = [(unit_logits(h, val).argmax(axis=1) == val.targets).mean() for h in on_grid]
        found = fit_linear_probe(model, text, train, val, seed=0, start=start).head
        assert (unit_logits(found, val).argmax(axis=1) == val.targets).mean() >= max(right)
    assert np.isfinite(best)


def test_c_is_made_finer_around_the_best_of_the_grid() -> None:
    text = words(multilabel=True)
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, multilabel=True, noise=4.0) for s in (1, 2))
    found = fit_linear_probe(model, text, train, val, seed=0)
    coarse = {c: fit_linear_probe(model, text, train, None, seed=0, c=c).head for c in GRID}
    scores = {c: quality(unit_logits(h, val), val.targets) for c, h in coarse.items()}
    assert found.settings["c"] not in GRID
    assert quality(unit_logits(found.head, val), val.targets) > max(scores.values())
    steps = 128 * np.log10(found.settings["c"])  # the last halving moves by 10 to the power of 1/128
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert round(steps) % 4


def test_more_than_zero_shot_is_learned_where_there_is_something_to_learn() -> None:
    text = words()
    model = FakeModel(text, noise=3.0)
    train, val, test = made_up(48, seed=1), made_up(12, seed=2), made_up(300, seed=3)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0)
    probe = fit_linear_probe(model, text, train, val, seed=0)
    right = [(unit_logits(f.head, test).argmax(axis=1) == test.targets).mean() for f in (probe, zero)]
    assert right[0] > right[1]
    assert probe.num_trainable == DIM * 3 + 3


@pytest.mark.parametrize("options", [{"start": "random"}, {"c": 0.0}, {"c": float("nan")}])
def test_settings_that_mean_nothing_are_refused(options: dict) -> None:
    text = words()
    with pytest.raises(MedclipError) as caught:
        fit_linear_probe(FakeModel(text), text, made_up(6), None, seed=0, **options)
    assert caught.value.reason is Reason.WRONG_USE


@parametrize_with_checks([LinearProbe(), LinearProbe(C=0.1)])
def test_the_estimator_follows_scikit_learn(estimator: LinearProbe, check) -> None:
    check(estimator)


def test_the_estimator_is_the_method() -> None:
    text = words()
    model, train = FakeModel(text), made_up(9)
    head = fit_linear_probe(model, text, train, None, seed=0, c=3.0).head
    vectors = text.vectors(model).positive
    labels = np.array(text.names)[train.targets]
    probe = clone(LinearProbe(vectors, model.logit_scale, C=3.0)).fit(train.pooled(), labels)
    features = made_up(5, seed=1).pooled()
    logits = head.logits(features, None)
    np.testing.assert_allclose(probe.decision_function(features), logits[:, np.argsort(text.names)], atol=1e-2)
    assert set(probe.predict(features)) <= set(text.names)
    assert probe.predict_proba(features).sum(axis=1) == pytest.approx(1)
    with pytest.raises(ValueError, match="above 0"):
        LinearProbe(C=0).fit(train.pooled(), train.targets)
    with pytest.raises(ValueError, match="class_vectors is"):
        LinearProbe(vectors[:2]).fit(train.pooled(), train.targets)

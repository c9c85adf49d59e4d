"""The linear probe is scikit-learn's without text, zero-shot where C is small, and finds C as it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from medclip.adaptation.data.shot_features import folds, unit_logits
from medclip.adaptation.frozen.linear_probe import GRID, LinearProbe, Problem, fit_linear_probe
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import log_loss
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
    small, large = (fit_linear_probe(model, text, train, None, seed=0, start="text", c=c).head for c in (1e-9, 1e6))
    features = made_up(5, seed=seed + 1).pooled()
    np.testing.assert_allclose(small.logits(features, None), zero.logits(features, None), atol=1e-3)
    assert log_loss(unit_logits(large, train), train.targets) < 1e-3


def test_far_from_the_text_it_costs_and_the_pull_grows_as_c_falls() -> None:
    text = words()
    model, train = FakeModel(text, noise=2.0), made_up(24, noise=2.0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0).head.arrays()["weight"]
    heads = [fit_linear_probe(model, text, train, None, seed=0, start="text", c=c).head for c in (0.01, 1, 100)]
    away = [float(np.linalg.norm(h.arrays()["weight"] - zero)) for h in heads]
    assert away[0] < away[1] < away[2]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("start", ["auto", "text", "zeros"])
def test_c_is_searched_over_shots_and_validation_and_stated_where_there_is_nothing_to_choose_by(
    multilabel: bool, start: Any
) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, multilabel=multilabel, noise=2.0) for s in (1, 2))
    val = replace(val, patients=tuple(f"val {p}" for p in val.patients))
    chosen = [fit_linear_probe(model, text, train, v, seed=0, start=start).settings for v in (val, None)]
    assert [s["chosen_on"] for s in chosen] == ["folds of shots and validation", "folds"]
    assert all(1e-8 <= s["c"] <= 1e8 for s in chosen)
    assert start == "zeros" or all(s["log_loss"] < s["log_loss_zero_shot"] for s in chosen)
    alone = made_up(3, multilabel=multilabel, patients=1, seed=4)
    if not multilabel:
        stated = fit_linear_probe(model, text, alone, None, seed=0, start=start).settings
        assert stated["chosen_on"] == "default"
        assert stated["start"] == ("text" if start == "auto" else start)


def test_c_is_that_of_scikit_learns_cross_validation_over_shots_and_validation_and_the_refit_is_on_both() -> None:
    text = words()
    model = FakeModel(text, noise=2.0)
    train, val, test = (made_up(n, seed=s, noise=2.0) for n, s in ((30, 1), (15, 2), (30, 3)))
    val = replace(val, patients=tuple(f"val {p}" for p in val.patients))
    both = train.joined(val)
    parts = folds(both, 3, seed=0)
    assert len(parts) == 5
    cv = [(np.setdiff1d(np.arange(45), rows), rows) for rows in parts]
    oracle = LogisticRegressionCV(
        Cs=sorted(GRID),
        cv=cv,
        scoring="neg_log_loss",
        tol=1e-8,
        max_iter=10_000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    ).fit(both.pooled().astype(np.float64), both.targets)
    fitted = fit_linear_probe(model, text, train, val, seed=0, start="zeros")
    assert abs(np.log10(fitted.settings["c"]) - np.log10(oracle.C_)) < 2  # the search goes on between the grid's values
    again = fit_linear_probe(model, text, train, val, seed=0, start="zeros", c=float(oracle.C_)).head
    ours, theirs = again.logits(test.pooled(), None), oracle.decision_function(test.pooled())
    ours, theirs = (z - z.mean(axis=1, keepdims=True) for z in (ours, theirs))
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=2e-2)


def test_patients_stay_together_in_a_fold_also_where_they_are_in_shots_and_validation() -> None:
    both = made_up(15, seed=1).joined(made_up(15, seed=2))
    for rows in folds(both, 3, seed=0):
        of_fold = {both.patients[i] for i in rows}
        assert not of_fold & {both.patients[i] for i in range(30) if i not in rows}


def test_a_text_that_is_worse_than_chance_is_let_go() -> None:
    text = words()
    wrong = replace(text, names=text.names[1:] + text.names[:1])  # every prompt stands for another class
    model = FakeModel(text, noise=0.3)
    train, val, test = made_up(24, seed=1), made_up(12, seed=2), made_up(300, seed=3)
    fitted = fit_linear_probe(model, wrong, train, val, seed=0)
    assert fitted.settings["start"] == "zeros"
    assert not fitted.notes
    zeros = fit_linear_probe(model, wrong, train, val, seed=0, start="zeros")
    np.testing.assert_array_equal(fitted.head.arrays()["weight"], zeros.head.arrays()["weight"])
    right = (unit_logits(fitted.head, test).argmax(axis=1) == test.targets).mean()
    assert right > 0.6
    kept = fit_linear_probe(model, text, train, val, seed=0)
    assert kept.settings["start"] == "text"


def test_no_better_than_the_prompts_is_said_with_both_log_losses() -> None:
    text = words()
    model = FakeModel(text, logit_scale=8.0, noise=0.0)
    fitted = fit_linear_probe(model, text, made_up(9, noise=0.5), None, seed=0, start="text", c=1e-8)
    assert not fitted.notes  # nothing was chosen
    random = made_up(30, noise=0.2, seed=5)
    random = replace(random, targets=np.random.default_rng(0).integers(0, 3, 30))
    flat = FakeModel(text, logit_scale=0.01)
    (note,) = fit_linear_probe(flat, text, random, None, seed=0).notes
    assert "found no probe better than the base's prompts: log loss 1.0" in note


@pytest.mark.parametrize("multilabel", [False, True])
def test_no_better_than_the_same_answer_for_all_is_said(multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    far_off = FakeModel(text, logit_scale=50.0, noise=5.0)
    random = made_up(40, noise=1.0, seed=5, multilabel=multilabel)
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, (40, 3)).astype(np.float32) if multilabel else rng.integers(0, 3, 40)
    fitted = fit_linear_probe(far_off, text, replace(random, targets=targets), None, seed=0)
    assert fitted.settings["log_loss"] < fitted.settings["log_loss_zero_shot"] - 0.01
    (note,) = fitted.notes
    assert "found no probe better than the same probabilities for all of them" in note
    shares = targets.mean(axis=0) if multilabel else np.bincount(targets) / 40
    alike = -(shares * np.log(shares) + multilabel * (1 - shares) * np.log(1 - shares))
    assert f"with each class's share {alike.mean() if multilabel else alike.sum():.3f}." in note


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

"""LP++: the published numbers, with and without the summed gradient of α."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from medclip.adaptation.data.heads import LinearHead
from medclip.adaptation.data.shot_features import take, unit_logits
from medclip.adaptation.frozen.lp_plus_plus import Descent, LpPlusPlus, choose_epoch, descent_of, fit_lp_plus_plus
from medclip.adaptation.methods import find_method
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.selection_score import accuracy, log_loss, quality
from tests.kits.adaptation import DIM, FakeModel, made_up, of_features, unit, words


@pytest.mark.golden
def test_steps_sizes_and_the_chosen_epoch_are_those_of_the_published_code(golden: Path) -> None:
    g = np.load(golden / "lp_plus_plus.npz")
    text = g["text_weights"].astype(np.float64)
    descent = Descent(g["features"].astype(np.float64), g["labels"], text, text)
    assert descent.lr_weight == pytest.approx(float(g["lr_w"]), rel=1e-5)
    assert descent.lr_alpha == pytest.approx(float(g["lr_alpha"]), rel=1e-5)
    np.testing.assert_array_equal(np.bincount(g["labels"]), int(g["shots"]))
    start = descent.start()
    np.testing.assert_allclose(start.weight_DC.T, g["init_weight"], atol=1e-5)
    np.testing.assert_allclose(start.alpha_C, float(g["init_alpha"]), rtol=1e-5)

    states = list(descent.epochs(int(g["epochs"]), accumulate_alpha_grad=True))
    last = states[-1]
    np.testing.assert_allclose(last.weight_DC.T, g["final_weight"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(last.bias_C, g["final_bias"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(last.alpha_C, g["final_alpha"][0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(last.alpha_grad_C, g["alpha_grad_accumulated"][0], atol=1e-4)
    assert last.loss == pytest.approx(float(g["final_loss"]), abs=1e-4)

    val = of_features(g["val_features"], g["val_labels"])
    head, epoch = choose_epoch((s.head(text) for s in states), val, first=1)
    assert 1 <= epoch <= len(states)
    test = accuracy(head.logits(g["test_features"], None), g["test_labels"])
    assert 100 * test == pytest.approx(float(g["reported_test_acc"]), abs=1e-4)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_gradients_are_those_of_autograd(multilabel: bool) -> None:
    train = made_up(12, multilabel=multilabel, unknown=0.2)
    text = np.random.default_rng(0).normal(size=(DIM, 3))
    descent = Descent(train.pooled().astype(np.float64), train.targets, text, text)
    start = descent.start()
    (state,) = descent.epochs(1)
    w, b, alpha = (torch.tensor(v, requires_grad=True) for v in (start.weight_DC, start.bias_C, start.alpha_C))
    f, t = torch.from_numpy(descent.features_MD), torch.from_numpy(train.targets)
    z = f @ w + b + alpha * (f @ torch.from_numpy(text))
    if multilabel:
        known = ~torch.isnan(t)
        each = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.nan_to_num(t).double(), reduction="none")
        loss = ((each * known).sum(dim=0) / known.sum(dim=0)).sum()
    else:
        loss = torch.nn.functional.cross_entropy(z, t)
    loss.backward()
    np.testing.assert_allclose(state.weight_DC, start.weight_DC - descent.lr_weight * w.grad.numpy(), atol=1e-9)
    np.testing.assert_allclose(state.bias_C, start.bias_C - descent.lr_weight * b.grad.numpy(), atol=1e-9)
    np.testing.assert_allclose(state.alpha_grad_C, alpha.grad.numpy(), atol=1e-9)
    assert state.loss == pytest.approx(loss.item())


@pytest.mark.parametrize("multilabel", [False, True])
def test_it_fits_the_shots_and_chooses_the_epoch_on_validation(multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text, noise=2.0)
    train, val = (made_up(24, seed=s, multilabel=multilabel, unknown=0.1, noise=2.0) for s in (1, 2))
    fitted = fit_lp_plus_plus(model, text, train, val, seed=0)
    zero = find_method("zero-shot").fit(model, text, train, None, seed=0).head
    assert log_loss(unit_logits(fitted.head, train), train.targets) < log_loss(unit_logits(zero, train), train.targets)
    assert fitted.settings["chosen_on"] == "val"
    assert 0 <= fitted.settings["epoch"] <= 300
    assert fitted.num_trainable == DIM * 3 + 2 * 3
    assert fit_lp_plus_plus(model, text, train, None, seed=0).settings["epoch"] == 300


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_epoch_is_the_one_that_validation_examples_like_best(multilabel: bool) -> None:
    """Shots that teach what is wrong of the validation examples, or too little: the last epoch is not the best."""
    text = words(multilabel=multilabel)
    model = FakeModel(text)
    train, val = (made_up(24, seed=s, multilabel=multilabel, noise=3.0 if multilabel else 1.0) for s in (1, 2))
    shots = take(model, text, train if multilabel else replace(train, targets=(train.targets + 1) % 3), val)
    descent = descent_of(shots)
    heads = [s.head(descent.text_DC) for s in descent.epochs(60)]
    if multilabel:
        heads = [descent.start().head(descent.text_DC), *heads]
    scores = [quality(unit_logits(h, val), val.targets) for h in heads]
    keys = [(s.right, s.minus_log_loss if multilabel else 0.0, i) for i, s in enumerate(scores)]
    best = max(range(len(heads)), key=keys.__getitem__)
    assert best < len(heads) - 1
    fitted = fit_lp_plus_plus(model, text, shots.train, val, seed=0, epochs=60)
    assert fitted.settings["epoch"] == best + (0 if multilabel else 1)
    assert np.array_equal(fitted.head.arrays()["weight"], heads[best].weight_DC)


def test_ties_go_to_the_last_epoch_by_accuracy_and_to_the_better_probabilities_by_auroc() -> None:
    def heads(*factors: float) -> list[LinearHead]:
        return [LinearHead(np.eye(2, dtype=np.float32) * f, np.zeros(2, np.float32)) for f in factors]

    rows = np.array([[1, -1], [-1, 1]], np.float32)
    classes = of_features(rows, np.array([0, 1]))
    assert choose_epoch(heads(-1, 1, 9, -1), classes, first=1)[1] == 3
    yes = of_features(rows, np.array([[1, 0], [0, 1]], np.float32))
    assert choose_epoch(heads(1, 9, 2), yes, first=0)[1] == 1
    assert choose_epoch(heads(9, 9, 2), yes, first=0)[1] == 1
    assert choose_epoch(heads(9, 2, -1), yes, first=0)[1] == 0


def test_a_multilabel_probe_starts_at_the_differences_of_means_and_between_the_texts() -> None:
    text = words(multilabel=True)
    train = made_up(20, multilabel=True, unknown=0.3, noise=2.0)
    shots = take(model := FakeModel(text), text, train, None)
    descent = descent_of(shots)
    start = descent.start()
    f, t = train.pooled().astype(np.float64), train.targets
    vectors = text.vectors(model)
    assert vectors.negative is not None
    similar = []
    for c in range(3):
        yes, no = f[t[:, c] == 1], f[t[:, c] == 0]
        np.testing.assert_allclose(start.weight_DC[:, c], len(yes) * (yes.mean(axis=0) - no.mean(axis=0)), atol=1e-5)
        similar.append(float((yes @ vectors.positive[c]).mean()))
    np.testing.assert_allclose(start.alpha_C, 250 * np.mean(similar), rtol=1e-5)
    for c in range(3):
        known = f[~np.isnan(t[:, c])]
        by_text = start.alpha_C[c] * (known @ (vectors.positive[c] - vectors.negative[c])) + start.bias_C[c]
        assert by_text.mean() == pytest.approx(0, abs=1e-3)


def test_texts_on_one_side_of_all_images_do_not_make_the_start_worse_than_zero_shot() -> None:
    text = words(multilabel=True)
    model = FakeModel(text, noise=2.0)
    common = 3 * unit(np.random.default_rng(0).normal(size=DIM))
    train = made_up(24, seed=1, multilabel=True, noise=2.0)
    train = replace(train, features=tuple(unit(f + common) for f in train.features))
    descent = descent_of(shots := take(model, text, train, None))
    start = descent.start()
    off = replace(start, bias_C=np.zeros(3))
    losses = [log_loss(unit_logits(s.head(descent.text_DC), train), train.targets) for s in (start, off)]
    assert losses[0] < losses[1]
    assert losses[0] < log_loss(unit_logits(shots.zero, train), train.targets)


def test_rows_that_nobody_knows_of_a_class_change_nothing_of_it() -> None:
    text = words(1, multilabel=True)
    train = made_up(20, 1, multilabel=True, unknown=0.6, seed=3, noise=6.0)
    known = train.select(np.flatnonzero(~np.isnan(train.targets[:, 0])))
    assert 4 < len(known) < 12
    *_, all_rows = descent_of(take(FakeModel(text), text, train, None)).epochs(50)
    *_, few_rows = descent_of(take(FakeModel(text), text, known, None)).epochs(50)
    assert abs(few_rows.weight_DC - descent_of(take(FakeModel(text), text, known, None)).start().weight_DC).max() > 0.1
    np.testing.assert_allclose(all_rows.weight_DC, few_rows.weight_DC, atol=1e-9)
    np.testing.assert_allclose(all_rows.alpha_C, few_rows.alpha_C, atol=1e-9)
    np.testing.assert_allclose(all_rows.bias_C, few_rows.bias_C, atol=1e-9)


def test_the_quirk_of_the_published_code_is_off_unless_asked_for() -> None:
    text = words()
    model, train = FakeModel(text, noise=2.0), made_up(12, noise=2.0)
    plain, summed = (
        fit_lp_plus_plus(model, text, train, None, seed=0, epochs=60, accumulate_alpha_grad=a) for a in (False, True)
    )
    assert not np.array_equal(plain.head.arrays()["weight"], summed.head.arrays()["weight"])
    assert plain.settings["accumulate_alpha_grad"] is False


def test_no_epochs_are_refused() -> None:
    text = words()
    with pytest.raises(MedclipError, match="at least one") as caught:
        fit_lp_plus_plus(FakeModel(text), text, made_up(6), None, seed=0, epochs=0)
    assert caught.value.reason is Reason.WRONG_USE


@parametrize_with_checks([LpPlusPlus(epochs=100)])
def test_the_estimator_follows_scikit_learn(estimator: LpPlusPlus, check) -> None:
    check(estimator)


def test_the_estimator_is_the_method() -> None:
    text = words()
    model, train = FakeModel(text), made_up(9)
    head = fit_lp_plus_plus(model, text, train, None, seed=0).head
    estimator = clone(LpPlusPlus(text.vectors(model).positive)).fit(train.pooled(), train.targets)
    features = made_up(5, seed=1).pooled()
    np.testing.assert_allclose(estimator.decision_function(features), head.logits(features, None), atol=1e-2)


def test_alpha_begins_at_the_similarity_of_the_classes_that_have_examples() -> None:
    features, text = np.eye(DIM)[[0, 0, 1]], np.eye(DIM)[:, :3]
    text[:, 1] = (np.eye(DIM)[1] + np.eye(DIM)[2]) / np.sqrt(2)
    start = Descent(features, np.array([0, 0, 1]), text, text).start()
    np.testing.assert_allclose(start.alpha_C, 250 * (1 + 1 / np.sqrt(2)) / 2)  # nobody shows the third class

"""LP++: the published numbers, with and without the summed gradient of α."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from medclip.adapt.features import unit_logits
from medclip.adapt.lp_plus_plus import Descent, LpPlusPlus, fit_lp_plus_plus
from medclip.adapt.methods import find_method
from medclip.adapt.quality import accuracy, log_loss
from medclip.errors import MedclipError, Reason

from .kit import DIM, FakeModel, made_up, words


@pytest.mark.golden
def test_steps_sizes_and_the_chosen_epoch_are_those_of_the_published_code(golden: Path) -> None:
    g = np.load(golden / "lp_plus_plus.npz")
    text = g["text_weights"].astype(np.float64)
    descent = Descent(g["features"].astype(np.float64), g["labels"], text, text)
    assert descent.lr_weight == pytest.approx(float(g["lr_w"]), rel=1e-5)
    assert descent.lr_alpha == pytest.approx(float(g["lr_alpha"]), rel=1e-5)
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

    right = [accuracy(s.head(text).logits(g["val_features"], None), g["val_labels"]) for s in states]
    chosen = max(range(len(states)), key=lambda i: (right[i], i))
    test = accuracy(states[chosen].head(text).logits(g["test_features"], None), g["test_labels"])
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
    assert 1 <= fitted.settings["epoch"] <= 300
    assert fitted.num_trainable == DIM * 3 + 2 * 3
    assert fit_lp_plus_plus(model, text, train, None, seed=0).settings["epoch"] == 300


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

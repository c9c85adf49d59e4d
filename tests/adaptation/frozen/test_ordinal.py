"""Steps of a scale: the fits are statsmodels' and scikit-learn's, and what is no scale is refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge
from statsmodels.miscmodels.ordinal_model import OrderedModel

from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.heads import load_head
from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.frozen import ordinal
from medclip.adaptation.frozen.ordinal import log_probabilities
from medclip.adaptation.methods import METHODS
from medclip.errors import MedclipError, Reason
from medclip.statistics.metrics.ordered_answers import expected_step
from tests.kits.adaptation import DIM, FakeModel, of_features, unit, words

NAMES = [name for name, method in METHODS.items() if method.of_steps and method.takes == "features"]


def scale(num_steps: int = 4) -> ClassText:
    return words(num_steps, ordered=True)


def graded(num: int, num_steps: int = 4, *, seed: int = 0, noise: float = 0.15) -> Examples:
    """Units on an arc: the higher the step, the farther along."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num) % num_steps
    angle = steps / num_steps + noise * rng.normal(size=num)
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, DIM)))[0][:2]
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ axes + 0.1 * rng.normal(size=(num, DIM))
    return of_features(unit(features), steps)


def fit(name: str, train: Examples, text: ClassText | None = None, val: Examples | None = None, **options: Any) -> Any:
    text = text or scale(int(train.targets.max()) + 1)
    return METHODS[name].fit(FakeModel(text), text, train, val, seed=0, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_learned_in_their_order(name: str) -> None:
    fitted, test = fit(name, graded(64)), graded(200, seed=1)
    logits = unit_logits(fitted.head, test)
    shares = softmax(logits, axis=1)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-5)
    means = [expected_step(logits)[test.targets == k].mean() for k in range(4)]
    assert means == sorted(means)
    assert np.corrcoef(expected_step(logits), test.targets)[0, 1] > 0.8
    # the probabilities are honest: the mean of what is said is the mean of what is there
    assert shares.mean(axis=0) == pytest.approx([0.25] * 4, abs=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_survives_its_arrays(name: str) -> None:
    head, test = fit(name, graded(32)).head, graded(10, seed=1)
    again = load_head(head.kind, head.arrays())
    np.testing.assert_array_equal(unit_logits(again, test), unit_logits(head, test))


def test_proportional_odds_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 3))
    steps = np.digitize(rows @ [1.0, -0.5, 0.2] + rng.logistic(size=300), [-1, 0.5, 2]).astype(np.int64)
    weight, thresholds = ordinal.ordered_logit(rows, steps, 4, 1e-9)
    oracle: Any = OrderedModel(steps, rows, distr="logit").fit(method="bfgs", disp=False)
    cuts = np.cumsum([oracle.params[3], *np.exp(oracle.params[4:])])
    np.testing.assert_allclose(weight, oracle.params[:3], atol=2e-3)
    np.testing.assert_allclose(thresholds, cuts, atol=2e-3)
    np.testing.assert_allclose(np.exp(log_probabilities(rows @ weight, thresholds)), oracle.predict(rows), atol=1e-3)


@pytest.mark.parametrize("solve", [ordinal.ordered_logit, ordinal.coral])
def test_of_two_steps_it_is_a_logistic_regression(solve: Any) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(80, 4))
    steps = (rows[:, 0] + rng.normal(size=80) > 0).astype(np.int64)
    weight, thresholds = solve(rows, steps, 2, 0.5)
    oracle = LogisticRegression(C=2.0, tol=1e-9, max_iter=1000).fit(rows, steps)
    np.testing.assert_allclose(weight, oracle.coef_[0], atol=1e-3)
    np.testing.assert_allclose(-thresholds, oracle.intercept_, atol=1e-3)


def test_coral_is_as_many_binary_questions_with_one_weight() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(120, 3))
    steps = np.digitize(rows[:, 0] + 0.5 * rng.normal(size=120), [-0.7, 0.7]).astype(np.int64)
    weight, thresholds = ordinal.coral(rows, steps, 3, 0.3)
    # the same as one regression over every row twice, with a bias (an unpunished one) for each question
    hints = np.repeat(np.eye(2), 120, axis=0) * 1e3
    both = np.concatenate([np.tile(rows, (2, 1)), hints], axis=1)
    above = np.concatenate([steps > 0, steps > 1])
    oracle = LogisticRegression(C=1 / 0.3, fit_intercept=False, tol=1e-10, max_iter=20000).fit(both, above)
    np.testing.assert_allclose(weight, oracle.coef_[0, :3], atol=5e-3)
    np.testing.assert_allclose(-thresholds, oracle.coef_[0, 3:] * 1e3, atol=5e-3)


def test_the_regression_is_scikit_learns_ridge_with_thresholds_half_way() -> None:
    train, test = graded(40), graded(9, seed=1)
    fitted = fit("regression", train, penalty=0.3)
    rows = train.pooled().astype(np.float64)
    size = np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
    oracle = Ridge(alpha=0.3 * size**2).fit(rows, train.targets)
    head = fitted.head
    above = expit(head.place(test.pooled())[:, None] - head.thresholds_K)
    expected = expit(fitted.settings["slope"] * (oracle.predict(test.pooled())[:, None] - [0.5, 1.5, 2.5]))
    np.testing.assert_allclose(above, expected, atol=1e-4)


@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=6),
    st.lists(st.floats(0.01, 20), min_size=1, max_size=5),
    st.floats(-10, 10),
)
def test_probabilities_of_steps_add_up_to_one_and_never_vanish(
    places: list[float], rises: list[float], first: float
) -> None:
    logits = log_probabilities(np.array(places), first + np.cumsum(rises))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-9)


@given(seed=st.integers(0, 1000))
@pytest.mark.parametrize("solve", [ordinal.ordered_logit, ordinal.coral])
def test_gradients_are_those_of_the_loss(solve: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, steps = rng.normal(size=(12, 2)), np.arange(12) % 3
    losses: list[Any] = []

    def catch(loss: Any, num_dim: int, *rest: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        losses.append(loss)
        return np.zeros(num_dim), np.zeros(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordinal, "_minimised", catch)
        solve(rows, steps, 3, 0.1)
    at = rng.normal(size=4)
    assert check_grad(lambda v: losses[0](v)[0], lambda v: losses[0](v)[1], at) < 1e-4


def test_validation_examples_choose_the_penalty() -> None:
    given, chosen = fit("coral", graded(16), penalty=0.5), fit("coral", graded(16), val=graded(40, seed=5))
    assert (given.settings["penalty"], given.settings["chosen_on"]) == (0.5, "given")
    assert (chosen.settings["penalty"] in ordinal.PENALTIES, chosen.settings["chosen_on"]) == (True, "val")
    assert fit("regression", graded(4)).settings["chosen_on"] == "default"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_scale_is_refused(name: str) -> None:
    with pytest.raises(MedclipError, match="nothing says in which order apple, pear") as e:
        fit(name, graded(12), words(4))
    assert e.value.reason is Reason.WRONG_USE
    assert "--order" in str(e.value.hint)
    birads = scale()
    birads = replace(birads, task=replace(birads.task, outside_order=("plum",)))
    with pytest.raises(MedclipError, match=r"plum of the task fruit is no step of its scale\."):
        fit(name, graded(12), birads)
    with pytest.raises(MedclipError, match=r"the scale has a gap: there are no examples of pear\."):
        fit(name, graded(12).select([0, 2, 3, 4, 6]), scale())
    with pytest.raises(MedclipError, match="penalty is 0; it takes a number above 0"):
        fit(name, graded(12), scale(), penalty=0)

"""Ridge, nearest neighbours and the discriminant agree with scikit-learn, and their logits are probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from medclip.adaptation.data.heads import load_head
from medclip.adaptation.data.shot_features import unit_logits
from medclip.adaptation.frozen import classical
from medclip.adaptation.frozen.classical import KnnHead, discriminant, fit_knn, fit_lda, fit_ridge
from medclip.errors import MedclipError, Reason
from medclip.models.prototypes.class_vectors import probabilities
from medclip.statistics.metrics.selection_score import log_loss, temperature
from tests.kits.adaptation import DIM, FakeModel, made_up, words

FITS = {"ridge": fit_ridge, "knn": fit_knn, "lda": fit_lda}
GIVEN = {"ridge": {"alpha": 0.5}, "knn": {"k": 3}, "lda": {"shrinkage": 0.4}}


@given(st.integers(0, 30), st.sampled_from([0.01, 0.3, 0.9]), st.sampled_from([2, 3]))
def test_the_discriminant_is_scikit_learns_for_equal_classes(seed: int, shrinkage: float, num_classes: int) -> None:
    train = made_up(12, num_classes, seed=seed)
    test = made_up(6, seed=seed + 1).pooled().astype(np.float64)
    rows = train.pooled().astype(np.float64)
    # scikit-learn shrinks on features of unit variance within a class; on those, both are the same.
    means = np.stack([rows[train.targets == c].mean(axis=0) for c in range(num_classes)])
    deviation = (rows - means[train.targets]).std(axis=0)
    rows, test = rows / deviation, test / deviation
    oracle = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=shrinkage, priors=np.full(num_classes, 1 / num_classes)
    ).fit(rows, train.targets)
    signs = 2.0 * np.eye(num_classes)[train.targets] - 1
    weight, bias = discriminant(rows, signs if num_classes > 2 else signs[:, 1:], shrinkage)
    ours = test @ weight + bias
    theirs = oracle.decision_function(test)
    if num_classes > 2:
        ours, theirs = (z - z.mean(axis=1, keepdims=True) for z in (ours, theirs))
    per_class = np.stack([np.cov(rows[train.targets == c].T, bias=True) for c in range(num_classes)])
    assert np.trace(per_class.mean(axis=0)) == pytest.approx(DIM)
    np.testing.assert_allclose(ours.ravel(), theirs.ravel(), rtol=1e-4, atol=1e-4)


def test_ridge_is_scikit_learns_ridge_classifier_times_a_factor() -> None:
    text = words()
    train, test = made_up(12), made_up(6, seed=1).pooled()
    fitted = fit_ridge(FakeModel(text), text, train, None, seed=0, alpha=0.5)
    oracle = RidgeClassifier(alpha=0.5).fit(train.pooled(), train.targets)
    np.testing.assert_allclose(
        fitted.head.logits(test, None), fitted.settings["scale"] * oracle.decision_function(test), atol=1e-4
    )
    assert fitted.settings["chosen_on"] == "given"


def test_neighbours_that_vote_alike_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "NEAR", 1e9)
    train, test = made_up(30), made_up(20, seed=1).pooled()
    keys = train.pooled()
    head = KnnHead(keys, np.eye(3, dtype=np.float32)[train.targets], 5, 1.0, np.zeros((DIM, 3), np.float32), False)
    oracle = KNeighborsClassifier(5, metric="cosine").fit(keys, train.targets).predict_proba(test)
    expected = (5 * oracle + 1 / 3) / 6
    np.testing.assert_allclose(probabilities(head.logits(test, None), "multiclass"), expected, atol=1e-5)


def test_multilabel_neighbours_vote_on_what_is_known_of_them() -> None:
    """The nearest example does not know; of the two others the nearer says yes."""
    keys = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    values = np.array([[np.nan], [1], [0]], np.float32)
    head = KnnHead(keys, values, 2, 1.0, np.zeros((2, 1), np.float32), True)
    far = np.exp(-0.8 / classical.NEAR)
    expected = (1 + 0.5) / (1 + far + 1)
    share = probabilities(head.logits(np.array([[1.0, 0.0]], np.float32), None), "multilabel")
    assert share[0, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", FITS)
def test_logits_are_usable_probabilities(name: str, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text)
    train, test = (made_up(n, seed=s, multilabel=multilabel, noise=2.0) for n, s in ((48, 1), (400, 2)))
    fitted = FITS[name](model, text, train, None, seed=0)
    logits = unit_logits(fitted.head, test)
    assert fitted.settings["scale_fitted_on"] == "folds"
    assert 0.4 < temperature(logits, test.targets) < 2.5
    chance = log_loss(np.zeros_like(logits), test.targets)
    assert log_loss(logits, test.targets) < 0.9 * chance


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", FITS)
def test_settings_are_chosen_on_validation_else_in_the_shots_else_stated(name: str, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    model = FakeModel(text)
    train, val = (made_up(24, seed=s, multilabel=multilabel, unknown=0.1) for s in (1, 2))
    found = [
        FITS[name](model, text, train, v, seed=0, **o).settings for v, o in ((val, {}), (None, {}), (val, GIVEN[name]))
    ]
    assert [s["chosen_on"] for s in found] == ["val", "folds", "given"]
    assert {k: found[2][k] for k in GIVEN[name]} == GIVEN[name]
    if not multilabel:
        one = [FITS[name](model, text, made_up(3), v, seed=0).settings for v in (None, val)]
        assert [s["chosen_on"] for s in one] == ["default", "val"]
        assert [s["scale_fitted_on"] for s in one] == ["default", "val"]


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_head_comes_back_from_its_arrays(name: str, multilabel: bool) -> None:
    text = words(multilabel=multilabel)
    head = FITS[name](FakeModel(text), text, made_up(12, multilabel=multilabel, unknown=0.1), None, seed=0).head
    again = load_head(head.kind, head.arrays())
    features = made_up(5, seed=1).pooled()
    assert np.array_equal(head.logits(features, None), again.logits(features, None))


def test_one_example_a_class_makes_the_discriminant_the_nearest_class() -> None:
    text = words()
    train, test = made_up(3), made_up(40, seed=1)
    head = fit_lda(FakeModel(text), text, train, None, seed=0).head
    nearest = (test.pooled() @ train.pooled().T).argmax(axis=1)
    assert np.array_equal(unit_logits(head, test).argmax(axis=1), train.targets[nearest])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ridge", {"alpha": 0.0}),
        ("ridge", {"alpha": float("nan")}),
        ("knn", {"k": 0}),
        ("lda", {"shrinkage": 0.0}),
        ("lda", {"shrinkage": 2.0}),
        ("lda", {"shrinkage": "auto"}),
    ],
)
def test_settings_that_mean_nothing_are_refused(name: str, options: dict) -> None:
    text = words()
    with pytest.raises(MedclipError) as caught:
        FITS[name](FakeModel(text), text, made_up(6), None, seed=0, **options)
    assert caught.value.reason is Reason.WRONG_USE

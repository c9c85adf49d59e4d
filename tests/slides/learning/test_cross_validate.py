"""Cross-validation by patient: nobody is learned from and scored, comparisons are paired, chance is chance."""

from dataclasses import replace

import numpy as np
import pytest

from medclip.errors import MedclipError
from medclip.slides.learning.labels import Bags
from medclip.slides.learning.learn import cross_validate, make_folds
from medclip.slides.learning.train import Learned, SlideRecipe, train_slides
from tests.kits.slide_bags import planted

QUICK = SlideRecipe(pooling="abmil", epochs=20, lr=3e-3, val_share=0.0)
SHORT = SlideRecipe(pooling="abmil", epochs=4, lr=3e-3, val_share=0.0)


def test_a_patient_is_in_one_fold_and_classes_are_spread_evenly():
    bags, _ = planted(num_patients=20, slides_each=3)
    fold = make_folds(bags, 5, seed=0)
    for patient in set(bags.patients):
        assert len(set(fold[[p == patient for p in bags.patients]])) == 1
    for k in range(5):
        assert np.bincount(bags.targets[fold == k]).tolist() == [6, 6]


def test_planted_witnesses_are_found_on_patients_that_were_left_out():
    bags, _ = planted(num_patients=30)
    found = cross_validate(bags, QUICK, num_folds=3, num_resamples=200).poolings["abmil"]
    assert found.figures["macro_auroc"].low > 0.7
    assert found.epochs == (20, 20, 20)


def test_labels_without_meaning_are_not_found():
    bags, _ = planted(num_patients=30)
    shuffled = Bags(bags.read, np.random.default_rng(7).permutation(bags.targets), bags.patients, bags.names, bags.kind)
    figure = cross_validate(shuffled, SHORT, num_folds=3, num_resamples=200).poolings["abmil"].figures["macro_auroc"]
    assert figure.low < 0.5 < figure.high


def test_an_epoch_is_chosen_by_patients_that_are_neither_learned_from_nor_scored(monkeypatch: pytest.MonkeyPatch):
    bags, _ = planted(num_patients=30)
    seen: list[tuple[set[str], set[str]]] = []

    def spied(train: Bags, recipe: SlideRecipe, *, seed: int, val: Bags | None = None) -> Learned:
        assert val is not None
        seen.append((set(train.patients), set(val.patients)))
        return train_slides(train, recipe, seed=seed, val=val)

    monkeypatch.setattr("medclip.slides.learning.learn.train_slides", spied)
    left: list[set[str]] = []
    cross_validate(
        bags,
        replace(SHORT, epochs=1, val_share=0.2),
        num_folds=3,
        num_resamples=50,
        each_fold=lambda _name, _head, rows: left.append({bags.patients[row] for row in rows}),
    )
    assert len(seen) == len(left) == 3
    for (train, val), test in zip(seen, left, strict=True):
        assert not train & val
        assert not (train | val) & test
        assert train | val | test == set(bags.patients)


def test_poolings_are_compared_on_the_same_folds_with_paired_intervals():
    bags, _ = planted(num_patients=20)
    compared = cross_validate(bags, SHORT, poolings=["mean", "abmil"], num_folds=2, num_resamples=200)
    one, other = compared.poolings["mean"], compared.poolings["abmil"]
    assert np.array_equal(one.fold_S, other.fold_S)
    apart = compared.differences["macro_auroc", "mean", "abmil"]
    expected = other.figures["macro_auroc"].value - one.figures["macro_auroc"].value
    assert apart.value == pytest.approx(expected, abs=1e-9)
    assert apart.low <= apart.value <= apart.high


def test_a_risk_is_measured_by_concordance_and_by_year():
    bags, _ = planted(num_patients=24)
    times = np.stack([np.where(bags.targets == 1, 20.0, np.nan), np.full(24, 40.0)], axis=1)
    risk = Bags(bags.read, times, bags.patients, ("1", "2", "3"), "risk")
    figures = cross_validate(risk, QUICK, num_folds=2, num_resamples=100).poolings["abmil"].figures
    assert figures["c_index_harrell_td"].value > 0.6
    assert figures["auroc 2"].value > 0.6


def test_too_few_patients_are_named():
    bags, _ = planted(num_patients=3)
    with pytest.raises(MedclipError, match="3 patients cannot be divided"):
        make_folds(bags, 5, seed=0)
    little, _ = planted(num_patients=12)
    compared = cross_validate(little, SlideRecipe(pooling="mean", epochs=1), num_folds=2, num_resamples=50)
    assert "the last epoch was kept" in compared.poolings["mean"].notes[0]

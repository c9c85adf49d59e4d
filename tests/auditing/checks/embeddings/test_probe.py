"""Probes: what is planted is found, noise is not, patients are kept apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from medclip.auditing.checks.embeddings.probe import RidgeProbe, held_out, patient_folds, probe, standardised
from medclip.auditing.checks.embeddings.vectors import grouped
from medclip.statistics.cohort import CONFLICT, MISSING
from medclip.statistics.metrics.ranks import auroc
from tests.kits.audit_embeddings import attribute, named, noise, of_patients, people

PATIENTS = people(60)
CODES = (np.arange(60) % 3)[PATIENTS]
THREE = attribute(CODES, ("a", "b", "c"), "site")


def test_an_attribute_that_is_in_the_embedding_is_read_with_auroc_one() -> None:
    vectors = np.concatenate([np.eye(3)[CODES], noise(len(PATIENTS), 5)], axis=1)
    rows = probe(vectors, PATIENTS, THREE, num_permutations=50, num_replicates=50)
    for kind in ("logistic", "mlp"):
        assert named(rows, f"{kind}: macro AUROC")["value"] == pytest.approx(1.0)
        assert named(rows, f"{kind}: balanced accuracy")["value"] == pytest.approx(1.0)
    assert named(rows, "logistic: macro AUROC")["p"] == pytest.approx(1 / 51, rel=1e-3)
    assert named(rows, "ridge: macro AUROC")["value"] == pytest.approx(1.0)
    baseline = named(rows, "permutation baseline: macro AUROC")
    assert baseline["low"] < 0.5 < baseline["high"]
    assert {r["what"] for r in rows} == {"probe"}


def test_on_noise_p_is_spread_evenly() -> None:
    ps = []
    for seed in range(24):
        vectors = of_patients(PATIENTS, 1.0, dims=8, seed=seed)  # patients differ, groups do not
        rows = probe(vectors, PATIENTS, THREE, kinds=(), num_permutations=60, num_replicates=2, seed=seed)
        ps.append(named(rows, "ridge: macro AUROC")["p"])
    assert np.mean(np.array(ps) <= 0.05) <= 0.15
    assert 0.3 < np.mean(ps) < 0.7


def test_a_probe_that_knows_the_patient_only_learns_nothing_of_the_group() -> None:
    vectors = np.eye(60, dtype=np.float32)[PATIENTS]  # with rows divided instead of patients this would be perfect
    rows = probe(vectors, PATIENTS, THREE, kinds=("logistic",), num_permutations=20, num_replicates=20)
    assert named(rows, "logistic: macro AUROC")["value"] < 0.65


def test_small_groups_and_rows_that_state_nothing_are_left_out_and_named() -> None:
    codes = CODES.copy()
    codes[PATIENTS < 5] = 3
    codes[(PATIENTS >= 5) & (PATIENTS < 8)] = 4
    codes[PATIENTS == 8] = 5
    five = attribute(codes, ("a", "b", "c", "rare", MISSING, CONFLICT), "site")
    vectors = noise(len(PATIENTS))
    vectors[PATIENTS == 20] = np.nan
    rows = probe(vectors, PATIENTS, five, kinds=("logistic",), num_permutations=5, num_replicates=5)
    note = named(rows, "logistic: macro AUROC")["note"]
    assert "a, b, c." in note
    assert "Left out" in note
    assert "rare, not stated, contradictory" in note
    assert "fewer than 10 patients" in note
    exact = int((codes < 3).sum() - (PATIENTS == 20).sum())
    assert f"{exact}" not in note  # with the total it would give the size of the small group away
    rows = probe(vectors, PATIENTS, five, kinds=(), num_permutations=5, num_replicates=5, fewest=20)
    assert rows[0]["note"].startswith("Not probed")


def test_one_group_is_not_probed_and_says_so() -> None:
    only = attribute(np.zeros(len(PATIENTS), int), ("a", "b"))
    rows = probe(noise(len(PATIENTS)), PATIENTS, only)
    assert len(rows) == 1
    assert math.isnan(rows[0]["value"])
    assert rows[0]["note"].startswith("Not probed")


def test_no_fold_has_a_patient_on_both_sides_and_every_row_is_judged_once() -> None:
    folds = patient_folds(CODES, PATIENTS, 5, 0)
    assert sorted(np.concatenate(folds)) == list(range(len(PATIENTS)))
    for test in folds:
        assert not set(PATIENTS[test]) & set(np.delete(PATIENTS, test))


@pytest.mark.parametrize("dims", [6, 300])
def test_the_ridge_probe_is_that_of_scikit_learn(dims: int) -> None:
    vectors, codes = noise(len(PATIENTS), dims), (CODES > 0).astype(int)
    folds = patient_folds(codes, PATIENTS, 5, 0)
    predicted = np.zeros(len(codes))
    for test in folds:
        train = np.setdiff1d(np.arange(len(codes)), test)
        taught, asked = standardised(vectors[train], vectors[test])
        truth = (codes[train] == 0).astype(float)
        predicted[test] = Ridge(alpha=len(train), fit_intercept=False).fit(taught, truth - truth.mean()).predict(asked)
    found = RidgeProbe(vectors, folds).auroc(codes[None], 2)
    assert found[0] == pytest.approx(float(auroc(predicted, codes == 0)), abs=1e-6)


def test_predictions_are_probabilities_and_repeat() -> None:
    data = grouped(of_patients(PATIENTS, 1.0), PATIENTS, THREE, most=10_000, seed=0, fewest=10)
    folds = patient_folds(data.codes_n, data.patients_n, 5, 0)
    for kind in ("logistic", "mlp"):
        one, two = held_out(data, folds, kind, 0), held_out(data, folds, kind, 0)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one.sum(axis=1), 1)


def test_many_rows_are_drawn_by_patient() -> None:
    data = grouped(noise(len(PATIENTS)), PATIENTS, THREE, most=50, seed=0, fewest=10)
    assert 30 < len(data.codes_n) <= 50
    assert "Drawn by patient: about" in data.note
    counts = {int(c) for c in np.bincount(data.patients_n)}
    assert counts <= set(np.bincount(PATIENTS).tolist())

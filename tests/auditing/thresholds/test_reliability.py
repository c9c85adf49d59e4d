from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from medclip.auditing.thresholds.calibration import table, temperatures_of
from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, cell_rows, cells_of
from tests.kits.shortcuts import bootstrap, chests, label, plain

EVERYBODY = np.array([True])


def overconfident(seed: int, n: int = 3000) -> Cohort:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.2, n)
    keys = tuple(f"{seed}/{i}" for i in range(n))
    truth = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return plain(1 / (1 + np.exp(-3 * z)), truth, keys=keys, identities=keys)


def test_bins_of_equal_mass_are_scikit_learns() -> None:
    cohort = overconfident(0)
    made = cohort.labels[0]
    rows = table(cohort, made, bootstrap(cohort, 50), EVERYBODY, min_patients=1)
    observed, said = calibration_curve(made.truth_N, made.score_N, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([r["observed"] for r in rows], observed, atol=1e-12)
    np.testing.assert_allclose([r["mean_score"] for r in rows], said, atol=1e-12)


def test_bins_of_equal_mass_hold_as_many_rows_each() -> None:
    cohort = overconfident(0)
    rows = table(cohort, cohort.labels[0], bootstrap(cohort, 50), EVERYBODY)
    assert [r["n"] for r in rows] == [300] * 10
    assert all(r["low"] <= r["observed"] <= r["high"] for r in rows)
    assert (rows[0]["low_edge"], rows[-1]["high_edge"]) == (0, 1)


@given(st.integers(0, 60), st.integers(1, 40))
def test_every_row_is_in_one_bin_and_no_bin_of_several_has_few_patients(seed: int, fewest: int) -> None:
    cohort = chests(seed, num_patients=40)
    score = np.round(cohort.labels[0].score_N, seed % 3 + 1)
    made = dataclasses.replace(cohort.labels[0], score_N=score)
    rows = table(cohort, made, bootstrap(cohort, 5), np.ones(5, bool), min_patients=fewest)
    for cell in cells_of(cohort):
        inside = cell_rows(cohort, cell)
        bins = [r for r in rows if (r["attribute"], r["group"]) == (cell.attribute, cell.group)]
        assert sum(r["n"] for r in bins) == inside.sum()
        for r in bins:
            members = inside & (score > (-1 if r["bin"] == 0 else r["low_edge"])) & (score <= r["high_edge"])
            assert members.sum() == r["n"]
            assert len(bins) == 1 or len(np.unique(cohort.patients_N[members])) >= fewest
            assert r["observed"] == pytest.approx(made.truth_N[members].mean())


def test_a_temperature_from_other_patients_brings_the_bins_to_the_diagonal() -> None:
    audited, choosing = overconfident(1), overconfident(2)
    found, notes = temperatures_of(choosing, audited)
    assert notes == ()
    assert found["Pneumothorax"] == pytest.approx(3, abs=0.3)
    draws = bootstrap(audited, 100)
    off = {}
    for t in (None, found["Pneumothorax"]):
        rows = table(audited, audited.labels[0], draws, EVERYBODY, t=t)
        off[rows[0]["after"]] = np.mean([abs(r["observed"] - r["mean_score"]) for r in rows])
    assert off["temperature"] < 0.03 < 0.1 < off["raw"]


def test_it_is_never_fitted_on_the_audited_patients_and_said_where_there_is_none() -> None:
    cohort = overconfident(1)
    with pytest.raises(MedclipError, match="also in the data"):
        temperatures_of(cohort, cohort)
    found, notes = temperatures_of(None, cohort)
    assert (found, len(notes)) == ({}, 1)
    assert "No temperature was fitted" in notes[0]


def test_labels_that_cannot_be_fitted_are_named() -> None:
    audited, choosing = overconfident(1), overconfident(2)
    one = dataclasses.replace(choosing.labels[0], truth_N=np.ones(3000))
    _, notes = temperatures_of(dataclasses.replace(choosing, labels=(one,)), audited)
    assert "one class only" in notes[0]
    _, notes = temperatures_of(dataclasses.replace(choosing, labels=()), audited)
    assert "lacks it" in notes[0]
    ranks = dataclasses.replace(audited.labels[0], probability=False)
    assert temperatures_of(choosing, dataclasses.replace(audited, labels=(ranks,))) == ({}, ())
    with pytest.raises(MedclipError, match="needs probabilities"):
        table(audited, ranks, bootstrap(audited, 3), EVERYBODY)


def test_images_of_one_patient_do_not_narrow_the_interval() -> None:
    once = overconfident(3, 400)
    many = plain(*(np.repeat(x, 8) for x in (once.labels[0].score_N, once.labels[0].truth_N)), np.repeat(range(400), 8))
    draws = bootstrap(once, 200)
    pairs = [table(c, c.labels[0], draws, EVERYBODY) for c in (once, many)]
    for a, b in zip(*pairs, strict=True):
        assert b["n"] == 8 * a["n"]
        assert b["high"] - b["low"] == pytest.approx(a["high"] - a["low"], rel=0.25)


def test_a_constant_score_is_one_bin_and_nobody_none() -> None:
    cohort = chests(0, num_patients=50)
    made = dataclasses.replace(cohort.labels[0], score_N=np.full(len(cohort.patients_N), 0.3))
    (row,) = table(cohort, made, bootstrap(cohort, 10), np.array([True, False, False, False, False]))
    assert (row["mean_score"], row["low_edge"], row["high_edge"]) == (pytest.approx(0.3), 0, 1)
    none = dataclasses.replace(made, truth_N=np.full(len(cohort.patients_N), np.nan))
    assert table(cohort, none, bootstrap(cohort, 10), np.ones(5, bool)) == []


def test_weights_count_and_unknown_rows_do_not() -> None:
    score, truth = np.array([0.2, 0.2, 0.2, 0.8, np.nan]), np.array([0, 1, np.nan, 1, 1])
    made = label(score, truth, weight_N=np.array([3.0, 1, 1, 1, 1]))
    cohort = Cohort(np.arange(5, dtype=np.int32), (made,), ())
    (row,) = table(cohort, made, bootstrap(cohort, 20), EVERYBODY)
    assert (row["n"], row["observed"]) == (3, pytest.approx(0.4))
    assert row["mean_score"] == pytest.approx((0.2 * 4 + 0.8) / 5)

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.auditing.thresholds.calibration import GRID, curve, net_benefit
from medclip.errors import MedclipError
from medclip.statistics.cohort import cell_rows, cells_of
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.standard_errors import clusters_of
from tests.kits.shortcuts import bootstrap, chests, plain


def test_the_hand_example_of_the_spec() -> None:
    assert net_benefit(3, 2, 10, 0.2) == pytest.approx(0.25)
    # Acting on everybody is worth nothing at a threshold that equals the prevalence.
    assert net_benefit(3, 7, 10, 0.3) == pytest.approx(0)
    assert np.isnan(net_benefit(0.0, 0.0, 0.0, 0.3))


@pytest.mark.golden
def test_the_curve_equals_the_golden_one(golden: Path) -> None:
    held = np.load(golden / "zero_shot_retrieval.npz", allow_pickle=False)
    cohort = plain(held["dca_prob"], held["y"][:, 0])
    found = curve(cohort, cohort.labels[0], np.ones((cohort.num_patients, 1), np.uint8), grid=held["dca_pt"].tolist())
    np.testing.assert_allclose(found.model_GT[0], held["dca_net_benefit"], atol=1e-8)
    np.testing.assert_allclose(found.treat_all_GT[0], held["dca_treat_all"], atol=1e-8)


@given(st.integers(0, 100))
def test_in_every_cell_and_resample_it_is_what_the_engine_finds_at_one_threshold(seed: int) -> None:
    cohort = chests(seed, num_patients=25)
    made = dataclasses.replace(cohort.labels[0], score_N=np.round(cohort.labels[0].score_N, 1))
    if seed % 2:
        made = dataclasses.replace(made, weight_N=np.random.default_rng(seed).random(len(made.score_N)))
    draws = bootstrap(cohort, 12, seed)
    found = curve(cohort, made, draws, grid=(0.1, 0.3, 0.5))
    for t, threshold in enumerate((0.1, 0.3, 0.5)):
        at = evaluate(cohort, made, draws, threshold=threshold, metrics=["net_benefit"])
        np.testing.assert_allclose(found.model_GT[:, t], at.point["net_benefit"], atol=1e-12)
        np.testing.assert_allclose(found.drawn_GTB[:, t], at.drawn["net_benefit"], atol=1e-12)


def test_rows_are_of_the_cells_that_may_be_shown_and_hold_the_value_in_the_interval() -> None:
    cohort = chests(0, num_patients=300)
    shown = np.array([True, True, False, False, True])
    rows = curve(cohort, cohort.labels[0], bootstrap(cohort, 200)).rows(cohort, cohort.labels[0], shown)
    assert [r["threshold"] for r in rows[: len(GRID)]] == list(GRID)
    assert list(dict.fromkeys((r["attribute"], r["group"]) for r in rows)) == [
        ("all", "all"),
        ("sex", "F"),
        ("age", "50 and over"),
    ]
    assert all(r["low"] <= r["net_benefit"] <= r["high"] for r in rows)
    prevalence = cohort.labels[0].truth_N[cell_rows(cohort, cells_of(cohort)[1])].mean()
    first = next(r for r in rows if r["group"] == "F")
    assert first["treat_all"] == pytest.approx(prevalence - (1 - prevalence) * 0.01 / 0.99)


def test_an_interval_is_that_of_the_same_net_benefit_among_the_metrics() -> None:
    cohort = chests(0, num_patients=100)
    label, draws = cohort.labels[0], bootstrap(cohort, 100)
    rows = curve(cohort, label, draws, grid=(0.1, 0.3)).rows(cohort, label, np.ones(len(cells_of(cohort)), bool))
    at = evaluate(cohort, label, draws, threshold=0.3, metrics=["net_benefit"])
    low_G, high_G, _ = of(at, "net_benefit", clusters_of(cohort, label))
    ends = [(row["low"], row["high"]) for row in rows if row["threshold"] == 0.3]
    np.testing.assert_allclose(ends, np.stack([low_G, high_G], axis=1), atol=1e-12)


def test_a_model_that_knows_the_risk_is_worth_more_than_acting_on_everybody_or_nobody() -> None:
    rng = np.random.default_rng(0)
    risk = rng.beta(1, 3, 4000)
    cohort = plain(risk, (rng.random(4000) < risk).astype(float))
    found = curve(cohort, cohort.labels[0], bootstrap(cohort, 100))
    assert (found.model_GT[0] >= np.maximum(found.treat_all_GT[0], 0) - 1e-3).all()
    assert found.model_GT[0, 24] > max(found.treat_all_GT[0, 24], 0) + 0.03


def test_a_cell_without_rows_is_worth_nothing_that_is_known() -> None:
    cohort = chests(0, num_patients=20)
    made = dataclasses.replace(cohort.labels[0], truth_N=np.full(len(cohort.patients_N), np.nan))
    assert np.isnan(curve(cohort, made, bootstrap(cohort, 3)).drawn_GTB).all()
    women = cohort.attributes[0].codes_N == 0
    made = dataclasses.replace(cohort.labels[0], score_N=np.where(women, np.nan, cohort.labels[0].score_N))
    assert np.isnan(curve(cohort, made, bootstrap(cohort, 3)).model_GT[:, 0]).tolist() == [False, True] + [False] * 3


def test_scores_that_are_no_probabilities_and_crooked_grids_are_refused() -> None:
    cohort = chests(0, num_patients=20)
    draws = bootstrap(cohort, 3)
    with pytest.raises(MedclipError, match="needs probabilities"):
        curve(cohort, dataclasses.replace(cohort.labels[0], probability=False), draws)
    for grid in ((), (0.0, 0.5), (0.5, 1.0), (0.5, 0.2)):
        with pytest.raises(MedclipError, match="rise"):
            curve(cohort, cohort.labels[0], draws, grid=grid)

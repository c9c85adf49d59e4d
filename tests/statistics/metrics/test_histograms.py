"""Histograms of scores give what sorting every score gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.statistics.cohort import valid_rows
from medclip.statistics.metrics import catalogue
from medclip.statistics.metrics.calibration import Fitted
from medclip.statistics.metrics.ranks import Area
from medclip.statistics.resampling import bootstrap
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.bootstrap import cohort_of

METRICS = sorted(name for name, metric in catalogue.METRICS.items() if isinstance(metric.values, Area | Fitted))


def clinic(num_patients: int, *, distinct: int | None = None, weighted: bool = False):
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 5, num_patients))
    z = rng.normal(-1.0, 1.0, len(patients)) + rng.normal(0, 0.7, num_patients)[patients]
    score = 1 / (1 + np.exp(-z))
    if distinct:
        score = (np.floor(score * distinct) + 0.5) / distinct
    truth = rng.random(len(z)) < 1 / (1 + np.exp(0.4 - 0.8 * z))
    groups = {"sex": rng.choice(["F", "M"], num_patients)[patients], "view": rng.choice(["A", "B", "C"], len(z))}
    cohort, label = cohort_of(score, truth, patients, groups)
    if weighted:
        label = replace(label, weight_N=rng.random(len(z)) + 0.1)
    return cohort, label


def both(monkeypatch: pytest.MonkeyPatch, cohort, label, num_resamples: int) -> tuple[Replicates, Replicates]:
    weights_PB = draw_weights(cohort.num_patients, num_resamples, seed=0)
    sorted_ones = evaluate(cohort, label, weights_PB, metrics=METRICS)
    monkeypatch.setattr(bootstrap, "MANY_ROWS", 0)
    return evaluate(cohort, label, weights_PB, metrics=METRICS), sorted_ones


@pytest.mark.parametrize("weighted", [False, True])
def test_with_a_bin_for_each_score_areas_are_those_of_sorting(monkeypatch: pytest.MonkeyPatch, weighted: bool):
    found, expected = both(monkeypatch, *clinic(150, distinct=300, weighted=weighted), 30)
    for metric in METRICS:
        near = 1e-9 if metric.startswith("calibration") else 1e-12
        np.testing.assert_allclose(found.point[metric], expected.point[metric], rtol=0, atol=near, err_msg=metric)
        np.testing.assert_allclose(found.drawn[metric], expected.drawn[metric], rtol=0, atol=near, err_msg=metric)


def test_with_more_scores_than_bins_points_are_exact_and_resamples_nearly(monkeypatch: pytest.MonkeyPatch):
    found, expected = both(monkeypatch, *clinic(2500), 60)
    for metric in METRICS:
        np.testing.assert_allclose(found.point[metric], expected.point[metric], rtol=0, atol=1e-7, err_msg=metric)
        known = ~np.isnan(expected.point[metric])
        error_G1 = expected.drawn[metric][known].std(axis=1, keepdims=True)
        off = np.abs(found.drawn[metric] - expected.drawn[metric])[known] / error_G1
        assert off.max() < (0.15 if "auprc" in metric else 0.03), metric
        assert found.drawn[metric][known].std(axis=1) == pytest.approx(error_G1[:, 0], rel=0.01)


def test_a_cell_or_a_resample_without_a_class_has_no_value(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "MANY_ROWS", 0)
    cohort, label = cohort_of([0.2, 0.8, 0.4, 0.6], [0, 1, 1, 0], groups={"sex": np.array(["F", "M", "M", "F"])})
    weights_PB = np.array([[1, 0], [1, 1], [1, 1], [1, 0]], np.uint8)
    found = evaluate(cohort, label, weights_PB, metrics=["auroc", "calibration_in_the_large"])
    assert np.isnan(found.point["auroc"]).tolist() == [False, True, True]
    assert np.isnan(found.drawn["auroc"][0]).tolist() == [False, True]
    assert np.isnan(found.drawn["calibration_in_the_large"][0]).tolist() == [False, True]
    assert np.isnan(found.point["calibration_in_the_large"]).tolist() == [False, True, True]


def test_of_few_positives_each_has_a_bin_of_its_own():
    """Average precision is decided among them: bins of equal numbers of rows had its resamples off by a third."""
    cohort, label = clinic(3000)
    few = np.flatnonzero(label.truth_N == 1)[:300]
    rows = valid_rows(cohort, replace(label, truth_N=np.isin(np.arange(len(label.truth_N)), few).astype(float)))
    edges = bootstrap._edges(rows)
    assert np.isin(rows.rank_n[rows.truth_n], edges).all()
    assert edges[-1] == rows.rank_n.max()
    assert len(edges) <= bootstrap.NUM_BINS + 3

"""The mends of the bootstrap's variance, one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.standard_errors import cases_of, clusters_of, size_by_floor, standard_errors
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.audit_inference import cohort_of


def test_patients_are_counted_by_the_rows_that_matter():
    cohort = cohort_of([1, 1, 0, 1, 0, np.nan], np.linspace(0, 1, 6), patients=[0, 0, 0, 1, 2, 3], sex=list("FFFMMM"))
    found = clusters_of(cohort, cohort.labels[0])
    np.testing.assert_allclose(found.any_G, [25 / 11, 1, 2])  # rows 3, 1, 1
    np.testing.assert_allclose(found.positive_G, [9 / 5, 1, 1])
    np.testing.assert_allclose(found.negative_G, [2, 1, 1])


def test_equal_rows_count_as_so_many_patients_and_none_as_none():
    cohort = cohort_of(np.tile([0, 1], 10), np.linspace(0, 1, 20), patients=np.repeat(np.arange(10), 2))
    assert clusters_of(cohort, cohort.labels[0]).any_G[0] == pytest.approx(10)
    nobody = cohort_of([0, 0], [0.1, 0.2])
    assert clusters_of(nobody, nobody.labels[0]).positive_G[0] == 0


def test_the_mean_of_few_patients_has_the_textbook_variance():
    rng = np.random.default_rng(0)
    score = rng.random(8)
    cohort = cohort_of(rng.integers(0, 2, 8), score)
    found = evaluate(cohort, cohort.labels[0], draw_weights(8, 20_000, seed=0), metrics=["prevalence"])
    errors = standard_errors(found, "prevalence", clusters_of(cohort, cohort.labels[0]))
    assert errors.variance_G[0] == pytest.approx(cohort.labels[0].truth_N.var(ddof=1) / 8, rel=0.05)
    assert errors.df_G[0] == pytest.approx(7)


@pytest.mark.parametrize("metric", ["tpr", "fpr", "ppv", "npv", "accuracy", "underdiagnosis", "overdiagnosis", "auroc"])
def test_no_rate_is_certain(metric: str):
    truth = np.tile([0, 1], 30)
    cohort = cohort_of(truth, truth.astype(float), group=np.repeat(["few", "many"], [10, 50]))
    found = evaluate(cohort, cohort.labels[0], draw_weights(60, 200, seed=0), threshold=0.5)
    errors = standard_errors(found, metric, clusters_of(cohort, cohort.labels[0]))
    assert np.nanmax(errors.bootstrap_G) == 0
    assert (errors.variance_G > 1e-5).all()
    assert errors.variance_G[1] > errors.variance_G[2]


def test_underdiagnosis_counts_those_that_its_label_says():
    truth = np.r_[np.ones(10), np.zeros(90)]
    cohort = cohort_of(truth, np.full(100, 0.9))
    label = cohort.labels[0]
    found = evaluate(cohort, label, draw_weights(100, 100, seed=0), threshold=0.5)
    ill = standard_errors(found, "underdiagnosis", clusters_of(cohort, label))
    healthy = standard_errors(found, "underdiagnosis", clusters_of(cohort, replace(label, no_finding=True)))
    assert (ill.df_G[0], healthy.df_G[0]) == pytest.approx((9, 89))


def test_predictive_values_without_the_selection_rate_have_no_floor_but_an_error():
    rng = np.random.default_rng(0)
    cohort = cohort_of(rng.integers(0, 2, 100), rng.random(100))
    weights, clusters = draw_weights(100, 300, seed=0), clusters_of(cohort, cohort.labels[0])
    alone = evaluate(cohort, cohort.labels[0], weights, threshold=0.5, metrics=["ppv"])
    assert standard_errors(alone, "ppv", clusters).variance_G[0] > 0


@pytest.mark.parametrize("cases", [1, 10, 300])
def test_the_size_at_the_edge_turns_the_floor_back_into_cases(cases: int):
    assert size_by_floor(1.0, (cases + 1) / (cases + 2) ** 3) == pytest.approx(cases)


def test_sizes_at_the_edge_beyond_reason():
    assert size_by_floor(1.0, 1.0) == 0.5
    assert np.isnan(size_by_floor(1.0, 0.0))
    assert np.isnan(size_by_floor(1.0, float("nan")))


def test_a_rate_rests_on_what_it_is_a_share_of_and_an_area_on_the_scarcer_side():
    cohort = cohort_of(np.r_[np.ones(80), np.zeros(30)], np.tile([0.2, 0.9], 55), probability=True)
    replicates = evaluate(cohort, cohort.labels[0], draw_weights(110, 2, seed=0), threshold=0.5)
    clusters = clusters_of(cohort, cohort.labels[0])
    cases = {name: cases_of(replicates, name, clusters)[0] for name in ("tpr", "fpr", "auroc", "ppv", "accuracy")}
    assert cases == {"tpr": 80, "fpr": 30, "auroc": 30, "ppv": 55, "accuracy": 110}

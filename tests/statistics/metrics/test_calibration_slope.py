from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.statistics.metrics.calibration import fit, fit_all, fit_in_the_large, logits
from medclip.statistics.resampling.bootstrap import MANY_ROWS, evaluate
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.bootstrap import cohort_of

NAMES = ["calibration_intercept", "calibration_slope"]
LARGE = "calibration_in_the_large"


def clustered(rng: np.random.Generator, num_patients: int, slope: float = 0.7):
    """Scores of which the true calibration has intercept −0.3 and the slope given."""
    patients = np.repeat(np.arange(num_patients), rng.integers(1, 5, num_patients))
    z = rng.normal(-0.5, 1.2, len(patients)) + rng.normal(0, 0.7, num_patients)[patients]
    truth = rng.random(len(z)) < 1 / (1 + np.exp(0.3 - slope * z))
    groups = {"sex": rng.choice(["F", "M"], num_patients)[patients]}
    return cohort_of(1 / (1 + np.exp(-z)), truth, patients, groups)


def test_intercept_and_slope_are_those_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    cohort, label = clustered(rng, 300)
    weight = rng.random(len(label.score_N)) + 0.1
    for own in (None, weight):
        theta = fit(logits(label.score_N), label.truth_N == 1, own)
        family = sm.families.Binomial()
        design = sm.add_constant(logits(label.score_N))
        reference = sm.GLM(label.truth_N, design, family=family, freq_weights=own).fit(tol=1e-14)
        assert theta == pytest.approx(reference.params, abs=1e-8)
    point = evaluate(cohort, label, draw_weights(300, 2, seed=0), metrics=NAMES).point
    assert point["calibration_slope"][0] == pytest.approx(fit(logits(label.score_N), label.truth_N == 1)[1], abs=1e-12)


def test_calibration_in_the_large_is_the_intercept_of_statsmodels_with_the_logit_as_offset() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    cohort, label = clustered(rng, 200)
    x, weight = logits(label.score_N), rng.random(len(label.score_N)) + 0.1
    for own in (None, weight):
        model = sm.GLM(label.truth_N, np.ones(len(x)), sm.families.Binomial(), offset=x, freq_weights=own)
        value = fit_in_the_large(x, label.truth_N == 1, own)
        assert value == pytest.approx(model.fit(tol=1e-14).params[0], abs=1e-8)
    point = evaluate(cohort, label, draw_weights(200, 2, seed=0), metrics=[LARGE, "observed_expected"]).point
    assert point[LARGE][0] == pytest.approx(fit_in_the_large(x, label.truth_N == 1), abs=1e-12)
    assert point["observed_expected"][0] == pytest.approx(label.truth_N.sum() / label.score_N.sum(), abs=1e-12)


def test_resamples_of_calibration_in_the_large_are_close_to_refitting_each_of_them() -> None:
    cohort, label = clustered(np.random.default_rng(4), 150)
    weights_PB = draw_weights(150, 200, seed=0)
    drawn = evaluate(cohort, label, weights_PB, metrics=[LARGE]).drawn[LARGE][0]
    x, y = logits(label.score_N), label.truth_N == 1
    refitted = np.array([fit_in_the_large(x, y, w.astype(float)) for w in weights_PB[cohort.patients_N].T])
    assert np.abs(drawn - refitted).max() < 0.1 * refitted.std()


@pytest.mark.parametrize("shift", [-2.0, 0.5])
def test_probabilities_that_are_too_high_have_a_negative_value_and_few_observed(shift: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=20_000)
    y = rng.random(len(x)) < 1 / (1 + np.exp(-x))
    assert fit_in_the_large(x - shift, y) == pytest.approx(fit_in_the_large(x, y) + shift, abs=1e-9)
    assert fit_in_the_large(x, y) == pytest.approx(0, abs=0.05)


def test_without_both_classes_there_is_no_calibration_in_the_large() -> None:
    assert np.isnan([fit_in_the_large(np.zeros(3), np.full(3, one)) for one in (True, False)]).all()
    assert np.isnan(fit_in_the_large(np.zeros(0), np.zeros(0, bool)))
    assert fit_in_the_large(np.zeros(4), np.array([True, True, True, False])) == pytest.approx(np.log(3))
    cohort, label = cohort_of([0.1, 0.3, 0.6, 0.9], [0, 0, 1, 1])  # separated: no slope, but an intercept
    point = evaluate(cohort, label, draw_weights(4, 2, seed=0)).point
    assert np.isnan(point["calibration_slope"][0])
    assert np.isfinite(point[LARGE][0])


def test_resamples_one_corrected_step_away_are_close_to_refitting_each_of_them() -> None:
    rng = np.random.default_rng(1)
    cohort, label = clustered(rng, 400)
    weights_PB = draw_weights(400, 120, seed=0)
    found = evaluate(cohort, label, weights_PB, metrics=NAMES)
    x, y = logits(label.score_N), label.truth_N == 1
    for g, inside in enumerate((np.ones(len(y), bool), *(cohort.attributes[0].codes_N == k for k in (0, 1)))):
        refitted = np.array(
            [fit(x[inside], y[inside], w.astype(float)) for w in weights_PB[cohort.patients_N[inside]].T]
        )
        for k, name in enumerate(NAMES):
            one_step = found.drawn[name][g]
            spread = refitted[:, k].std()
            assert np.abs(one_step - refitted[:, k]).max() < 0.2 * spread
            assert one_step.std() == pytest.approx(spread, rel=0.03)
            for q in (2.5, 97.5):
                assert np.percentile(one_step, q) == pytest.approx(np.percentile(refitted[:, k], q), abs=0.1 * spread)


@settings(max_examples=25)
@given(st.floats(0.2, 5.0), st.floats(-2.0, 2.0))
def test_undoing_a_distortion_of_the_logit_moves_the_fit_by_it(slope: float, shift: float) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 300)
    y = rng.random(300) < 1 / (1 + np.exp(-x))
    intercept, b = fit(x, y)
    moved_intercept, moved_b = fit(slope * x + shift, y)
    assert moved_b == pytest.approx(b / slope, rel=1e-6)
    assert moved_intercept == pytest.approx(intercept - b * shift / slope, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 1]),
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]),
        ([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0]),
        ([0.1, 0.2, 0.2, 0.4], [0, 0, 1, 1]),
        ([0.2, 0.2, 0.2], [0, 1, 1]),
        ([], []),
    ],
)
def test_there_is_no_slope_without_an_overlap_of_the_classes(x: list[float], y: list[int]) -> None:
    assert np.isnan(fit(np.array(x), np.array(y, bool))).all()


def test_a_resample_without_one_class_has_no_slope() -> None:
    cohort, label = cohort_of([0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1])
    weights_PB = np.array([[1, 0], [2, 0], [1, 2], [0, 2]], np.uint8)
    drawn = evaluate(cohort, label, weights_PB, metrics=NAMES).drawn["calibration_slope"]
    assert np.isfinite(drawn[0]).tolist() == [True, False]


def test_probabilities_of_0_and_1_do_not_count_for_the_slope_and_do_for_everything_else() -> None:
    score, truth = np.array([0.0, 0.3, 0.6, 0.4, 0.7, 1.0, 0.0, 1.0]), np.array([0, 1, 0, 0, 1, 1, 1, 0])
    inside = (score > 0) & (score < 1)
    weights_PB = draw_weights(8, 5, seed=0)
    of_all, of_some = (
        evaluate(*cohort_of(s, y), w, metrics=(*NAMES, "calibration_in_the_large", "brier"))
        for s, y, w in (
            (score, truth, weights_PB),
            (score[inside], truth[inside], weights_PB[inside]),
        )
    )
    for name in NAMES:
        assert of_all.point[name] == pytest.approx(of_some.point[name])
        np.testing.assert_allclose(of_all.drawn[name], of_some.drawn[name])
    assert of_all.point["brier"][0] == pytest.approx(np.mean((score - truth) ** 2))
    assert of_all.point["calibration_in_the_large"][0] != of_some.point["calibration_in_the_large"][0]


def test_one_ill_patient_with_a_score_of_0_does_not_decide_the_slope() -> None:
    rng = np.random.default_rng(0)
    score = rng.beta(2, 3, 600)
    cohort, label = cohort_of([*score, 0.0], [*(rng.random(600) < score), 1])
    clipped = fit_all(np.clip(logits(label.score_N), -16, 16), label.truth_N == 1)[1]
    point = evaluate(cohort, label, draw_weights(601, 2, seed=0), metrics=NAMES).point["calibration_slope"][0]
    assert point == pytest.approx(1, abs=0.1)
    assert clipped < 0.85


def test_many_rows_in_bins_leave_probabilities_of_0_and_1_out_as_few_rows_do() -> None:
    rng = np.random.default_rng(0)
    num = MANY_ROWS + 1000
    score = np.round(rng.beta(0.6, 1.2, num), 2)
    truth = rng.random(num) < 0.1 + 0.8 * score
    cohort, label = cohort_of(score, truth)
    inside = (score > 0) & (score < 1)
    assert 0.01 < (~inside).mean() < 0.2
    weights_PB = draw_weights(num, 3, seed=0)
    binned = evaluate(cohort, label, weights_PB, metrics=NAMES)
    part = evaluate(*cohort_of(score[inside], truth[inside]), weights_PB[inside], metrics=NAMES)
    for name in NAMES:
        assert binned.point[name] == pytest.approx(part.point[name])
        np.testing.assert_allclose(binned.drawn[name], part.drawn[name], atol=2e-4)


@pytest.mark.golden
def test_the_published_slope_and_intercept(golden: Path) -> None:
    with np.load(golden / "calibration.npz") as g:
        test = slice(int(g["n_val"]), None)
        cohort, label = cohort_of(g["bin_prob"][test], g["bin_y"][test])
        point = evaluate(cohort, label, np.ones((len(label.score_N), 1), np.uint8)).point
        assert point["calibration_slope"][0] == pytest.approx(float(g["cox_slope_test"]), abs=1e-5)
        assert point["calibration_intercept"][0] == pytest.approx(float(g["cox_intercept_test"]), abs=1e-5)
        assert point["ece"][0] == pytest.approx(float(g["bin_raw_ece15"]), abs=1e-6)
        assert point["brier"][0] == pytest.approx(float(g["bin_raw_brier"]), abs=1e-9)

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medclip.errors import MedclipError
from medclip.statistics.cohort import Label, cell_rows, cells_of
from medclip.statistics.metrics.concordance import at_horizon, concordance, kaplan_meier
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.bootstrap import cohort_of


def by_pairs(time: Any, event: Any, score: Any, weight: Any = None) -> float:
    """Look at each ordered pair (i had the event, j went on for longer)."""
    weight = np.ones(len(time)) if weight is None else weight
    won = met = 0.0
    for i, j in product(range(len(time)), repeat=2):
        if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
            met += weight[i] * weight[j]
            won += weight[i] * weight[j] * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    return won / met if met else np.nan


@settings(max_examples=40)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 30), st.just(5)), elements=st.integers(0, 5)))
def test_the_index_of_every_group_and_resample_is_that_of_all_pairs(data: np.ndarray) -> None:
    time, event, score, group = data[:, 0].astype(float), data[:, 1] % 2, data[:, 2] / 5, data[:, 3] % 3
    patients = np.unique(data[:, 4], return_inverse=True)[1]
    cohort, label = cohort_of(score, event, patients, {"site": group}, time_N=time)
    weights_PB = draw_weights(cohort.num_patients, 3, seed=0)
    found = evaluate(cohort, label, weights_PB)
    assert list(found.point) == ["c_index"]
    for g, cell in enumerate(cells_of(cohort)):
        inside = cell_rows(cohort, cell)
        rows = (time[inside], event[inside], score[inside])
        np.testing.assert_allclose(found.point["c_index"][g], by_pairs(*rows), rtol=0, atol=1e-12)
        for b in range(3):
            repeats = weights_PB[patients[inside], b]
            expected = by_pairs(*(np.repeat(values, repeats) for values in rows))
            np.testing.assert_allclose(found.drawn["c_index"][g, b], expected, rtol=0, atol=1e-12)


def test_a_perfect_order_is_1_a_constant_score_one_half_a_reversed_order_0() -> None:
    time = np.arange(1.0, 40.0)
    event = np.arange(39) % 3 != 0
    assert concordance(time, event, -time)[0] == 1
    assert concordance(time, event, np.zeros(39))[0] == 0.5
    assert concordance(time, event, time)[0] == 0
    assert np.isnan(concordance(time, np.zeros(39), time)[0])


def test_rows_weights_weight_the_pairs() -> None:
    rng = np.random.default_rng(0)
    time, event, score = rng.integers(0, 9, 40).astype(float), rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 9
    own = rng.random(40)
    cohort, label = cohort_of(score, event, time_N=time, weight_N=own)
    found = evaluate(cohort, label, np.ones((40, 1), np.uint8)).drawn["c_index"][0, 0]
    assert found == pytest.approx(by_pairs(time, event, score, own), abs=1e-12)


def test_unos_weights_are_the_inverse_square_of_not_being_censored() -> None:
    rng = np.random.default_rng(1)
    time, event, score = rng.integers(0, 12, 50).astype(float), rng.random(50) < 0.5, rng.random(50)
    free = kaplan_meier(time, ~event, time, before=True, others_first=True)
    won = met = 0.0
    for i, j in product(range(50), repeat=2):
        if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
            met += free[i] ** -2
            won += free[i] ** -2 * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    assert concordance(time, event, score, kind="uno")[0] == pytest.approx(won / met, abs=1e-12)


def test_the_estimate_of_staying_free_is_the_product_over_moments() -> None:
    time, event = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([True, True, False, False, True])
    assert kaplan_meier(time, event, np.array([0.5, 1, 2, 3, 4])).tolist() == pytest.approx([1, 0.8, 0.6, 0.6, 0])
    assert kaplan_meier(time, event, np.array([1.0, 2.0]), before=True).tolist() == pytest.approx([1, 0.8])
    # censoring at 2 happens after the event at 2, so three rows were at risk of it
    free = kaplan_meier(time, ~event, np.array([2.0, 3.0]), others_first=True)
    assert free.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_statsmodels_agrees_on_the_estimate() -> None:
    from statsmodels.duration.survfunc import SurvfuncRight

    rng = np.random.default_rng(2)
    time, event = rng.integers(1, 20, 200).astype(float), rng.random(200) < 0.4
    reference = SurvfuncRight(time, event.astype(int))
    found = kaplan_meier(time, event, np.asarray(reference.surv_times))
    np.testing.assert_allclose(found, reference.surv_prob, rtol=0, atol=1e-12)


def horizon_label(**changed: Any) -> Label:
    label = Label(
        "cancer",
        np.array([0.9, 0.2, 0.5, 0.4, 0.3, 0.1]),
        np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]),
        time_N=np.array([1.0, 2.0, 3.0, 3.0, 5.0, 6.0]),
    )
    return replace(label, **changed)


def test_a_horizon_makes_a_binary_label_of_those_whose_state_is_known_then() -> None:
    made = at_horizon(horizon_label(), 3)
    assert made.name == "cancer by 3"
    assert made.time_N is None
    np.testing.assert_array_equal(made.truth_N, [1, np.nan, 0, 1, 0, 0])  # the second was lost before
    free = 1 - 1 / 5  # one of the five at risk at 2 was lost
    assert made.weight_N == pytest.approx([1, 0, 1 / free, 1 / free, 1 / free, 1 / free])
    # the known rows stand for all six
    assert made.weight_N.sum() == pytest.approx(6)
    doubled = at_horizon(horizon_label(weight_N=np.full(6, 2.0)), 3)
    assert doubled.weight_N == pytest.approx(2 * made.weight_N)


def test_weighting_undoes_censoring() -> None:
    rng = np.random.default_rng(3)
    num = 40_000
    risk = rng.random(num)
    onset, lost = rng.exponential(4 / (0.2 + risk)), rng.exponential(6, num)
    label = Label("cancer", risk, (onset <= lost).astype(float), time_N=np.minimum(onset, lost))
    made = at_horizon(label, 5)
    cohort, _ = cohort_of(risk, np.zeros(num))
    metrics = ["prevalence", "brier", "auroc"]
    once = np.ones((num, 1), np.uint8)
    found = evaluate(cohort, made, once, metrics=metrics).point
    truth = evaluate(cohort, replace(made, truth_N=(onset <= 5).astype(float), weight_N=None), once, metrics=metrics)
    for name in metrics:
        assert found[name][0] == pytest.approx(truth.point[name][0], abs=0.012), name
    naive = evaluate(cohort, replace(made, weight_N=None), once, metrics=metrics).point
    assert abs(naive["prevalence"][0] - truth.point["prevalence"][0]) > 0.03


def test_a_horizon_that_nobody_reached_is_refused_and_so_is_a_label_without_times() -> None:
    with pytest.raises(MedclipError, match="nobody was followed to 7"):
        at_horizon(horizon_label(), 7)
    with pytest.raises(MedclipError, match="needs a label with times"):
        at_horizon(horizon_label(time_N=None), 3)
    with pytest.raises(MedclipError, match="need the column"):
        concordance([1, 2], [1, 1], np.zeros((2, 3)))


@pytest.mark.golden
def test_the_published_concordance_of_risks_that_change_with_the_horizon(golden: Path) -> None:
    with np.load(golden / "mv_mlm_risk_head_and_cindex.npz") as g:
        time, event, risk = g["cidx_time"], g["cidx_event"], g["cidx_pred"]
        for kind, key in (("harrell_td", "cidx_upstream_unweighted"), ("mirai_compat", "cidx_upstream_weighted")):
            found = concordance(time, event, risk, kind=kind, columns_N=time)[0]
            assert found == pytest.approx(float(g[key]), abs=1e-9), kind
        plain = concordance(time, event, risk[:, 0])[0]
        assert plain == pytest.approx(by_pairs(time, event, risk[:, 0]), abs=1e-12)


def test_at_equal_times_events_leave_before_the_censored():
    time, event, risk = [1, 2, 2, 3, 4], [1, 1, 0, 1, 0], [5, 4, 3, 1, 2]
    # Censored at 2 are those without the event there: 1 of 3 at risk, so that G(3-) = 2/3; G is 1 before. Of 8 pairs
    # that of the times 3 and 4 is lost, and counts 1/(2/3)^2.
    np.testing.assert_allclose(concordance(time, event, risk, kind="uno"), 7 / (7 + 2.25))

"""Risks by year: cases and controls, the two populations, and concordance of risks that change with the year."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.statistics.cohort import Attribute, Cohort, Risk
from medclip.statistics.metrics.concordance import concordance
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.yearly_risk import (
    METRICS,
    POPULATIONS,
    column_of,
    of_population,
    person_months,
    yearly_figures,
)

NONE = np.nan
YEARS = (1, 2, 3, 4, 5)


def risk_of(num: int = 400, seed: int = 0) -> tuple[Cohort, Risk]:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=num)
    event, end = rng.exponential(60 * np.exp(-score)), rng.uniform(1, 84, num)
    event = np.where(rng.random(num) < 0.1, rng.uniform(0, 6, num), event + 7)
    seen = event <= end
    chance = 1 - np.exp(-np.arange(1, 6) * np.exp(score)[:, None] / 5)
    chance[np.arange(num) % 41 == 0] = NONE  # not scored
    months = np.ceil(np.where(seen, event, NONE)), np.where(seen, np.maximum(end, np.ceil(event)), np.floor(end))
    groups = Attribute("site", ("a", "b"), (rng.random(num) < 0.3).astype(np.int16))
    return Cohort(np.arange(num, dtype=np.int32), (), (groups,)), Risk("cancer", chance, YEARS, *months)


def test_cases_had_it_by_the_end_of_the_year_and_controls_were_followed_to_it() -> None:
    cohort, risk = risk_of()
    figures = {(f.population, f.year): f for f in yearly_figures(cohort, risk, draw_weights(400, 20, seed=0))}
    assert set(figures) == {(population, year) for population in POPULATIONS for year in range(6)}
    scored = ~np.isnan(risk.risk_NK).any(axis=1)
    for population in POPULATIONS:
        early = risk.event_months_N <= 6
        inside = scored & ~early if population == "risk" else scored
        for year in range(1, 6):
            cases = inside & (risk.event_months_N <= 12 * year)
            controls = inside & ~cases & (risk.time_N >= 12 * year)
            known = cases | controls
            one = figures[population, year]
            assert (one.label.truth_N == 1).sum() == cases.sum()
            assert (one.label.truth_N == 0).sum() == controls.sum()
            wanted = auroc(risk.risk_NK[known, year - 1], cases[known])
            assert one.estimates["auroc"][0].value == pytest.approx(float(wanted), abs=1e-12)
            for g in (0, 1):
                own = known & (cohort.attributes[0].codes_N == g)
                wanted = auroc(risk.risk_NK[own, year - 1], cases[own])
                assert one.estimates["auroc"][1 + g].value == pytest.approx(float(wanted), abs=1e-12)
    assert {m for f in figures.values() for m in f.estimates} == set(METRICS)


def test_the_top_tenth_is_one_of_all_women_also_where_many_left_before_the_end_of_the_year() -> None:
    rng = np.random.default_rng(0)
    num = 8_000
    hazard = 0.03 / 12 * np.exp(0.8 * rng.normal(size=num))
    event, end = np.ceil(rng.exponential(1 / hazard)) + 6, rng.integers(0, 84, num)
    chance = 1 - np.exp(-hazard[:, None] * 12 * np.arange(1, 6))
    top = chance[:, 4] >= np.quantile(chance[:, 4], 0.9)
    truth = (top & (event <= 60)).sum() / (event <= 60).sum()
    months = np.where(event <= end, event, NONE), np.minimum(event, end)
    cohort = Cohort(np.arange(num, dtype=np.int32), (), ())
    *_, last = (
        f
        for f in yearly_figures(cohort, Risk("cancer", chance, YEARS, *months), draw_weights(num, 20, seed=0))
        if f.population == "risk"
    )
    # of the known rows alone the tenth would be a smaller one: 0.05 less
    estimate = last.estimates["tpr_of_top"][0]
    assert estimate.value == pytest.approx(truth, abs=0.02)
    assert estimate.low < estimate.value < estimate.high


def test_each_row_becomes_the_months_it_was_followed_with_the_risk_of_such_a_month() -> None:
    event, end = np.array([15.0, NONE, NONE, 30.0, NONE]), np.array([15.0, 18.0, 7.5, 40.0, NONE])
    chance = np.tile([0.1, 0.28], (5, 1))  # of those without an event in the first year a fifth has one in the second
    cohort = Cohort(np.arange(5, dtype=np.int32), (), ())
    months, label = person_months(cohort, Risk("cancer", chance, (1, 2), event, end), 1)
    there = label.valid_N
    assert label.weight_N is not None
    columns = (months.patients_N, label.truth_N, label.weight_N, label.score_N.round(9))
    first, second = round(1 - 0.9 ** (1 / 12), 9), round(1 - 0.8 ** (1 / 12), 9)
    assert sorted(zip(*(column[there].tolist() for column in columns), strict=True)) == [
        (0, 0.0, 2.0, second),
        (0, 0.0, 12.0, first),
        (0, 1.0, 1.0, second),
        (1, 0.0, 6.0, second),
        (1, 0.0, 12.0, first),
        (2, 0.0, 7.5, first),
        (3, 0.0, 12.0, first),
        (3, 0.0, 12.0, second),
    ]


def test_true_risks_are_calibrated_also_where_women_at_high_risk_leave_sooner() -> None:
    rng = np.random.default_rng(0)
    num = 10_000
    score = 0.8 * rng.normal(size=num)
    event, end = np.ceil(rng.exponential(400 * np.exp(-score))), np.floor(rng.exponential(120 * np.exp(-1.5 * score)))
    chance = 1 - np.exp(-np.arange(1, 6) * 0.03 * np.exp(score)[:, None])
    seen = event <= end
    risk = Risk("cancer", chance, YEARS, np.where(seen, event, NONE), np.where(seen, event, end))
    cohort = Cohort(np.arange(num, dtype=np.int32), (), ())
    *_, last = yearly_figures(cohort, risk, draw_weights(num, 20, seed=0))
    for metric in ("observed_expected", "calibration_slope"):
        assert last.estimates[metric][0].value == pytest.approx(1, abs=0.08)


def test_the_concordance_compares_a_pair_at_the_year_of_its_later_row() -> None:
    cohort, risk = risk_of(120, seed=1)
    crossed = risk.risk_NK * np.where(np.arange(120)[:, None] % 2, [1, 1, 1, 1, 1], [0.2, 0.5, 1, 1.5, 2])
    risk = Risk("cancer", crossed, YEARS, risk.event_months_N, risk.followup_months_N)
    own = of_population(risk, "risk")
    rows, column = np.flatnonzero(own.valid_N), column_of(own.time_N, YEARS)
    won = met = 0.0
    for i in rows[~np.isnan(own.event_months_N[rows])]:
        for j in rows:
            if own.time_N[j] > own.time_N[i] or (own.time_N[j] == own.time_N[i] and np.isnan(own.event_months_N[j])):
                mine, other = crossed[[i, j], column[j]]
                won, met = won + (mine > other) + 0.5 * (mine == other), met + 1
    first = next(iter(yearly_figures(cohort, risk, draw_weights(120, 20, seed=0))))
    assert first.estimates["c_index_harrell_td"][0].value == pytest.approx(won / met, abs=1e-12)


def test_the_column_of_a_time_is_its_year_with_the_last_month_in_it() -> None:
    months = np.array([0, 1, 12, 12.5, 13, 24, 60, 61, 200, NONE])
    assert column_of(months, YEARS).tolist() == [0, 0, 0, 1, 1, 1, 4, 4, 4, 0]
    assert column_of(months, (1, 3, 5)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0]


def test_perfect_constant_and_reversed_risks_have_concordances_of_1_a_half_and_0() -> None:
    event = np.arange(7.0, 47)
    cohort = Cohort(np.arange(40, dtype=np.int32), (), ())
    for risk, wanted in ((1 / event, 1.0), (np.full(40, 0.3), 0.5), (event / 100, 0.0)):
        first = next(
            iter(yearly_figures(cohort, Risk("x", risk[:, None], (5,), event, event), draw_weights(40, 20, seed=0)))
        )
        assert {name: e[0].value for name, e in first.estimates.items()} == pytest.approx(
            dict.fromkeys(first.estimates, wanted)
        )


def test_patients_are_resampled_not_rows() -> None:
    cohort, risk = risk_of(200, seed=2)
    twice = Cohort(np.repeat(cohort.patients_N, 2), (), ())
    values = (np.repeat(v, 2, axis=0) for v in (risk.event_months_N, risk.followup_months_N))
    doubled = Risk("cancer", np.repeat(risk.risk_NK, 2, axis=0), YEARS, *values)
    weights = draw_weights(200, 500, seed=0)
    widths = []
    for some, of in ((Cohort(cohort.patients_N, (), ()), risk), (twice, doubled)):
        one = next(iter(yearly_figures(some, of, weights))).estimates["c_index_harrell_td"][0]
        assert one.low < one.value < one.high
        widths.append(one.high - one.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_the_values_are_those_of_lifelines_and_scikit_survival() -> None:
    # lifelines 0.30.3 and scikit-survival 0.28.0, run once on these draws
    rng = np.random.default_rng(18)
    time, event = rng.integers(1, 60, 80), rng.random(80) < 0.45
    score = np.round(rng.normal(size=80) - time / 60, 1)
    assert concordance(time, event, score)[0] == pytest.approx(0.5778748180494906, abs=1e-12)
    rng = np.random.default_rng(7)  # without equal times, of which the two count censoring differently
    time, event = rng.permutation(1000)[:80] + 1.0, rng.random(80) < 0.5
    score = np.round(rng.normal(size=80) - time / 800, 1)
    assert concordance(time, event, score, kind="uno")[0] == pytest.approx(0.5736727773698754, abs=1e-12)

"""Alarms: the scanner that changed is named with its week, quiet years are as quiet as is stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.monitor_years import delays, look_at, made_pool, rate_interval
from medclip.monitoring.alarms import Alarms, alarms_of, two_sample
from medclip.monitoring.read_results import NOT_STATED, UNIT_FACTS, Periods, Question, Units, Watched
from tests.kits.size import sized

WEEKS = tuple(f"2024-W{number:02}" for number in range(1, 25))
PERIODS = Periods("week", WEEKS)


def watched(
    shift: Callable[[str, int], float] = lambda scanner, week: 0.0,
    *,
    scanners: Callable[[int], dict[str, int]] = lambda week: {"A": 20, "B": 20},
    failed: Callable[[str, int], float] = lambda scanner, week: 0.0,
    seed: int = 0,
) -> Watched:
    """One score of patients who come once, by scanner and week."""
    rng = np.random.default_rng(seed)
    rows = [
        (week, name, shift(name, week), failed(name, week))
        for week in range(len(WEEKS))
        for name, num in scanners(week).items()
        for _ in range(num)
    ]
    num = len(rows)
    logit = np.array([row[2] for row in rows]) + rng.normal(size=num)
    week = np.array([WEEKS[row[0]] for row in rows], dtype=object)
    facts = dict.fromkeys(UNIT_FACTS, np.full(num, NOT_STATED, dtype=object))
    facts |= {"scanner": np.array([row[1] for row in rows], dtype=object), "modality": np.full(num, "xray", object)}
    run, patients = np.zeros(num, np.int64), np.arange(num)
    is_failed = rng.random(num) < np.array([row[3] for row in rows])
    status = np.where(is_failed, "failed", "scored").astype(object)
    units = Units(patients, status, np.where(is_failed, "cut", ""), facts, np.full(num, np.nan), week, run)
    probability = 1 / (1 + np.exp(-logit))
    question = Question("chest", "mass", "multilabel", patients, patients, probability, logit, week, run, facts)
    return Watched(("one",), ("pack",), units, (question,), None)


def watch(results: Watched, **options: float) -> Alarms:
    return alarms_of(results, None, PERIODS, num_resamples=100, **options)  # pyright: ignore[reportArgumentType]


def test_the_scanner_that_changed_is_named_with_its_week_before_and_after() -> None:
    result = watch(watched(lambda scanner, week: 1.5 * (scanner == "B" and week >= 11)))
    leader = result.alarms[0]
    assert (leader.fact, leader.stratum, leader.subject) == ("scanner", "B", "chest: mass")
    assert leader.since == WEEKS[11]
    assert leader.period in WEEKS[11:13]
    assert leader.before < leader.after
    assert leader.low < leader.difference < leader.high
    assert {alarm.event for alarm in result.alarms} == {1}, "everything moves with it and is no second alarm"
    assert "A" not in {alarm.stratum for alarm in result.alarms}
    assert result.stand


def test_a_slow_drift_adds_up() -> None:
    result = watch(watched(lambda scanner, week: 0.08 * max(0, week - 4) * (scanner == "B")))
    assert result.alarms[0].stratum == "B"


def test_files_that_fail_at_one_scanner_are_an_alarm_of_that_scanner() -> None:
    result = watch(watched(failed=lambda scanner, week: 0.5 if scanner == "B" and week >= 11 else 0.02))
    assert (result.alarms[0].stratum, result.alarms[0].about) == ("B", "files")
    assert result.alarms[0].since == WEEKS[11]


def test_an_alarm_is_over_when_the_scanner_is_as_before_and_stands_until_then() -> None:
    results = watched(lambda scanner, week: 2.0 * (scanner == "B" and 8 <= week < 12))
    leader = watch(results).alarms[0]
    assert leader.stratum == "B"
    assert WEEKS[12] < leader.until <= WEEKS[18]
    assert not watch(results).stand


def test_everything_that_changes_at_once_is_one_alarm_of_everything() -> None:
    result = watch(watched(lambda scanner, week: 1.0 * (week >= 11)))
    assert result.alarms[0].fact == "everything"
    assert {alarm.event for alarm in result.alarms} == {1}


def test_a_scanner_that_comes_later_has_a_reference_of_its_own_and_a_note() -> None:
    def scanners(week: int) -> dict[str, int]:
        return {"A": 20, "B": 10 if week >= 8 else 0}

    results = watched(lambda scanner, week: 3.0 * (scanner == "B"), scanners=scanners)
    result = watch(results)
    assert any("scanner “B”" in note and f"goes up to {WEEKS[9]}" in note for note in result.notes)
    assert "B" not in {alarm.stratum for alarm in result.alarms}, "it was always like this"


def test_scanners_with_few_patients_are_watched_together_as_others_and_that_is_said() -> None:
    def scanners(week: int) -> dict[str, int]:
        return {"A": 20} | ({f"rare {week % 4}": 1} if week < 12 else {"rare 0": 1, "rare 1": 1})

    result = watch(watched(scanners=scanners), fewest=20)
    assert ("scanner", 2) in result.strata
    assert any("watched together as one: 4 values of scanner" in note for note in result.notes)


def test_weeks_without_a_patient_of_a_scanner_are_no_change() -> None:
    def scanners(week: int) -> dict[str, int]:
        return {"A": 20, "B": 20 if week % 3 else 0}

    assert not watch(watched(scanners=scanners, seed=1), rate=0.02).alarms


def test_later_weeks_do_not_change_what_was_seen_before() -> None:
    results = watched(lambda scanner, week: 1.5 * (scanner == "B" and week >= 11))
    question, units = results.questions[0], results.units
    early = question.week_N.astype(str) <= WEEKS[14]
    names = ("studies_N", "patients_N", "probability_N", "logit_N", "week_N", "run_N")
    cut = replace(
        question,
        **{name: getattr(question, name)[early] for name in names},
        facts={name: of[early] for name, of in question.facts.items()},
    )
    of_units = ("patients_U", "status_U", "reason_U", "distance_U", "week_U", "run_U")
    cut_units = replace(
        units,
        **{name: getattr(units, name)[early] for name in of_units},
        facts={name: of[early] for name, of in units.facts.items()},
    )
    then = alarms_of(
        replace(results, questions=(cut,), units=cut_units), None, Periods("week", WEEKS[:15]), num_resamples=100
    )
    now = watch(results)
    first = [(alarm.stratum, alarm.period) for alarm in then.alarms]
    assert first
    assert [(a.stratum, a.period) for a in now.alarms if a.period <= WEEKS[14]] == first


def test_only_the_order_of_scores_counts_not_their_scale() -> None:
    results = watched(lambda scanner, week: 1.0 * (scanner == "B" and week >= 11))
    question = results.questions[0]
    stretched = replace(results, questions=(replace(question, logit_N=np.exp(2 * question.logit_N)),))
    one, other = watch(results), watch(stretched)
    assert [a.statistic for a in one.alarms] == pytest.approx([a.statistic for a in other.alarms])


def test_fewer_false_alarms_a_year_need_more_to_alarm() -> None:
    results = watched(lambda scanner, week: 1.5 * (scanner == "B" and week >= 11))
    limits = [watch(results, rate=rate).alarms[0].limit for rate in (0.1, 1.0, 10.0)]
    assert limits == sorted(limits, reverse=True)
    assert len(set(limits)) == 3


def test_the_statistic_of_shares_is_that_of_the_likelihood_ratio_and_0_without_patients() -> None:
    from scipy.stats import chi2_contingency

    value = two_sample(np.array(200.0), np.array(6.0), np.array(30.0), np.array(5.0), 1.0, is_share=True)
    table = [[6, 194], [5, 25]]
    expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert value**2 == pytest.approx(expected)
    assert value > 0
    assert two_sample(200.0, 6.0, 0.0, 0.0, 1.0, is_share=True) == 0.0


@pytest.mark.slow
def test_a_changed_scanner_of_three_is_found_in_a_drawn_year() -> None:
    year = look_at(made_pool(), "gamma 2.2", 4, 2, before=False)
    ((weeks, is_named),) = delays([year])
    assert weeks <= 4
    assert is_named


@pytest.mark.slow
@pytest.mark.parametrize("num_reference", [4, 26])
def test_quiet_years_have_about_as_many_false_alarms_as_is_stated(num_reference: int) -> None:
    pool, years = made_pool(), sized(100, least=15)
    false = sum(len(look_at(pool, "", num_reference, seed, before=False).alarms) for seed in range(years))
    low, high = rate_interval(false, years)
    assert low <= 1.0
    assert high >= 0.5

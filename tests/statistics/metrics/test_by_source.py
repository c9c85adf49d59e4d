"""What a score gets within sources and across them."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.statistics.metrics.by_source import HOLDS, NOT_TESTABLE, WITHIN_ONLY, BySource, by_source, source_shares
from medclip.statistics.metrics.classification import measured
from medclip.statistics.metrics.ranks import auroc
from medclip.statistics.resampling.resampled import interval_of

NORTH, SOUTH = "north", "south"


def of(knows: str, num_a: tuple[int, int] = (30, 30), num_b: tuple[int, int] = (30, 30), seed: int = 0) -> BySource:
    """Two sources of so many negatives and positives, and a score that knows the finding, the source or both."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 0, 1], [*num_a, *num_b])
    sources = np.repeat([NORTH, SOUTH], [sum(num_a), sum(num_b)])
    noise = rng.normal(0, 0.5, len(labels))
    of_source = 3.0 * (sources == SOUTH)
    score = {"finding": labels + noise, "source": of_source + noise, "both": 1.5 * labels + of_source + noise}[knows]
    return by_source(labels, score, sources.tolist(), range(len(labels)), num_resamples=400)


def test_a_score_that_knows_the_finding_holds_across_sources() -> None:
    result = of("finding")
    assert result.verdict == HOLDS
    assert set(result.directions) == {(NORTH, SOUTH), (SOUTH, NORTH)}
    assert all(area.above_chance for area in result.directions.values())


def test_a_score_that_knows_the_finding_and_the_source_is_right_within_its_source_only() -> None:
    result = of("both")
    assert result.within is not None
    assert result.within.above_chance
    assert result.directions[SOUTH, NORTH].estimate.value > 0.95
    assert result.directions[NORTH, SOUTH].estimate.value < 0.1
    assert result.verdict == WITHIN_ONLY


def test_the_easy_direction_alone_does_not_show_that_a_score_holds() -> None:
    # Of the south, whose scores are higher, there are positives alone: the source would win that, too.
    result = of("both", num_b=(0, 30))
    assert set(result.directions) == {(SOUTH, NORTH)}
    assert result.directions[SOUTH, NORTH].above_chance
    assert result.verdict == WITHIN_ONLY


def test_the_hard_direction_alone_shows_it() -> None:
    rng = np.random.default_rng(1)
    labels, sources = np.repeat([0, 1, 0], 40), [NORTH] * 80 + [SOUTH] * 40
    score = 3.0 * labels + rng.normal(0, 0.3, 120) + np.repeat([0.0, 0.0, 0.5], 40)
    result = by_source(labels, score, sources, range(120), num_resamples=400)
    assert set(result.directions) == {(NORTH, SOUTH)}
    assert result.higher[NORTH, SOUTH] > 0.5
    assert result.verdict == HOLDS


def test_a_score_that_tells_nothing_within_one_of_its_sources_does_not_hold() -> None:
    # The south lies between the negatives and the positives of the north: every direction is won, and so is the pool.
    rng = np.random.default_rng(7)
    labels, sources = np.repeat([0, 1, 0, 1], [80, 80, 20, 20]), [NORTH] * 160 + [SOUTH] * 40
    score = np.repeat([0.0, 2.0, 1.0], [80, 80, 40]) + rng.normal(0, 0.2, 200)
    result = by_source(labels, score, sources, range(200), num_resamples=400)
    assert result.within is not None
    assert result.within.above_chance
    assert all(area.above_chance for area in result.directions.values())
    assert not result.of_source[SOUTH].above_chance
    assert (result.verdict, result.held_in) == (WITHIN_ONLY, (NORTH,))


def test_one_source_or_too_few_patients_of_another_cannot_be_tested() -> None:
    assert of("finding", num_b=(0, 0)).verdict == NOT_TESTABLE
    assert of("finding", num_b=(2, 2)).verdict == NOT_TESTABLE
    assert of("finding", num_b=(0, 0)).alone is None
    assert set(of("finding", num_b=(0, 0)).figures()) == {"pooled"}


def test_where_no_source_has_both_sides_the_finding_cannot_be_told_from_the_source() -> None:
    result = of("finding", num_a=(40, 0), num_b=(0, 40))
    assert result.across is not None
    assert result.across.above_chance
    assert (result.within, result.verdict, result.held_in) == (None, NOT_TESTABLE, (NORTH, SOUTH))


def test_areas_are_those_of_the_pairs_they_name() -> None:
    rng = np.random.default_rng(2)
    labels, score = rng.integers(0, 2, 90), rng.normal(size=90).round(1)  # with ties
    sources = rng.choice([NORTH, SOUTH, "west"], 90)
    result = by_source(labels, score, sources.tolist(), range(90), num_resamples=50)
    won = {True: 0.0, False: 0.0}
    pairs = {True: 0, False: 0}
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            same = bool(sources[i] == sources[j])
            pairs[same] += 1
            won[same] += 0.5 * (float(score[i] > score[j]) + float(score[i] >= score[j]))
    assert result.within is not None
    assert result.across is not None
    assert result.within.estimate.value == pytest.approx(won[True] / pairs[True])
    assert result.across.estimate.value == pytest.approx(won[False] / pairs[False])
    rows = np.flatnonzero(((sources == NORTH) & (labels == 1)) | ((sources == SOUTH) & (labels == 0)))
    direct = float(auroc(score[rows], labels[rows] == 1))
    assert result.directions[NORTH, SOUTH].estimate.value == pytest.approx(direct)


def test_the_pooled_area_and_its_interval_are_those_of_every_other_verb() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 80)
    score, patients = labels + rng.normal(0, 1, 80), (np.arange(80) // 2).tolist()
    ours = by_source(labels, score, ["a"] * 80, patients).pooled
    house = interval_of(measured(labels, score, patients, ["auroc"])["auroc"])
    assert ours is not None
    assert ours.estimate.value == pytest.approx(house.value)
    assert (ours.estimate.low, ours.estimate.high) == pytest.approx((house.low, house.high), abs=1e-6)
    assert ours.num_patients == 40


def test_the_source_alone_gets_what_its_shares_of_positives_say() -> None:
    result = of("finding", num_a=(40, 10), num_b=(10, 40))
    assert result.alone is not None
    assert result.alone.estimate.value == pytest.approx(0.8, abs=0.02)  # 0.8² and half of 2 · 0.8 · 0.2
    even = of("finding")
    assert even.alone is not None
    assert even.alone.estimate.value < 0.6


def test_a_share_of_a_source_is_learned_on_other_patients() -> None:
    positive, fold = np.array([True, False, False, False]), np.array([0, 0, 1, 1])
    codes = np.array(["a", "a", "a", "b"])
    shares = source_shares(positive, np.ones(4, bool), codes, fold)
    # Fold 0 learns a from the row of fold 1; fold 1 learns a from two rows, and b, unseen there, from all of them.
    assert shares.tolist() == [0.0, 0.0, 0.5, 0.5]


def test_several_classes_are_the_mean_over_those_that_have_patients_on_both_sides() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2, 0, 1], 20)
    sources = [NORTH] * 60 + [SOUTH] * 40
    logits = 6.0 * np.eye(3)[labels] + rng.normal(0, 1, (100, 3))
    result = by_source(labels, logits, sources, range(100), num_resamples=200)
    assert result.verdict == HOLDS
    assert set(result.of_source) == {NORTH, SOUTH}
    assert result.directions[SOUTH, NORTH].num_positive == 40
    assert result.pooled is not None
    assert result.pooled.estimate.value > 0.95


def test_a_class_of_one_source_alone_shows_nothing_across_sources() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 1, 2, 3, 0], 20)  # the north has two, the south two others, and the west one of the north's
    logits = 8.0 * np.eye(4)[labels] + rng.normal(0, 1, (100, 4))
    sources = [NORTH] * 40 + [SOUTH] * 40 + ["west"] * 20
    result = by_source(labels, logits, sources, range(100), num_resamples=100)
    assert result.directions == {}
    assert result.verdict == NOT_TESTABLE
    assert result.alone is not None
    assert result.alone.above_chance


def test_figures_are_in_the_form_of_cards() -> None:
    figures = of("both").figures()
    assert list(figures)[:4] == ["pooled", "within sources", "across sources", "source alone"]
    assert set(figures["within north"]) == {
        "value",
        "low",
        "high",
        "chance",
        "num_positive",
        "num_negative",
        "num_patients",
    }
    assert f"positives of {NORTH}, negatives of {SOUTH}" in figures


def test_of_many_directions_the_lowest_alone_is_written() -> None:
    rng = np.random.default_rng(5)
    labels, sources = rng.integers(0, 2, 160), np.repeat(list("abcd"), 40)
    score = labels + rng.normal(0, 0.5, 160) - 3.0 * (sources == "d")
    result = by_source(labels, score, sources.tolist(), range(160), num_resamples=100)
    (name,) = [name for name in result.figures() if "positives of" in name]
    assert name.startswith("lowest of 12 directions: positives of d, negatives of ")
    assert result.figures()[name]["value"] == min(round(a.estimate.value, 4) for a in result.directions.values())

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medclip.statistics.metrics.ranks import areas, contest, cumulated
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.sums import blocks
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.bootstrap import cohort_of


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 70), st.integers(1, 9)), elements=st.integers(0, 9)))
def test_cumulated_sums_are_those_of_numpy(sums: np.ndarray) -> None:
    expected = np.concatenate([np.zeros((1, sums.shape[1])), np.cumsum(sums, axis=0)])
    assert (cumulated(sums) == expected).all()


def test_negatives_between_two_positives_are_summed_and_neighbouring_positives_merged() -> None:
    # ranks: − − + + − ±(tied) −
    positives, negatives = np.array([2, 3, 5]), np.array([0, 1, 4, 5, 6])
    ids = np.arange(8, dtype=np.int32)
    sides = (positives, (ids[:3], None), negatives, (ids[3:], None), 8)
    merged, stepped = contest(*sides, steps=False), contest(*sides, steps=True)
    assert merged.positive.shape == (2, 8)
    assert stepped.positive.shape == (3, 8)
    assert merged.negative.shape == (4, 8)
    block = next(blocks(np.ones((8, 1), np.uint8), 8, True))
    for match, steps in ((merged, False), (stepped, True)):
        found = areas(match, block, steps=steps)
        assert found.won_b[0] == 2 + 2 + 3.5
        assert found.auroc_b[0] == 7.5 / 15


def test_the_example_of_the_specification() -> None:
    cohort, label = cohort_of([0.9, 0.7, 0.4, 0.6, 0.4, 0.1], [1, 1, 1, 0, 0, 0])
    found = evaluate(cohort, label, np.ones((6, 1), np.uint8), metrics=["auroc"])
    assert found.point["auroc"][0] == pytest.approx(0.833333, abs=1e-6)


def test_a_rising_transformation_changes_no_area() -> None:
    rng = np.random.default_rng(0)
    score, truth = rng.random(90), rng.integers(0, 2, 90)
    weights_PB = draw_weights(30, 9, seed=0)
    names = ["auroc", "auprc", "auroc_bpsn", "auroc_bnsp"]
    groups = {"sex": rng.choice(["F", "M"], 90)}
    first = evaluate(*cohort_of(score, truth, np.arange(90) // 3, groups), weights_PB, metrics=names)
    second = evaluate(*cohort_of(score**3, truth, np.arange(90) // 3, groups), weights_PB, metrics=names)
    for name in names:
        np.testing.assert_array_equal(first.drawn[name], second.drawn[name])


def test_two_groups_swap_their_crossed_areas() -> None:
    rng = np.random.default_rng(1)
    cohort, label = cohort_of(rng.random(60), rng.integers(0, 2, 60), groups={"sex": rng.choice(["F", "M"], 60)})
    point = evaluate(cohort, label, np.ones((60, 1), np.uint8)).point
    # positives of the others against negatives of F = positives of M against negatives of the others
    assert point["auroc_bpsn"][1] == point["auroc_bnsp"][2]
    assert point["auroc_bnsp"][1] == point["auroc_bpsn"][2]
    assert np.isnan(point["auroc_bpsn"][0])


def test_positives_between_the_same_negatives_stay_apart_where_one_of_them_is_tied() -> None:
    # ranks: ±(tied) + + − + +
    positives, negatives = np.array([0, 1, 2, 4, 5]), np.array([0, 3])
    ids = np.arange(7, dtype=np.int32)
    block = next(blocks(np.ones((7, 1), np.uint8), 7, True))
    match = contest(positives, (ids[:5], None), negatives, (ids[5:], None), 7, steps=False)
    assert match.positive.shape == (3, 7)
    assert areas(match, block, steps=False).won_b[0] == 0.5 + 1 + 1 + 2 + 2

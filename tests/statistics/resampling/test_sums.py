from __future__ import annotations

import numpy as np
import pytest

from medclip.statistics.resampling import sums as module
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.sums import blocks, summing_matrix
from medclip.statistics.resampling.weights import draw_weights
from tests.kits.bootstrap import random_cohort


def test_sums_are_those_of_a_loop_over_rows() -> None:
    rng = np.random.default_rng(0)
    groups, patients, values = rng.integers(0, 4, 50), rng.integers(0, 9, 50), rng.random(50)
    weights_PB = draw_weights(9, 13, seed=0)
    for block in blocks(weights_PB, 50, True, width=5):
        inside = slice(block.start, block.start + block.num)
        for value, tolerance in ((None, 0), (values, 1e-14)):
            found = block.sums(summing_matrix(groups, 4, patients, 9, value))[:, : block.num]
            each = weights_PB[patients, inside] * (1.0 if value is None else value[:, None])
            expected = np.stack([each[groups == g].sum(axis=0) for g in range(4)])
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_blocks_cover_each_replicate_once_and_pad_with_zeros() -> None:
    weights_PB = draw_weights(6, 21, seed=0)
    made = list(blocks(weights_PB, 6, True, width=8))
    assert [(b.start, b.num) for b in made] == [(0, 8), (8, 8), (16, 5)]
    assert (np.concatenate([b.weights_Pb[:, : b.num] for b in made], axis=1) == weights_PB).all()
    assert not made[-1].weights_Pb[:, 5:].any()


@pytest.mark.parametrize(
    ("weights", "whole", "kind"), [(3, True, np.float32), (3, False, np.float64), (0.5, True, np.float64)]
)
def test_single_precision_is_used_only_while_sums_are_exact(weights: float, whole: bool, kind: type) -> None:
    weights_PB = np.full((2, 1), weights) if isinstance(weights, float) else np.full((2, 1), weights, np.uint8)
    assert next(blocks(weights_PB, 1000, whole)).weights_Pb.dtype == kind
    assert next(blocks(weights_PB, 3_000_000, whole)).weights_Pb.dtype == np.float64


def test_the_precision_of_whole_sums_does_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, label = random_cohort(np.random.default_rng(1), 60)
    weights_PB = draw_weights(60, 20, seed=0)
    single = evaluate(cohort, label, weights_PB, threshold=0.5)
    monkeypatch.setattr(module, "_SINGLE_EXACT", 0)
    double = evaluate(cohort, label, weights_PB, threshold=0.5)
    for name, values in single.drawn.items():
        assert values.tobytes() == double.drawn[name].tobytes(), name

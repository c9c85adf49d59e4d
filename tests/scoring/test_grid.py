"""Scores lie on a grid: what moves with the shape of a batch, and what does not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from medclip.api.score import score
from medclip.scoring.exam_scores import LOGIT_STEP, PROBABILITY_STEP, logit_on_grid, probability_on_grid

PROBABILITIES = st.floats(0, 1)


@given(PROBABILITIES, st.floats(-4.5e-8, 4.5e-8))
def test_a_change_of_the_last_bits_moves_a_probability_by_one_step_or_not_at_all(value: float, change: float) -> None:
    steps = round((probability_on_grid(value + change) - probability_on_grid(value)) / PROBABILITY_STEP)
    assert steps in (-1, 0, 1)
    to_an_edge = abs((value / PROBABILITY_STEP) % 1 - 0.5) * PROBABILITY_STEP
    if to_an_edge > 5e-8:
        assert steps == 0


@given(PROBABILITIES, PROBABILITIES)
def test_the_grid_keeps_order_and_bounds(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= probability_on_grid(low) <= probability_on_grid(high) <= 1
    assert logit_on_grid(low) <= logit_on_grid(high)


@given(st.floats(-1e6, 1e6))
def test_what_is_on_the_grid_stays_and_no_zero_is_negative(value: float) -> None:
    stored = logit_on_grid(value)
    assert logit_on_grid(stored) == stored
    assert abs(stored - value) <= 0.51 * LOGIT_STEP
    assert stored != 0 or math.copysign(1, stored) == 1


def test_the_shape_of_a_batch_moves_a_table_by_one_step_at_most(pack: Path, studies: Path, tmp_path: Path) -> None:
    tables = []
    for size in (4, 1, 3):
        run = score(studies, tmp_path / str(size), model=pack, workers=1, batch_size=size)
        tables.append(run.scores)
    assert tables[0].num_rows > 4
    for column, step in (("probability", PROBABILITY_STEP), ("logit", LOGIT_STEP)):
        values = [_floats(table, column) for table in tables]
        np.testing.assert_allclose(values[0] / step, np.rint(values[0] / step), rtol=0, atol=1e-4)
        for other in values[1:]:
            np.testing.assert_allclose(other, values[0], rtol=0, atol=1.01 * step)
    others = [name for name in tables[0].column_names if name not in ("probability", "logit")]
    spreads = ("logit_spread", "probability_spread")
    plain = [name for name in others if name not in spreads]
    assert all(table.select(plain).equals(tables[0].select(plain)) for table in tables[1:])


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return table.column(column).to_numpy().astype(np.float64)

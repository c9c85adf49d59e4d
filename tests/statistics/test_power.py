"""The Wilson intervals of the spec, and the smallest gap against simulation of its own promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from medclip.errors import MedclipError
from medclip.statistics.resampling.intervals import wilson
from medclip.statistics.significance import smallest_gap


@pytest.mark.parametrize(
    ("positives", "ends"),
    [(30, (0.627, 0.905)), (50, (0.670, 0.888)), (100, (0.711, 0.867)), (200, (0.739, 0.850)), (400, (0.758, 0.836))],
)
def test_wilson_intervals_are_those_of_the_spec(positives: int, ends: tuple[float, float]):
    assert tuple(map(float, wilson(0.8, positives, 1.96))) == pytest.approx(ends, abs=5e-4)


def test_the_smallest_gap_is_found_with_the_promised_power():
    gap = float(smallest_gap(0.1))
    assert gap == pytest.approx(0.28016, abs=1e-5)
    chance = norm.sf(norm.isf(0.025) - gap / 0.1) + norm.cdf(-norm.isf(0.025) - gap / 0.1)
    assert chance == pytest.approx(0.8, abs=1e-4)


def test_more_tests_and_fewer_patients_make_the_smallest_gap_larger():
    assert smallest_gap(0.1, num_tests=100) > smallest_gap(0.1)
    assert smallest_gap(0.1, degrees_of_freedom=5) > smallest_gap(0.1)
    np.testing.assert_array_equal(np.isnan(smallest_gap([0.1, np.nan, 0.0])), [False, True, True])


@pytest.mark.parametrize(
    "call",
    [
        lambda: smallest_gap(0.1, num_tests=0),
    ],
)
def test_impossible_plans_are_refused(call):
    with pytest.raises(MedclipError):
        call()

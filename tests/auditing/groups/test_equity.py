"""The worst group and the equity-scaled area: values by hand, and intervals that hold the value."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.auditing.groups.equity import equity_scaled, verdict, worst_group
from medclip.statistics.resampling.standard_errors import clusters_of
from tests.auditing.groups.test_differences import clinic, evaluated


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_values_are_those_of_the_formulas_and_lie_in_their_intervals(shift: float):
    cohort = clinic(0, shift=shift)
    replicates, clusters = evaluated(cohort), clusters_of(cohort, cohort.labels[0])
    area, *groups = replicates.point["auroc"][:4]
    value, low, high = worst_group(replicates, "auroc", [1, 2, 3], clusters)
    assert value == min(groups)
    assert low < value < high
    value, low, high = equity_scaled(replicates, "auroc", [1, 2, 3], clusters)
    assert value == pytest.approx(area / (1 + np.abs(np.array(groups) - area).sum()))
    assert low < value < high


def test_a_ratio_is_judged_by_its_whole_interval():
    assert verdict({"low": 0.7, "high": 1.4}, 0.7) == "inside"
    assert verdict({"low": 0.7, "high": 1.4}) == "undecided"
    assert verdict({"low": 0.3, "high": 0.79}) == "outside"
    assert verdict({"low": None, "high": 1.0}) == "undecided"

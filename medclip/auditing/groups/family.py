"""The family of tests that an audit draws its findings from: one error rate for all of them.

Tested are, of each label, AUROC, sensitivity and false positive rate (of times the c-index) of each group against all
others, one-sided: is the group worse off? And whether scores mean what they say, of everybody, two-sided: calibration
slope and observed/expected against 1. Where no group is worse off and every score is calibrated, the chance that an
audit of one model finds anything among these is at most 5 % (`statistics.significance.step_down`).

A group that fares better than all others is the other side of others that fare worse, which are tested. Predictive
values and selection rates are described, not tested: they move with prevalence, and repeat what the rates say. A gap
between groups is found where one of the groups is, so it adds no test.

References: Romano & Wolf, Econometrica 73 (2005) 1237-1282; Van Calster et al., BMC Med. 17 (2019) 230 (calibration).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.statistics.cohort import ALL
from medclip.statistics.estimate import Difference
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.resampling.bootstrap import Replicates
from medclip.statistics.resampling.intervals import of
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import Clusters, standard_errors
from medclip.statistics.significance import benjamini_hochberg, smallest_gap, step_down

Floats = NDArray[np.float64]
Row = dict[str, Any]
IDEAL = "ideal"
"""The reference of a measure of calibration: 1."""
IDEALS = ("calibration_slope", "observed_expected")


@dataclass(frozen=True, eq=False)
class Tested:
    """One test of the family."""

    row: Row
    """Of the table `differences`; gets the adjusted p-values."""
    difference: Difference
    drawn_B: Floats
    """The difference in each resample."""
    worse: int
    """−1 or 1: the sign of a difference for the worse; 0: either is one."""


def sign_of_worse(metric: str) -> int:
    """Return the sign that the difference of a group has where it fares worse; 0 where neither is worse."""
    return {"high": -1, "low": 1}.get(str(METRICS[metric].better), 0)


def ideal_tests(head: Row, replicates: Replicates, clusters: Clusters) -> Iterator[Tested]:
    """Yield slope and observed/expected of everybody against 1, where scores are probabilities.

    Args:
        head: Model and label.
        replicates: Replicates of the label; column 0 is everybody.
        clusters: Clusters of the same cohort and label.
    """
    for metric in IDEALS:
        if metric not in replicates.point or np.isnan(replicates.point[metric][0]):
            continue
        value, drawn_B = float(replicates.point[metric][0]), replicates.drawn[metric][0]
        low, high = (float(end[0]) for end in of(replicates, metric, clusters)[:2])
        df = float(standard_errors(replicates, metric, clusters).df_G[0])
        if METRICS[metric].interval == "logarithm":
            with np.errstate(divide="ignore", invalid="ignore"):
                apart, apart_B = np.log(value), np.where(drawn_B > 0, np.log(drawn_B), np.nan)
        else:
            apart, apart_B = value - 1, drawn_B - 1
        if not np.isfinite(apart):
            continue
        row = {**head, "attribute": ALL, "group": ALL, "metric": metric, "reference": IDEAL}
        row |= {"value": value - 1, "low": low - 1, "high": high - 1}
        yield Tested(row, change(float(apart), apart_B, df + 1), apart_B, 0)


def adjust_together(tests: Sequence[Tested], *, seed: int = 0) -> None:
    """Add p-values to the rows of a family, in place: by itself (two-sided), adjusted; and the smallest gap seen.

    Holm's column has the adjustment of `step_down`, which is never larger than Holm's own.
    """
    if not tests:
        return
    p_K = np.array([test.difference.p for test in tests], np.float64)
    value_K, worse_K = np.array([test.difference.value for test in tests]), np.array([test.worse for test in tests])
    one_sided_K = np.where(value_K * worse_K > 0, p_K / 2, 1 - p_K / 2)
    drawn_KB = np.array([test.drawn_B * (test.worse or 1) for test in tests])
    family = step_down(np.where(worse_K == 0, p_K, one_sided_K), drawn_KB, worse_K == 0, seed=seed)
    adjusted_K = np.fmax(family.adjusted_K, p_K)
    for test, p, adjusted, of_false in zip(tests, p_K, adjusted_K, benjamini_hochberg(p_K), strict=True):
        error = smallest_gap(
            test.difference.standard_error,
            num_tests=family.num_effective,
            degrees_of_freedom=test.difference.degrees_of_freedom,
        )
        test.row.update({"p": p, "p_holm": adjusted, "p_bh": of_false, "smallest_gap": float(error)})

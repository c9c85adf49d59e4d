"""The worst group, the equity-scaled AUROC, and the tolerance of ratios: what other papers and tools report of groups.

Worst group: min A_a over the groups a, with the interval [min low_a, min high_a] of intervals that hold together
(Bonferroni). Equity-scaled: A / (1 + Σ |A_a − A|), A being everybody's. The sum is of distances, which chance alone
makes larger, so the value is below A where no group differs; its interval is that of a mean of distances
(`intervals.distance_ends`) from the end of A's own that goes with it, and reaches up to A's where chance explains
all of the distances. Of 400 samples of 300 patients in three groups it held the true value in 97.3 % where no group
differs and in 98.8 % where one is lower by 0.2, and that of the worst group in 99 and 99.5 %. MOVER, which joins both
errors as independent, held the equity-scaled value in 74 %.

References: Jin et al., FairMedFM, NeurIPS Datasets and Benchmarks (2024) (worst group); Luo et al., IEEE Trans. Med.
Imaging 43:2806 (2024), and FairCLIP, CVPR (2024) (equity-scaled); Saleiro et al., Aequitas, arXiv 1811.05577 (2018)
(tolerance: τ to 1/τ times the reference group, τ = 0.8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.groups.measure import Measured, fewest_of, rounded_values
from medclip.statistics.estimate import LEVEL
from medclip.statistics.resampling.bootstrap import Replicates
from medclip.statistics.resampling.intervals import distance_ends, of
from medclip.statistics.resampling.standard_errors import Clusters, clusters_of, mended, standard_errors

WORST, SCALED = "worst_group", "equity_scaled"
TOLERANCE = 0.8
INSIDE, OUTSIDE, UNDECIDED = "inside", "outside", "undecided"
_METRICS = ("auroc", "c_index")


def equity_rows(measured: Measured) -> list[dict[str, Any]]:
    """Return the table `equity`: of each label and attribute the worst group's and the equity-scaled area.

    Rounded as the areas of the groups are, so that the table tells no more than `metrics`.
    """
    rows: list[dict[str, Any]] = []
    for label in measured.cohort.labels:
        replicates, clusters = measured.replicates[label.name], clusters_of(measured.cohort, label)
        states = measured.states[label.name]
        for metric in (m for m in _METRICS if m in replicates.point):
            for a, attribute in enumerate(measured.cohort.attributes):
                cells = [
                    g
                    for g, state in enumerate(states)
                    if state.cell.position[0] == a and state.shown and not np.isnan(replicates.point[metric][g])
                ]
                if len(cells) < 2:
                    continue
                place = {"model": measured.name, "label": label.name, "attribute": attribute.name, "metric": metric}
                fewest = min(fewest_of(metric, states[g]) for g in cells)
                rounded = measured.roundings.of(attribute.name)
                worst = cells[int(np.argmin(replicates.point[metric][cells]))]
                for name, group, ends in (
                    (WORST, states[worst].cell.group, worst_group(replicates, metric, cells, clusters)),
                    (SCALED, None, equity_scaled(replicates, metric, cells, clusters)),
                ):
                    values = rounded_values(rounded, fewest, *ends)
                    rows.append({**place, "measure": name, "group": group, "num_groups": len(cells), **values})
    return rows


def worst_group(
    replicates: Replicates, metric: str, cells: Sequence[int], clusters: Clusters
) -> tuple[float, float, float]:
    """Return the lowest value of some groups, with the interval that follows from theirs."""
    low_G, high_G, _ = of(replicates, metric, clusters, level=1 - (1 - LEVEL) / len(cells))
    ends = (replicates.point[metric][cells], low_G[cells], high_G[cells])
    value, low, high = (float(x.min()) for x in ends)
    return value, low, high


def equity_scaled(
    replicates: Replicates, metric: str, cells: Sequence[int], clusters: Clusters
) -> tuple[float, float, float]:
    """Return A / (1 + Σ |A_a − A|) with its interval by patient; NaN ends where a group has none."""
    point_G, drawn_GB = replicates.point[metric], replicates.drawn[metric]
    area, apart_1, drawn_1B = float(point_G[0]), _apart(point_G[:, None], cells), _apart(drawn_GB, cells)[None]
    low_G, high_G, _ = of(replicates, metric, clusters)
    errors = standard_errors(replicates, metric, clusters)
    cases_1, patients_1 = (np.array([a_G[cells].min()]) for a_G in (errors.cases_G, errors.df_G + 1))
    of_squares = mended(apart_1**2, drawn_1B**2, cases_1, patients_1, share=False)
    (least,), (most,) = distance_ends(apart_1, drawn_1B, of_squares)
    return area / (1 + float(apart_1[0])), float(low_G[0] / (1 + most)), float(high_G[0] / (1 + least))


def _apart(values_GB: NDArray[np.float64], cells: Sequence[int]) -> NDArray[np.float64]:
    """Return the sum of the groups' distances from everybody, [B]."""
    return np.abs(values_GB[list(cells)] - values_GB[0]).sum(axis=0)


def verdict(ratio: Mapping[str, Any], tolerance: float = TOLERANCE) -> str:
    """Return whether a ratio with its interval lies inside τ to 1/τ, outside of it, or neither for sure.

    Example:
        >>> verdict({"low": 0.9, "high": 1.2}), verdict({"low": 1.3, "high": 2.0}), verdict({"low": 0.9, "high": 2.0})
        ('inside', 'outside', 'undecided')
    """
    low, high = ratio.get("low"), ratio.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return UNDECIDED
    if tolerance <= low and high <= 1 / tolerance:
        return INSIDE
    return OUTSIDE if high < tolerance or low > 1 / tolerance else UNDECIDED

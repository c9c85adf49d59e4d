"""Differences of two groups, and of two models, with intervals and tests.

value ± t · SE, with SE from `standard_errors` (the patient bootstrap of the difference, mended for few patients) and
Student's quantile with Satterthwaite's degrees of freedom; p from the same t. For two groups p takes the variance that
each would have if both had their pooled value, where that is larger (as a score test does): a small group that does
well by chance has a small variance by chance, and would be found to differ too often. So where p is under 5 % the
interval leaves out 0; now and then an interval leaves out 0 and p is above 5 %: then p decides.

Counting replicates beyond 0 could give no p below 2/(1 + B): of a family of some hundred tests Holm's method could then
find nothing. Coverage and errors were measured on clustered data: benchmarks/audit_coverage.py.

References: Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; Efron & Tibshirani, An Introduction to the Bootstrap,
1993; Rao, Proc. Camb. Phil. Soc. 44 (1948) 50-57 (score test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort
from medclip.statistics.resampling.bootstrap import Replicates
from medclip.statistics.resampling.intervals import LEVEL
from medclip.statistics.resampling.standard_errors import MOST_UNDEFINED, Clusters, standard_errors, variance_if

REST = "rest"


@dataclass(frozen=True)
class Difference:
    """Two figures compared; NaN throughout where one of them is not defined."""

    metric: str
    cell: int
    """Column of the group."""
    reference: int
    """Column that it is compared with; for two models, the group itself."""
    value: float
    """Group minus reference; other model minus model."""
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    p: float
    """Two-sided, of there being no difference."""
    undefined_share: float


def against(
    replicates: Replicates, metric: str, cells: Sequence[int], reference: int, clusters: Clusters
) -> list[Difference]:
    """Compare groups with a reference group.

    Args:
        replicates: Of `engine.evaluate` for one label.
        metric: One of its names.
        cells: Columns of the groups; the reference itself is left out.
        reference: Column of the reference group. For "everybody else" see `with_rest`.
        clusters: `standard_errors.clusters_of` of the same cohort and label.
    """
    errors = standard_errors(replicates, metric, clusters)
    point_G, drawn_GB = replicates.point[metric], replicates.drawn[metric]
    found = []
    for cell in cells:
        if cell == reference:
            continue
        pair = [cell, reference]
        variances, dfs = errors.variance_G[pair], errors.df_G[pair]
        floors = float((variances - errors.bootstrap_G[pair]).sum())
        weights = np.maximum(errors.cases_G[pair], 1e-9)
        pooled = float((weights * point_G[pair]).sum() / weights.sum())
        lifted = float((variance_if(replicates, metric, errors, pooled)[pair] - variances).sum())
        drawn_B = drawn_GB[cell] - drawn_GB[reference]
        spread = float(np.square(variances).sum())
        df = float(variances.sum() ** 2 / (variances**2 / dfs).sum()) if spread > 0 else float(dfs.min())
        value = float(point_G[cell] - point_G[reference])
        found.append(_difference(metric, (cell, reference), value, drawn_B, (floors, lifted, df)))
    return found


def paired(
    replicates: Replicates, other: Replicates, metric: str, cells: Sequence[int], clusters: Clusters
) -> list[Difference]:
    """Compare two models in each of some groups, on the same patients and the same resamples.

    Args:
        replicates: Of one model.
        other: Of the other, with the same cohort rows and the same weights.
        metric: One of their names.
        cells: Columns of the groups.
        clusters: Of the cohort and label.

    Raises:
        MedclipError: WRONG_USE when the two were not evaluated on the same resamples of the same groups.
    """
    if replicates.drawn[metric].shape != other.drawn[metric].shape or (replicates.n_G != other.n_G).any():
        raise MedclipError(
            Reason.WRONG_USE, "the two models were not evaluated on the same rows and resamples.",
            hint="Leave out rows that one of them lacks, and give both the same weights.",
        )  # fmt: skip
    errors = standard_errors(replicates, metric, clusters)
    found = []
    for cell in cells:
        drawn_B = other.drawn[metric][cell] - replicates.drawn[metric][cell]
        value, df = float(other.point[metric][cell] - replicates.point[metric][cell]), float(errors.df_G[cell])
        found.append(_difference(metric, (cell, cell), value, drawn_B, (0.0, 0.0, df)))
    return found


def with_rest(cohort: Cohort, attribute: str) -> Cohort:
    """Give the cohort with one attribute for each group of the named one, of two groups: itself and the rest.

    The rest is everybody else with a row, also those for whom the attribute is not stated. Evaluate this cohort and
    compare columns 1 + 2g (group g) and 2 + 2g (its rest); `rest_cells` gives them.

    Raises:
        MedclipError: WRONG_USE when there is no such attribute.
    """
    found = next((a for a in cohort.attributes if a.name == attribute), None)
    if found is None:
        raise MedclipError(Reason.WRONG_USE, f"there is no attribute {attribute!r} in this audit.")
    halves = tuple(
        Attribute(found.name, (group, REST), np.where(found.codes_N == g, 0, 1).astype(np.int16), found.constant)
        for g, group in enumerate(found.groups)
    )
    return replace(cohort, attributes=halves)


def rest_cells(group: int) -> tuple[int, int]:
    """Give the columns of a group and of its rest in an evaluation of `with_rest`."""
    return 1 + 2 * group, 2 + 2 * group


def _difference(
    metric: str, cells: tuple[int, int], value: float, drawn_B: NDArray[np.float64], mend: tuple[float, float, float]
) -> Difference:
    """Turn a value and its replicates into interval and test; `mend`: variance from floors, of the test, degrees."""
    from scipy.stats import t

    floors, lifted, df = mend
    undefined = float(np.isnan(drawn_B).mean())
    nan = float("nan")
    if np.isnan(value) or undefined > MOST_UNDEFINED or np.isnan(floors):
        return Difference(metric, *cells, value, nan, nan, nan, df, nan, undefined)
    error = float(np.sqrt(np.nanvar(drawn_B, ddof=1) * (df + 1) / df + floors))
    if error < 1e-12:  # all alike: no interval; a difference, if there is one, has the least p that counting can give
        p = 1.0 if abs(value) < 1e-12 else 2 / (1 + len(drawn_B))
        return Difference(metric, *cells, value, nan, nan, error, df, p, undefined)
    half = float(t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * t.sf(abs(value) / np.sqrt(error**2 + lifted), df))
    return Difference(metric, *cells, value, value - half, value + half, error, df, p, undefined)

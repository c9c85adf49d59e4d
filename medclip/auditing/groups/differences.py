"""Differences of two groups, and of two models, with intervals and tests.

value ± t · SE, with SE from `standard_errors` (the patient bootstrap of the difference, mended for few patients) and
Student's quantile with Satterthwaite's degrees of freedom; p from the same t. For two groups p takes the variance that
each would have if both had their pooled value, where that is larger (as a score test does): a small group that does
well by chance has a small variance by chance, and would be found to differ too often. So where p is under 5 % the
interval leaves out 0; now and then an interval leaves out 0 and p is above 5 %: then p decides.

Counting replicates beyond 0 could give no p below 2/(1 + B): of a family of some hundred tests Holm's method could then
find nothing. Coverage and errors were measured on clustered data: benchmarks/interval_coverage.py.

References: Satterthwaite, Biometrics Bulletin 2 (1946) 110-114; Efron & Tibshirani, An Introduction to the Bootstrap,
1993; Rao, Proc. Camb. Phil. Soc. 44 (1948) 50-57 (score test).

Ratios (how many times as often a group is missed as the largest of its attribute) are made of the rates as they are
exported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Attribute, Cohort
from medclip.statistics.estimate import Difference
from medclip.statistics.resampling.bootstrap import Replicates
from medclip.statistics.resampling.intervals import least_ratio
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import Clusters, standard_errors, variance_if

REST = "rest"


def against(
    replicates: Replicates, metric: str, cells: Sequence[int], reference: int, clusters: Clusters
) -> list[Difference]:
    """Compare groups with a reference group.

    Args:
        replicates: Replicates of one label, from `bootstrap.evaluate`.
        metric: Name of one of the replicates' metrics.
        cells: Columns of the groups; the reference itself is left out.
        reference: Column of the reference group. For "everybody else" see `with_rest`.
        clusters: Clusters of the same cohort and label, from `standard_errors.clusters_of`.

    Returns:
        Group minus reference, in the order of the cells.
    """
    errors = standard_errors(replicates, metric, clusters)
    point_G, drawn_GB = replicates.point[metric], replicates.drawn[metric]
    differences = []
    for cell in cells:
        if cell == reference:
            continue
        pair = [cell, reference]
        variances, dfs = errors.variance_G[pair], errors.df_G[pair]
        floors = float((variances - errors.bootstrap_G[pair]).sum())
        weights = np.maximum(errors.cases_G[pair], 1e-9)
        pooled = float((weights * point_G[pair]).sum() / weights.sum())
        lifted = float((variance_if(errors, pooled)[pair] - variances).sum())
        drawn_B = drawn_GB[cell] - drawn_GB[reference]
        spread = float(np.square(variances).sum())
        df = float(variances.sum() ** 2 / (variances**2 / dfs).sum()) if spread > 0 else float(dfs.min())
        value = float(point_G[cell] - point_G[reference])
        differences.append(change(value, drawn_B, df + 1, added=floors, lifted=lifted))
    return differences


def paired(
    replicates: Replicates, other: Replicates, metric: str, cells: Sequence[int], clusters: Clusters
) -> list[Difference]:
    """Compare two models in each of some groups, on the same patients and the same resamples.

    Args:
        replicates: Replicates of one model.
        other: Replicates of the other model, with the same cohort rows and the same weights.
        metric: Name of a metric that both have.
        cells: Columns of the groups.
        clusters: Clusters of the cohort and label.

    Returns:
        Other model minus model, in the order of the cells.

    Raises:
        MedclipError: WRONG_USE when the two were not evaluated on the same resamples of the same groups.
    """
    if replicates.drawn[metric].shape != other.drawn[metric].shape or (replicates.n_G != other.n_G).any():
        raise MedclipError(
            Reason.WRONG_USE,
            "the two models were not evaluated on the same rows and resamples.",
            hint="Leave out rows that one of them lacks, and give both the same weights.",
        )
    both = [standard_errors(one, metric, clusters) for one in (replicates, other)]
    added_G = np.sum([errors.variance_G - errors.bootstrap_G for errors in both], axis=0)
    value_G, drawn_GB = other.point[metric] - replicates.point[metric], other.drawn[metric] - replicates.drawn[metric]
    return [
        change(float(value_G[cell]), drawn_GB[cell], float(both[0].df_G[cell]) + 1, added=float(added_G[cell]))
        for cell in cells
    ]


def with_rest(cohort: Cohort, attribute: str) -> Cohort:
    """Return the cohort with one attribute for each group of the named one, of two groups: itself and the rest.

    The rest is everybody else with a row, also those for whom the attribute is not stated. Evaluate this cohort and
    compare columns 1 + 2g (group g) and 2 + 2g (its rest); `rest_cells` gives them.

    Raises:
        MedclipError: WRONG_USE when there is no such attribute.
    """
    named = next((a for a in cohort.attributes if a.name == attribute), None)
    if named is None:
        raise MedclipError(Reason.WRONG_USE, f"there is no attribute {attribute!r} in this audit.")
    halves = tuple(
        Attribute(named.name, (group, REST), np.where(named.codes_N == g, 0, 1).astype(np.int16), named.constant)
        for g, group in enumerate(named.groups)
    )
    return replace(cohort, attributes=halves)


def rest_cells(group: int) -> tuple[int, int]:
    """Return the columns of a group and of its rest in an evaluation of `with_rest`."""
    return 1 + 2 * group, 2 + 2 * group


Row = dict[str, Any]
METRICS = ("underdiagnosis", "overdiagnosis", "tpr", "selection_rate", "ppv")
"""Rates that are held against those of the reference group."""


def reference_groups(metrics: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the reference group of each model's attributes: that with the most patients whose value is stated.

    Example:
        >>> cell = {"model": "net", "attribute": "sex", "group": "F", "n_patients": 20}
        >>> reference_groups([cell, {**cell, "group": "M", "n_patients": 30}])
        {('net', 'sex'): 'M'}
    """
    sizes: dict[tuple[str, str], dict[str, int]] = {}
    for row in metrics:
        if row["attribute"] != ALL and row["group"] not in (MISSING, CONFLICT) and row.get("n_patients") is not None:
            of_groups = sizes.setdefault((row["model"], row["attribute"]), {})
            of_groups[row["group"]] = max(of_groups.get(row["group"], 0), row["n_patients"])
    return {place: max(of_groups, key=lambda group: of_groups[group]) for place, of_groups in sizes.items()}


def ratio_rows(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the table `ratios`: rates of each group over those of the reference group of its attribute.

    It is made of the exported values and intervals, so that it tells no more than they do.

    Reference: Donner & Zou, Statistical Methods in Medical Research 21 (2012) 347-359.
    """
    references = reference_groups(metrics)
    by_place = {
        _place(row): row for row in metrics if row["metric"] in METRICS and _number(row.get("value")) is not None
    }
    rows: list[Row] = []
    for row in by_place.values():
        reference = references.get((row["model"], row["attribute"]))
        other = by_place.get(_place({**row, "group": reference}))
        if other is None or reference == row["group"] or not other["value"]:
            continue
        low, high = _interval(row, other)
        names = ("model", "label", "attribute", "group", "metric")
        numbers = {"value": row["value"] / other["value"], "low": low, "high": high}
        rows.append({**{name: row[name] for name in names}, "reference": reference, **numbers})
    return rows


def _interval(row: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float | None, float | None]:
    ends = [_number(r.get(end)) for r in (row, other) for end in ("low", "high")]
    if any(end is None for end in ends):
        return None, None
    value, low, high, base, base_low, base_high = (
        np.asarray([x], np.float64) for x in (row["value"], *ends[:2], other["value"], *ends[2:])
    )
    least = float(least_ratio(value, low, base, base_high)[0])
    inverse = float(least_ratio(base, base_low, value, high)[0])
    return least, 1 / inverse if inverse > 0 else None


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "label", "attribute", "group", "metric"))


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

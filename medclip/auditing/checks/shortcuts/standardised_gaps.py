"""Gaps between groups as they are, and after every group was given the same mix of age, view or prevalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.shortcuts.device import TIMES, not_done, row
from medclip.auditing.checks.shortcuts.reweighting import LIMIT, listed, propensity, standardise
from medclip.auditing.groups.gaps import gap_info, gaps
from medclip.auditing.input.groups import CROSS
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import clusters_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

GAP_NAMES = ("auroc_max_min", "tpr_max_min", "fpr_max_min", "ppv_max_min")
BEFORE, AFTER, CHANGE = "as it is", "reweighted", "reweighted − as it is"


def compare(
    cohort: Cohort,
    label: Label,
    attribute: Attribute,
    by: Sequence[Attribute],
    weights_PB: NDArray[Any],
    shown: Bools,
    *,
    threshold: float | None = None,
    numbers: Mapping[str, Floats] | None = None,
    method: str = "standardise",
    names: Sequence[str] = GAP_NAMES,
    limit: float = LIMIT,
) -> list[dict[str, Any]]:
    """Measure gaps between the groups of an attribute as they are and reweighted.

    Args:
        cohort: Cohort that is audited.
        label: One of the cohort's labels.
        attribute: Attribute whose groups are compared; what is also in `by` or `numbers` is not weighed for.
        by: Attributes that every group shall have the same mix of: age groups, view, `has_truth`.
        weights_PB: Weight of each patient in each replicate.
        shown: Whether each group of the attribute may be shown, [groups]; the others do not count here.
        threshold: Threshold for gaps of rates; without it those are left out.
        numbers: Further covariates of `propensity`, by name.
        method: Way to reweight: "standardise" or "propensity".
        names: Names of gaps, from `medclip.auditing.groups.gaps.gap_names`.
        limit: Largest weight.

    Returns:
        Rows of the table `shortcuts`: each group's rates, and each gap, as it is and reweighted, and the change.

    Raises:
        MedclipError: WRONG_USE for a method that does not exist.
    """
    if method not in ("standardise", "propensity"):
        raise MedclipError(Reason.WRONG_USE, f"there is no way to reweight {method!r}: standardise or propensity.")
    mine = set(attribute.name.split(CROSS))
    by = [part for part in by if not mine & set(part.name.split(CROSS))]
    numbers = {name: value for name, value in (numbers or {}).items() if name not in mine}
    test = f"{attribute.name}, reweighted for {listed(by, numbers)}"
    if label.time_N is not None:
        return not_done(label.name, test, TIMES)
    rows_N = label.valid_N & np.isin(attribute.codes_N, np.flatnonzero(shown))
    if shown.sum() < 2 or not (by or numbers):
        return not_done(label.name, test, "there are not two groups to show, or there is nothing to weigh for.")
    try:
        if method == "standardise":
            weights = standardise(attribute, by, rows_N, limit=limit, own_N=label.weight_N)
        else:
            weights = propensity(attribute, by, rows_N, numbers=numbers, limit=limit, own_N=label.weight_N)
    except MedclipError as e:
        return not_done(label.name, test, e.message)
    own_N = np.ones(len(rows_N)) if label.weight_N is None else label.weight_N
    weighed = replace(
        label, weight_N=own_N * weights.weight_N, truth_N=np.where(weights.weight_N > 0, label.truth_N, np.nan)
    )
    grouped = replace(cohort, attributes=(attribute,))
    names = [n for n in names if threshold is not None or "auroc" in gap_info(n).metrics]
    metrics = list(dict.fromkeys(m for n in names for m in gap_info(n).metrics))
    cells = [1 + int(g) for g in np.flatnonzero(shown)]
    values, ends, apart = {}, {}, {}
    for when, one in ((BEFORE, label), (AFTER, weighed)):
        values[when] = evaluate(grouped, one, weights_PB, threshold=threshold, metrics=metrics)
        clusters = clusters_of(grouped, one)
        ends[when] = {m: estimates(values[when], m, clusters) for m in metrics}
        apart[when] = gaps(values[when], cells, clusters, names)
    result = []
    for metric in metrics:
        for cell in cells:
            for when in (BEFORE, AFTER):
                counts = int(values[when].n_G[cell]), int(values[when].n_pos_G[cell])
                stratum = f"{attribute.groups[cell - 1]}, {when}"
                result.append(row(label.name, test, stratum, metric, ends[when][metric][cell], counts))
    fewest = int(values[AFTER].n_patients_G[cells].min())
    for name in names:
        counts = int(values[AFTER].n_G[cells].sum()), int(values[AFTER].n_pos_G[cells].sum())
        two = [apart[when][name] for when in (BEFORE, AFTER)]
        for when, gap in zip((BEFORE, AFTER), two, strict=True):
            result.append(row(label.name, test, when, name, Estimate(gap.value, gap.low, gap.high), counts))
        moved = change(two[1].value - two[0].value, two[1].drawn_B - two[0].drawn_B, fewest)
        note = f"{_sentence(gap_info(name).title, two[0].value, two[1].value, moved, listed(by, numbers))} {weights}"
        result.append(row(label.name, test, CHANGE, name, moved, counts, note))
    return result


def _sentence(title: str, before: float, after: float, moved: Estimate, what: str) -> str:
    sentence = f"{title}: {before:.2f} as it is, {after:.2f} when all groups have the same mix of {what}."
    if moved.below_zero:
        return f"{sentence} The mix explains part of the gap."
    if moved.above_zero:
        return f"{sentence} It is larger then; that the effective numbers are smaller can do this by itself."
    return f"{sentence} That is no change that could be told from chance."

"""Is a gap between groups only one of age, view or prevalence? Gaps after giving every group the same mix.

Women may be imaged lying down more often, one hospital's patients may be older. Each row is weighted so that every
group gets the mix of all groups together, and the gap is measured again (`compare`). What remains is not
explained by what was weighed for; what goes away may still matter to the patients in that group.

Two ways: `standardise` (direct standardisation, cell by cell of the mix; nothing is modelled) and `propensity` (inverse
probability of belonging to the group, from a logistic regression; for finer mixes). Weights are estimated once, not in
each resample, and are cut at a stated limit.

Reference: Hernán & Robins, Causal Inference: What If (2020), chapters 2 and 12; Kish, Survey Sampling (1965), for the
effective sample size (Σw)²/Σw².
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.shortcuts.device import TIMES, not_done, row
from medclip.auditing.groups.gaps import gap_info, gaps
from medclip.auditing.input.groups import CROSS
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Attribute, Cohort, Label
from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.wording import list_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LIMIT = 10.0
"""Largest weight of a row, where a group's mean weight is 1."""


@dataclass(frozen=True, eq=False)
class Reweighting:
    """Weights that give every group the same mix."""

    weight_N: Floats
    """0 for rows that are left out; mean 1 in each group before the limit."""
    effective: Mapping[str, float]
    """Effective number of rows of each group: how many equally weighted rows would say as much."""
    counted: Mapping[str, int]
    """Rows of each group that have a weight."""
    num_left_out: int
    """Rows whose like does not occur in every group."""
    num_cut: int
    """Rows whose weight was above the limit."""
    limit: float

    def __str__(self) -> str:
        """Return what the weighting cost, in shares: counts would tell of small groups."""
        total = sum(self.counted.values())
        sizes = ", ".join(f"{g} {_percent(self.effective[g], n)}" for g, n in self.counted.items())
        text = f"Effective numbers after weighting, of the rows of each group: {sizes}."
        if self.num_cut:
            text += f" {_percent(self.num_cut, total)} of the weights were cut at {self.limit:g}."
        if self.num_left_out:
            text += (
                f" {_percent(self.num_left_out, total + self.num_left_out)} of the rows were left out, because their "
                "like does not occur in every group."
            )
        return text


def has_truth(label: Label) -> Attribute:
    """Return the truth as something to weigh for, so that all groups get the same prevalence."""
    return Attribute("prevalence", ("negative", "positive"), (label.truth_N == 1).astype(np.int16))


def standardise(
    attribute: Attribute, by: Sequence[Attribute], rows_N: Bools, *, limit: float = LIMIT, own_N: Floats | None = None
) -> Reweighting:
    """Weigh each cell of the mix, in each group, by its share among all over its share in the group.

    Args:
        attribute: Attribute whose groups are weighed.
        by: Attributes whose mix is made equal: age groups, view, `has_truth`.
        rows_N: Whether each row counts; rows of groups that are not shown are not among them.
        limit: Largest weight.
        own_N: Weight that each row has already.

    Raises:
        MedclipError: WRONG_USE where no cell of the mix occurs in every group.
    """
    weights = np.where(rows_N, 1.0 if own_N is None else own_N, 0.0)
    cell_N = np.zeros(len(weights), np.int64)
    for part in by:
        cell_N = cell_N * len(part.groups) + part.codes_N
    _, cell_N = np.unique(cell_N, return_inverse=True)
    present, group_N = np.unique(attribute.codes_N[rows_N], return_inverse=True)
    totals_GS = np.zeros((len(present), int(cell_N.max(initial=0)) + 1))
    np.add.at(totals_GS, (group_N, cell_N[rows_N]), weights[rows_N])
    shared_S = (totals_GS > 0).all(axis=0)
    if not shared_S.any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"no combination of {listed(by)} occurs in every group of {attribute.name}.",
            hint="Use fewer or wider classes, or weigh by propensity.",
        )
    totals_GS[:, ~shared_S] = 0
    pooled_S = totals_GS.sum(axis=0) / totals_GS.sum()
    share_GS = totals_GS / totals_GS.sum(axis=1, keepdims=True)
    factor_GS = np.divide(pooled_S, share_GS, out=np.zeros_like(share_GS), where=share_GS > 0)
    weight_N = np.zeros(len(weights))
    weight_N[rows_N] = factor_GS[group_N, cell_N[rows_N]]
    return _limited(attribute, weight_N, rows_N, weights, limit)


def propensity(
    attribute: Attribute,
    by: Sequence[Attribute],
    rows_N: Bools,
    *,
    numbers: Mapping[str, Floats] | None = None,
    limit: float = LIMIT,
    own_N: Floats | None = None,
) -> Reweighting:
    """Weigh each row by how rare its group is among rows like it: P(group) / P(group | mix).

    Args:
        attribute: Attribute whose groups are weighed.
        by: Attributes whose mix is made equal, as classes.
        rows_N: Whether each row counts.
        numbers: Numbers whose mix is made equal (age in years), by name: each enters with its square; NaN is a class of
            its own.
        limit: Largest weight.
        own_N: Weight that each row has already.

    Raises:
        MedclipError: WRONG_USE where fewer than two groups have rows.
    """
    from sklearn.linear_model import LogisticRegression

    weights = np.where(rows_N, 1.0 if own_N is None else own_N, 0.0)
    rows_N = rows_N & (weights > 0)
    columns = [(part.codes_N[rows_N] == g).astype(np.float64) for part in by for g in range(len(part.groups))]
    for value_N in (numbers or {}).values():
        value = np.asarray(value_N, np.float64)[rows_N]
        stated = ~np.isnan(value)
        scaled = np.zeros(len(value))
        scaled[stated] = (value[stated] - value[stated].mean()) / (value[stated].std() or 1.0)
        columns += [scaled, scaled**2, (~stated).astype(np.float64)]
    present, group_n = np.unique(attribute.codes_N[rows_N], return_inverse=True)
    if len(present) < 2 or not columns:
        raise MedclipError(
            Reason.WRONG_USE, f"weighing needs two groups of {attribute.name} and something to weigh for."
        )
    features = np.stack(columns, axis=1)
    fit = LogisticRegression(max_iter=1000).fit(features, group_n, sample_weight=weights[rows_N])
    given = fit.predict_proba(features)[np.arange(len(group_n)), group_n]
    share_G = np.bincount(group_n, weights[rows_N]) / weights.sum()
    weight_N = np.zeros(len(weights))
    weight_N[rows_N] = share_G[group_n] / given
    return _limited(attribute, weight_N, rows_N, weights, limit)


def _limited(attribute: Attribute, weight_N: Floats, rows_N: Bools, weights: Floats, limit: float) -> Reweighting:
    num_cut, effective, counted = 0, {}, {}
    for g, group in enumerate(attribute.groups):
        inside = (attribute.codes_N == g) & (weight_N > 0) & (weights > 0)
        if not inside.any():
            continue
        weight_N[inside] /= np.average(weight_N[inside], weights=weights[inside])
        num_cut += int((weight_N[inside] > limit).sum())
        weight_N[inside] = np.minimum(weight_N[inside], limit)
        both = weight_N[inside] * weights[inside]
        effective[group], counted[group] = float(both.sum() ** 2 / (both**2).sum()), int(inside.sum())
    left_out = int((rows_N & (weights > 0)).sum()) - sum(counted.values())
    return Reweighting(weight_N, effective, counted, left_out, num_cut, limit)


def listed(by: Sequence[Attribute], numbers: Mapping[str, Any] | None = None) -> str:
    """Name what is weighed for: "age and view"."""
    names = [*(part.name for part in by), *(str(name) for name in numbers or {})]
    return list_of(list(dict.fromkeys(names))) or "nothing"


def _percent(part: float, total: float) -> str:
    share = 100 * part / total
    return "under 1 %" if share < 1 else f"{share:.0f} %"


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

"""Whether groups differ by more than chance: the permutation test of largest-minus-smallest gaps.

Such a gap is above 0 even where groups do not differ, the more so the more and the smaller the groups. So the group
labels are shuffled, the gap is measured again, and p = (1 + #{shuffled ≥ found}) / (1 + shuffles); the mean and the
95th percentile of the shuffled gaps are what chance alone gives, to be read beside the gap.

Patients are shuffled, never rows, and only among patients with alike outcomes (no row positive, some, all) and alike
numbers of rows (1, 2-3, 4-7, 8 and more): prevalence may differ between groups without the model being at fault, and
images of one patient stay together. Where an attribute varies within a patient (age), a unit is a patient with one of
its values.

The test is of "the groups are exchangeable given outcome and number of rows". It holds exactly for that; groups that
differ in spread only, not in the metric, can make it err. It tests metrics given the outcome (AUROC, TPR, FPR); for
those that move with prevalence (PPV, NPV, selection rate, AUPRC, calibration) a gap that comes from prevalence is
part of both sides.

References: Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd ed. 2005; Phipson & Smyth, Stat.
Appl. Genet. Mol. Biol. 9 (2010) 39; DiCiccio et al., KDD 2020, 1467-1477 (permutation tests of fairness metrics).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.groups.gaps import GAPS, GapInfo, gap_values
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.resampling.bootstrap import evaluate

_Floats = NDArray[np.float64]
_AT_ONCE = 256
"""Shuffles held in memory: 250 MB of groups and weights for 200,000 patients."""
_CROSSED = {"auroc_bpsn": (False, True), "auroc_bnsp": (True, False)}
"""Whether positives and whether negatives come from the group (or from all others)."""


@dataclass(frozen=True)
class GapTest:
    """A gap against what chance gives; NaN throughout where the gap is not defined."""

    name: str
    value: float
    """The gap between the groups tested."""
    p: float
    null_mean: float
    null_95: float
    """95th percentile of the gap without differences; the 5th, for a ratio."""
    num_permutations: int
    """Shuffles in which the gap was defined."""


@dataclass(frozen=True, eq=False)
class _Units:
    """What is shuffled: the rows, as a cohort whose patients are the units, and the group of each unit."""

    cohort: Cohort
    """Without attributes. Units of the positive rows first, then the same units of the negative rows."""
    label: Label
    codes_U: NDArray[np.int64]
    stratum_U: NDArray[np.int64]


def gap_test(
    cohort: Cohort,
    label: Label,
    attribute: str,
    groups: Sequence[int],
    names: Sequence[str],
    *,
    threshold: float | None = None,
    num_permutations: int = 1000,
    seed: int = 0,
) -> dict[str, GapTest]:
    """Test gaps between the shown groups of an attribute.

    Args:
        cohort: The audit set.
        label: One of its labels.
        attribute: Name of one of its attributes.
        groups: Indices, into the attribute's groups, of those that may be shown.
        names: Of `gaps.GAPS`; the shuffles serve all of them.
        threshold: Of the label, for metrics that need one.
        num_permutations: How often to shuffle.
        seed: The same seed shuffles the same patients.

    Returns:
        A test for each name.

    Raises:
        MedclipError: WRONG_USE when there is no such attribute, or no shuffle is asked for.
    """
    named = next((a for a in cohort.attributes if a.name == attribute), None)
    if named is None or num_permutations < 1:
        raise MedclipError(Reason.WRONG_USE, "a gap test needs an attribute of the audit and one shuffle or more.")
    metrics = sorted({m for name in names for m in GAPS[name].metrics})
    rows = label.valid_N & np.isin(named.codes_N, groups)
    if rows.sum() == 0 or len(groups) < 2:
        return {name: _untested(name) for name in names}
    everybody = evaluate(replace(cohort, attributes=()), label, _ones(cohort), threshold=threshold, metrics=metrics)
    units = _units(cohort, label, named.codes_N, rows)
    parts = [
        _group_metrics(units, codes_UB, groups, metrics, threshold)
        for codes_UB in _shuffled(units, num_permutations, seed)
    ]
    drawn = {m: np.concatenate([part[m] for part in parts], axis=1) for m in metrics}
    overall = {m: everybody.point[m][:1] for m in metrics}
    return {name: _test(name, GAPS[name], drawn, overall) for name in names}


def _units(cohort: Cohort, label: Label, codes_N: NDArray[np.int16], rows: NDArray[np.bool_]) -> _Units:
    patients, codes = cohort.patients_N[rows].astype(np.int64), codes_N[rows].astype(np.int64)
    pairs, unit = np.unique(patients * (codes.max() + 1) + codes, return_inverse=True)
    positive = label.truth_N[rows] == 1
    num_rows = np.bincount(unit)
    num_positive = np.bincount(unit, weights=positive)
    outcome = np.where(num_positive == 0, 0, np.where(num_positive == num_rows, 2, 1))
    size = np.minimum(np.floor(np.log2(num_rows)), 3).astype(np.int64)
    of_rows = {
        name: None if (values := getattr(label, name)) is None else values[rows]
        for name in ("score_N", "truth_N", "weight_N", "time_N")
    }
    apart = Cohort((unit + np.where(positive, 0, len(pairs))).astype(np.int32), (), ())
    return _Units(apart, replace(label, **of_rows), pairs % (codes.max() + 1), outcome * 4 + size)


def _shuffled(units: _Units, num_permutations: int, seed: int) -> Iterator[NDArray[np.int16]]:
    """Group of each unit in each shuffle, [U, b] in parts that fit into memory; the very first column is as it is."""
    rng = np.random.default_rng(seed)
    strata = [np.flatnonzero(units.stratum_U == s) for s in np.unique(units.stratum_U)]
    for start in range(0, 1 + num_permutations, _AT_ONCE):
        codes_UB = np.empty((len(units.codes_U), min(_AT_ONCE, 1 + num_permutations - start)), np.int16)
        for b in range(codes_UB.shape[1]):
            if start + b == 0:
                codes_UB[:, 0] = units.codes_U
                continue
            for members in strata:
                codes_UB[members, b] = units.codes_U[rng.permutation(members)]
        yield codes_UB


def _group_metrics(
    units: _Units, codes_UB: NDArray[np.int16], groups: Sequence[int], metrics: Sequence[str], threshold: float | None
) -> dict[str, _Floats]:
    """Each metric of each group in each shuffle, [G, 1 + B]: the weights say who is in the group."""
    drawn: dict[str, list[_Floats]] = {m: [] for m in metrics}
    own = [m for m in metrics if m not in _CROSSED]
    num = units.cohort.num_patients
    for group in groups:
        inside = (codes_UB == group).astype(np.uint8)
        if own:
            weights = np.concatenate([inside, inside])[:num]
            replicates = evaluate(units.cohort, units.label, weights, threshold=threshold, metrics=own)
            for m in own:
                drawn[m].append(replicates.drawn[m][0])
        for m in set(metrics) & set(_CROSSED):
            positives, negatives = (inside if within else 1 - inside for within in _CROSSED[m])
            weights = np.concatenate([positives, negatives])[:num]
            drawn[m].append(evaluate(units.cohort, units.label, weights, metrics=["auroc"]).drawn["auroc"][0])
    return {m: np.stack(values) for m, values in drawn.items()}


def _test(name: str, info: GapInfo, drawn: dict[str, _Floats], overall: dict[str, _Floats]) -> GapTest:
    values_MGB = np.stack([drawn[m] for m in info.metrics])
    valid_G = ~np.isnan(values_MGB[:, :, 0]).any(axis=0)
    overall_MB = np.stack([np.broadcast_to(overall[m], values_MGB.shape[2:]) for m in info.metrics])
    gap_B = gap_values(info, values_MGB[:, valid_G], overall_MB)
    null = gap_B[1:][~np.isnan(gap_B[1:])]
    if np.isnan(gap_B[0]) or not len(null):
        return _untested(name)
    # Sums in another order differ in the last digits; a shuffle that gives the same groups must count as equal.
    close = 1e-12
    beyond = (null <= gap_B[0] + close) if info.ratio else (null >= gap_B[0] - close)
    p = (1 + int(beyond.sum())) / (1 + len(null))
    return GapTest(
        name, float(gap_B[0]), p, float(null.mean()), float(np.quantile(null, 0.05 if info.ratio else 0.95)), len(null)
    )


def _untested(name: str) -> GapTest:
    nan = float("nan")
    return GapTest(name, nan, nan, nan, nan, 0)


def _ones(cohort: Cohort) -> NDArray[np.uint8]:
    return np.ones((cohort.num_patients, 1), np.uint8)

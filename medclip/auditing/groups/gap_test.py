"""Whether the groups of an attribute differ by more than chance: the permutation test of the largest deviation.

The statistic is that of the group that stands out most: t_g = (d_g − mean)/s, with d_g how far the group's value is
from the mean of all groups (each weighted by how well it is known, 1/variance), and mean and s those of d_g over all
draws, the sample itself among them. T = max over groups of |t_g| (maxT: Westfall and Young 1993). Each group is
measured in its own standard error, so that a group of 40 beside groups of 1,000 neither makes the statistic nor hides
what the large groups show: with a true AUROC gap of 0.12 in a large group the test finds it as often as that group
against the rest; largest minus smallest, in raw units, found it in a third (benchmarks/audit_power.py).

Groups are compared with each other, not with the pooled value: where scores are shifted between groups of one AUROC,
the AUROC of everybody is another one than that of each. So the test says no more than that the values differ.

p = (1 + #{T shuffled ≥ T}) / (1 + shuffles). What is shuffled says `shuffle`: "the groups are exchangeable, given
outcome and number of rows" is what is tested. It holds exactly for that; groups that differ in spread only, not in the
metric, can make it err. It tests metrics given the outcome (AUROC, TPR, FPR); for those that move with prevalence
(predictive values, selection rate) a gap that comes from prevalence is part of both sides.

Of very many shuffles not all are made where it is soon clear that p is not small: after 250, 1,000, 4,000, ... the
test ends once every name has `_ENOUGH` draws as large as the sample (Besag and Clifford 1991).

References: Westfall & Young, Resampling-Based Multiple Testing, 1993; Hothorn et al., Amer. Statist. 60 (2006) 257-263
(maxT of standardised statistics); Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd ed. 2005;
Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39; Besag & Clifford, Biometrika 78 (1991) 301-304; DiCiccio et
al., KDD 2020, 1467-1477 (permutation tests of fairness metrics).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medclip.auditing.groups.gaps import GapInfo, gap_info
from medclip.auditing.groups.shuffle import Shuffles, units_of
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.significance import p_value

_Floats = NDArray[np.float64]
_FIRST_LOOK, _LOOKS_APART = 250, 4
_ENOUGH = 50
"""Draws at least as large as the sample after which p is known well enough (to a seventh of itself)."""
_ALIKE = 1e-12
"""Sums in another order differ in the last digits; a shuffle that gives the same groups must count as equal."""
_POWER, _LEVEL = 0.8, 0.05


@dataclass(frozen=True)
class GapTest:
    """A gap against what chance gives; NaN throughout where the gap is not defined."""

    name: str
    value: float
    """Largest minus smallest, of the groups tested."""
    p: float
    statistic: float
    """How many standard errors the group that stands out most is from the others."""
    group: int | None
    """That group, as an index into the attribute's groups."""
    null_mean: float
    null_95: float
    """95th percentile of largest minus smallest where groups do not differ."""
    smallest: float
    """How far a group has to be from the mean of the others to be found four times in five: the group seen best."""
    smallest_every: float
    """The same for the group that is seen worst: so large a difference of any group would be found."""
    num_permutations: int
    """Shuffles that were made."""


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
        label: One of the cohort's labels.
        attribute: Name of one of the cohort's attributes.
        groups: Indices, into the attribute's groups, of those that may be shown.
        names: Names of gaps, largest minus smallest, from `gaps.gap_names`; the shuffles serve all of them.
        threshold: Threshold of the label, for metrics that need one.
        num_permutations: Most shuffles.
        seed: Seed of the shuffles; the same one shuffles the same patients.

    Returns:
        A test for each name.

    Raises:
        MedclipError: WRONG_USE when there is no such attribute, no shuffle is asked for, or a gap is not between
            largest and smallest.
    """
    named = next((a for a in cohort.attributes if a.name == attribute), None)
    if named is None or num_permutations < 1:
        raise MedclipError(Reason.WRONG_USE, "a gap test needs an attribute of the audit and one shuffle or more.")
    infos = {name: gap_info(name) for name in names}
    if any(info.compare != "between" or info.ratio or info.join != "worst" for info in infos.values()):
        raise MedclipError(Reason.WRONG_USE, "gaps that are tested are between the largest and the smallest value.")
    metrics = sorted({m for info in infos.values() for m in info.metrics})
    tests = {name: _untested(name) for name in names}
    if len(groups) < 2 or not (label.valid_N & np.isin(named.codes_N, groups)).any():
        return tests
    units = units_of(cohort, label, named.codes_N, groups)
    shuffles = Shuffles(units, metrics, len(groups), threshold, seed=seed)
    for look in _looks(num_permutations):
        drawn = shuffles.first(look)
        tests = {name: _test(name, info, drawn, groups) for name, info in infos.items()}
        if all(not test.p * (1 + look) <= _ENOUGH for test in tests.values()):
            break
    return tests


def _looks(num_permutations: int) -> Iterator[int]:
    look = _FIRST_LOOK
    while look < num_permutations:
        yield look
        look *= _LOOKS_APART
    yield num_permutations


def _test(name: str, info: GapInfo, drawn: Mapping[str, _Floats], groups: Sequence[int]) -> GapTest:
    values_MGB = np.stack([drawn[m] for m in info.metrics])
    defined = np.flatnonzero(~np.isnan(values_MGB[:, :, 0]).any(axis=0))
    if len(defined) < 2:
        return _untested(name)
    values_MGB = values_MGB[:, defined]
    gap_B = (values_MGB.max(axis=1) - values_MGB.min(axis=1)).max(axis=0)
    null = gap_B[1:][~np.isnan(gap_B[1:])]
    if not len(null):
        return _untested(name)
    deviations = [_standardised(values_GB) for values_GB in values_MGB]
    size_MGB = np.abs([t_GB for t_GB, _ in deviations])
    largest_B = size_MGB.max(axis=(0, 1))
    reach_MG = np.array([reach_G for _, reach_G in deviations]) * (
        np.quantile(largest_B[1:], 1 - _LEVEL) + ndtri(_POWER)
    )
    reach_G = np.nanmin(np.where(np.isnan(reach_MG), np.inf, reach_MG), axis=0)
    known_G = reach_G[np.isfinite(reach_G)]
    return GapTest(
        name,
        float(gap_B[0]),
        p_value(float(largest_B[0]), largest_B[1:]),
        float(largest_B[0]),
        groups[defined[_farthest(info, size_MGB[:, :, 0], values_MGB[:, :, 0])]],
        float(null.mean()),
        float(np.quantile(null, 1 - _LEVEL)),
        float(known_G.min()) if len(known_G) else float("nan"),
        float(known_G.max()) if len(known_G) else float("nan"),
        len(largest_B) - 1,
    )


def _standardised(values_GB: _Floats) -> tuple[_Floats, _Floats]:
    """Return by how many standard errors each group is from the mean of all, [G, B], and what one of them is, [G].

    The latter as a difference from the mean of the others. A group in which nothing can be shuffled has neither, and
    one that is not defined in a draw stands out by nothing there.
    """
    known_GB = ~np.isnan(values_GB)
    filled_GB = np.where(known_GB, values_GB, 0.0)
    count_G1 = known_GB.sum(axis=1, keepdims=True)
    mean_G1 = filled_GB.sum(axis=1, keepdims=True) / count_G1
    variance_G1 = (np.where(known_GB, values_GB - mean_G1, 0.0) ** 2).sum(axis=1, keepdims=True) / count_G1
    weight_G1 = np.divide(1.0, variance_G1, out=np.zeros_like(variance_G1), where=variance_G1 > _ALIKE**2)
    total_B = np.maximum((weight_G1 * known_GB).sum(axis=0), _ALIKE)
    apart_GB = values_GB - (weight_G1 * filled_GB).sum(axis=0) / total_B
    spread_G = np.nanstd(apart_GB, axis=1)
    moves_G = (spread_G > _ALIKE) & (weight_G1[:, 0] > 0)
    centred_GB = np.nan_to_num(apart_GB - np.nanmean(apart_GB, axis=1, keepdims=True))
    t_GB = np.divide(centred_GB, spread_G[:, None], out=np.zeros_like(centred_GB), where=moves_G[:, None])
    others_G = 1 - weight_G1[:, 0] / max(float(weight_G1.sum()), _ALIKE)
    reach_G = np.divide(spread_G, others_G, out=np.full(len(spread_G), np.nan), where=moves_G & (others_G > _ALIKE))
    return t_GB, reach_G


def _farthest(info: GapInfo, size_MG: _Floats, value_MG: _Floats) -> int:
    """Which group stands out most; of two, which stand out alike, the one that fares worse."""
    m = int(size_MG.max(axis=1).argmax())
    alike = np.flatnonzero(size_MG[m] >= size_MG[m].max() * (1 - 1e-9))
    sign = -1.0 if METRICS[info.metrics[m]].better == "low" else 1.0
    return int(alike[np.argmin(sign * value_MG[m, alike])])


def _untested(name: str) -> GapTest:
    nan = float("nan")
    return GapTest(name, nan, nan, nan, None, nan, nan, nan, nan, 0)

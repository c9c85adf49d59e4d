"""Whether the groups of an attribute differ by more than chance: the permutation test of the largest deviation.

The statistic is that of the group that stands out most: t_g = (d_g − mean)/s, with d_g how far the group's value is
from the mean of all groups (each weighted by how well it is known, 1/variance), and mean and s those of d_g over all
draws, the sample itself among them. T = max over groups of |t_g| (maxT: Westfall and Young 1993). Each group is
measured in its own standard error, so that a group of 40 beside groups of 1,000 neither makes the statistic nor hides
what the large groups show: with a true AUROC gap of 0.12 in a large group the test finds it as often as that group
against the rest; largest minus smallest, in raw units, found it in a third (benchmarks/audit_power.py).

Groups are compared with each other, not with the pooled value: where scores are shifted between groups of one AUROC,
the AUROC of everybody is another one than that of each. So the test says no more than that the values differ.

p = (1 + #{T shuffled ≥ T}) / (1 + shuffles). What is tested is that "the groups are exchangeable, given
outcome and number of rows". It holds exactly for that; groups that differ in spread only, not in the
metric, can make it err. It tests metrics given the outcome (AUROC, TPR, FPR); for those that move with prevalence
(predictive values, selection rate) a gap that comes from prevalence is part of both sides.

Of very many shuffles not all are made where it is soon clear that p is not small: after 250, 1,000, 4,000, ... the
test ends once every name has `_ENOUGH` draws as large as the sample (Besag and Clifford 1991).

References: Westfall & Young, Resampling-Based Multiple Testing, 1993; Hothorn et al., Amer. Statist. 60 (2006) 257-263
(maxT of standardised statistics); Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 3rd ed. 2005;
Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39; Besag & Clifford, Biometrika 78 (1991) 301-304; DiCiccio et
al., KDD 2020, 1467-1477 (permutation tests of fairness metrics).

What is shuffled (`Shuffles`): whole patients change places where all their rows are in one group (sex; an age band that
a patient never left), and only among patients with alike outcomes (no row positive, some, all) and alike numbers of
rows (1, 2-3, 4-7, 8 and more): prevalence may differ between groups without the model being at fault. Where a patient
has rows in several groups (views, ages), the groups of the patient's own rows change places, among those of the same
truth.

A draw needs of the scores no more than a histogram for each group and truth, which one sparse product gives for many
draws at once. Up to `NUM_BINS` different scores have a bin each; more are cut at their quantiles (and at the
threshold, so that rates stay exact): the AUROC of a draw then takes scores of one bin for equal. For 200,000 rows of
44,000 patients a draw with three groups takes 1 ms; by sorting the scores of each group it took 14 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medclip.auditing.groups.gaps import GapInfo, gap_info
from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort, Label
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.metrics.ranks import Area, Areas
from medclip.statistics.metrics.rates import Counted, Outcomes, odds, ratio
from medclip.statistics.resampling.bootstrap import evaluate
from medclip.statistics.resampling.sums import summing_matrix
from medclip.statistics.significance import p_value

Floats = NDArray[np.float64]
NUM_BINS = 512
_AT_ONCE = 1_000_000
"""Codes of units that are drawn at once: arrays of 8 MB are used again, larger ones are mapped anew each time."""
_FEWEST_AT_ONCE = 16
"""Draws at once all the same: a sparse product of fewer columns takes longer for each."""


@dataclass(frozen=True, eq=False)
class Units:
    """What is shuffled: the rows of the groups tested, and the units whose groups change places."""

    label: Label
    """Of the rows tested."""
    unit_n: NDArray[np.int64]
    """Unit of each row: a patient, or a row by itself."""
    codes_U: NDArray[np.int64]
    """Place, among the groups tested, of the group of each unit."""
    movable_V: NDArray[np.int64]
    """Units that change places, stratum by stratum."""
    stratum_V: NDArray[np.int64]
    """Number of the stratum that each of them is in, ascending."""


def units_of(cohort: Cohort, label: Label, codes_N: NDArray[np.integer[Any]], groups: Sequence[int]) -> Units:
    """Find what may be shuffled."""
    rows = np.flatnonzero(label.valid_N & np.isin(codes_N, groups))
    place = np.full(int(max(codes_N.max(), *groups)) + 1, -1)
    place[list(groups)] = np.arange(len(groups))
    codes_n, positive_n = place[codes_N[rows]], label.truth_N[rows] == 1
    _, patient_n = np.unique(cohort.patients_N[rows], return_inverse=True)
    num_P = np.bincount(patient_n)
    first_P = np.full(len(num_P), -1)
    first_P[patient_n[::-1]] = codes_n[::-1]
    mixed_P = np.bincount(patient_n, codes_n != first_P[patient_n]) > 0
    # Patients of one group are units themselves; of the others each row is one.
    unit_P = np.cumsum(~mixed_P) - 1
    single_n = mixed_P[patient_n]
    unit_n = np.where(single_n, 0, unit_P[patient_n])
    num_whole = int((~mixed_P).sum())
    unit_n[single_n] = num_whole + np.arange(int(single_n.sum()))
    codes_U = np.concatenate([first_P[~mixed_P], codes_n[single_n]]).astype(np.int64)
    num_positive_P = np.bincount(patient_n, positive_n)
    outcome_P = np.where(num_positive_P == 0, 0, np.where(num_positive_P == num_P, 2, 1))
    size_P = np.minimum(np.floor(np.log2(num_P)), 3).astype(np.int64)
    own_P = (outcome_P * 4 + size_P)[~mixed_P]
    strata = np.concatenate([own_P, 12 + 2 * patient_n[single_n] + positive_n[single_n]])
    of_rows = {
        name: None if (values := getattr(label, name)) is None else values[rows]
        for name in ("score_N", "truth_N", "weight_N", "time_N")
    }
    return Units(replace(label, **of_rows), unit_n, codes_U, *_movable(strata, codes_U))


def _movable(stratum_U: NDArray[np.int64], codes_U: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gather the units of the strata in which there is something to shuffle, and number these strata."""
    order = np.argsort(stratum_U, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(stratum_U[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    differ = np.maximum.reduceat(codes_U[order], starts) != np.minimum.reduceat(codes_U[order], starts)
    return order[np.repeat(differ, sizes)], np.repeat(np.arange(int(differ.sum())), sizes[differ])


class Shuffles:
    """Each metric of each group in one draw after another; how many are asked for at once says nothing."""

    def __init__(
        self, units: Units, metrics: Sequence[str], num_groups: int, threshold: float | None, *, seed: int
    ) -> None:
        """Prepare."""
        self._units, self._metrics, self._num_groups, self._threshold = units, metrics, num_groups, threshold
        self._tables = _Tables(units, threshold) if any(map(_is_of_tables, metrics)) else None
        width = max(_FEWEST_AT_ONCE, min(256, _AT_ONCE // max(len(units.codes_U), 1)))
        self._codes = _codes(units, width, seed)
        self._parts: list[dict[str, Floats]] = []
        self._num_drawn = 0

    def first(self, num: int) -> dict[str, Floats]:
        """Return each metric as it is, and in the first shuffles, [G, 1 + num]."""
        while self._num_drawn < 1 + num:
            part = self._measured(next(self._codes))
            self._parts.append(part)
            self._num_drawn += part[self._metrics[0]].shape[1]
        return {m: np.concatenate([part[m] for part in self._parts], axis=1)[:, : 1 + num] for m in self._metrics}

    def _measured(self, codes_Ub: NDArray[np.int16]) -> dict[str, Floats]:
        drawn = {m: np.full((self._num_groups, codes_Ub.shape[1]), np.nan) for m in self._metrics}
        for group in range(self._num_groups):
            inside_Ub = codes_Ub == group
            tables = None if self._tables is None else self._tables(inside_Ub)
            for m in self._metrics:
                values = METRICS[m].values
                if tables is not None and isinstance(values, Counted):
                    drawn[m][group] = values.of(tables[0])
                elif tables is not None and isinstance(values, Area) and _is_of_tables(m):
                    drawn[m][group] = values.of(tables[1])
                else:
                    drawn[m][group] = self._evaluated(inside_Ub, m)
        return drawn

    def _evaluated(self, inside_Ub: NDArray[np.bool_], metric: str) -> Floats:
        rows, weights = Cohort(self._units.unit_n.astype(np.int32), (), ()), inside_Ub.astype(np.uint8)
        replicates = evaluate(rows, self._units.label, weights, threshold=self._threshold, metrics=[metric])
        return replicates.drawn[metric][0]


def _is_of_tables(metric: str) -> bool:
    """Whether a metric follows from the histograms; others (the c-index) are evaluated draw by draw."""
    values = METRICS[metric].values
    return isinstance(values, Counted) or (isinstance(values, Area) and not values.steps and values.outside is None)


def _codes(units: Units, width: int, seed: int) -> Iterator[NDArray[np.int16]]:
    """Yield the group of each unit in each draw, [U, b]; the first draw is as it is. It does not end by itself.

    Random numbers are sorted that carry the stratum in their first bits and the code in their last: twice as fast as
    shuffling, and any number of strata at once. There are 30 random bits or more, the more the larger strata can be.
    """
    source = np.random.default_rng(seed)
    codes_V = units.codes_U[units.movable_V].astype(np.uint64)
    code_bits, stratum_bits = (int(codes.max(initial=0)).bit_length() for codes in (codes_V, units.stratum_V))
    fixed_V = (units.stratum_V.astype(np.uint64) << np.uint64(64 - stratum_bits)) if stratum_bits else np.uint64(0)
    fixed_V = fixed_V | codes_V
    yield units.codes_U[:, None].astype(np.int16)
    while True:
        codes_Ub = np.repeat(units.codes_U.astype(np.int16)[:, None], width, axis=1)
        keys = source.integers(0, 2 ** (64 - code_bits - stratum_bits), (width, len(codes_V)), np.uint64)
        keys <<= np.uint64(code_bits)
        keys |= fixed_V
        keys.sort(axis=-1)
        codes_Ub[units.movable_V] = (keys & np.uint64(2**code_bits - 1)).T
        yield codes_Ub


class _Tables:
    """Histograms of the scores of some units, by truth, and what follows from them."""

    def __init__(self, units: Units, threshold: float | None) -> None:
        label = units.label
        self._odds, self._no_finding = odds(threshold), label.no_finding
        bin_n, self._called_K = _bins(label.score_N, threshold)
        self._num_bins = len(self._called_K)
        positive_n = (label.truth_N == 1).astype(np.int64)
        weight_n = None if label.weight_N is None else np.asarray(label.weight_N, np.float64)
        self._matrix = summing_matrix(
            positive_n * self._num_bins + bin_n, 2 * self._num_bins, units.unit_n, len(units.codes_U), weight_n
        )

    def __call__(self, inside_Ub: NDArray[np.bool_]) -> tuple[Outcomes, Areas]:
        """Count the units that are inside, [b]."""
        sums_Kb = np.asarray(self._matrix @ inside_Ub.astype(self._matrix.dtype), np.float64)
        negative_Kb, positive_Kb = sums_Kb[: self._num_bins], sums_Kb[self._num_bins :]
        negatives_b, positives_b = negative_Kb.sum(axis=0), positive_Kb.sum(axis=0)
        below_Kb = np.cumsum(negative_Kb, axis=0) - negative_Kb / 2
        won_b = np.einsum("kb,kb->b", positive_Kb, below_Kb)
        hits_b, alarms_b = positive_Kb[self._called_K].sum(axis=0), negative_Kb[self._called_K].sum(axis=0)
        outcomes = Outcomes(
            tn=negatives_b - alarms_b,
            fp=alarms_b,
            fn=positives_b - hits_b,
            tp=hits_b,
            positives=positives_b,
            negatives=negatives_b,
            rows=positives_b + negatives_b,
            odds=self._odds,
            no_finding=self._no_finding,
        )
        return outcomes, Areas(ratio(won_b, positives_b * negatives_b), None, positives_b, negatives_b, won_b)


def _bins(score_n: Floats, threshold: float | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the bin of each score, and which bins are called positive."""
    values, bin_n = np.unique(score_n, return_inverse=True)
    if len(values) > NUM_BINS:
        inner = np.quantile(score_n, np.arange(1, NUM_BINS) / NUM_BINS, method="inverted_cdf")
        values = np.unique(np.r_[values[0], inner, [] if threshold is None else threshold])
        bin_n = np.searchsorted(values, score_n, side="right") - 1
    called = np.zeros(len(values), bool) if threshold is None else values >= threshold
    return np.maximum(bin_n, 0).astype(np.int64), called


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

"""Gaps: one number for how far the groups of an attribute are apart.

For a metric m with groups a and the value m of everybody:

- between groups: max m_a − min m_a, as a ratio min m_a / max m_a;
- to overall: max |m_a − m|, as a ratio min over a of min(m_a/m, m/m_a);
- worst − overall: how much worse than everybody the worst group fares (for a rate that is neither good nor bad, such
  as the selection rate, the largest distance).

Equalised odds joins TPR and FPR by the larger gap (worst case) or their mean. Values agree with fairlearn's where
fairlearn has the measure, but a group in which a metric is not defined (no positives: no TPR) is left out: fairlearn
writes 0 there, which makes a gap of up to 1 out of nothing. Fewer than two groups: no gap.

A largest-minus-smallest gap is biased upwards: where groups do not differ at all it is still above 0. Its interval is
therefore not from its own replicates: it is that of the largest of all differences it is taken from, simultaneous
over them (largest |difference − measured|/SE of the replicates), each from the intervals of its two groups (MOVER), at
either sign. So it holds the true gap in at least 95 % of samples, and may hold 0. (Value ± t · SE held the AUROC gap
of two alike groups of 400 and 40 in 90 to 92 %, MOVER in 98 %.) A mean over two metrics has the mean of their ends. A
ratio is the smallest of the ratios of all pairs, each with the interval that follows from those of its two rates
(MOVER), at a level that makes them hold together (Bonferroni). None of them is the test: that is by permutation
(`medclip.auditing.groups.gap_test`).

References: Hardt, Price & Srebro, NeurIPS 2016 (equalised odds, equal opportunity); Chouldechova, Big Data 5 (2017)
153-163 (predictive parity); Dwork et al., ITCS 2012 (demographic parity); Borkan et al., WWW 2019 companion, 491-500
(cross-group AUC); Weerts et al., JMLR 24 (2023) 257 (fairlearn); Romano & Wolf, Econometrica 73 (2005) 1237-1282
(simultaneous intervals from the bootstrap); Zou & Donner, Stat. Med. 27 (2008) 1693-1702 (differences, MOVER); Donner
& Zou, Stat. Methods Med. Res. 21 (2012) 347-359 (ratios).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from medclip.statistics.estimate import LEVEL
from medclip.statistics.metrics.catalogue import METRICS
from medclip.statistics.resampling.bootstrap import Replicates
from medclip.statistics.resampling.intervals import least_ratio, of
from medclip.statistics.resampling.standard_errors import MOST_UNDEFINED, Clusters, standard_errors

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GapInfo:
    """What a gap is."""

    title: str
    metrics: tuple[str, ...]
    """Metrics it is made of; more than one are joined by `join`."""
    compare: str
    """"between", "overall" (either direction) or "worst" (than everybody)."""
    ratio: bool
    """Whether values are divided (1: no gap) and not subtracted (0: no gap)."""
    join: str
    """"worst" or "mean"."""
    formula: str
    reference: str


@dataclass(frozen=True, eq=False)
class Gap:
    """A gap that was measured."""

    name: str
    value: float
    """NaN with fewer than two groups in which the metric is defined."""
    low: float
    high: float
    worst_group: int | None
    """Cell of the group that fares worst (lowest selection rate; farthest from overall), by the metric that decides."""
    best_group: int | None
    """None for gaps to overall."""
    num_groups: int
    """Groups in which the metrics are defined."""
    drawn_B: _Floats
    """The gap in each replicate; NaN where a group was not defined."""


_NAMED = {
    "equalised_odds": ("equalised odds", ("tpr", "fpr"), "Hardt et al. 2016"),
    "equal_opportunity": ("equal opportunity", ("tpr",), "Hardt et al. 2016"),
    "predictive_parity": ("predictive parity", ("ppv",), "Chouldechova 2017"),
    "demographic_parity": ("demographic parity", ("selection_rate",), "Dwork et al. 2012"),
    "cross_group_auroc": ("cross-group AUROC", ("auroc_bpsn", "auroc_bnsp"), "Borkan et al. 2019"),
}
_VARIANTS = (("", "between", False), ("_overall", "overall", False), ("_ratio", "between", True))
_VARIANTS += (("_ratio_overall", "overall", True),)
_FORMULAS = {
    ("between", False): "max m_a − min m_a",
    ("between", True): "min m_a / max m_a",
    ("overall", False): "max |m_a − m|",
    ("overall", True): "min over a of min(m_a/m, m/m_a)",
}


def _named() -> dict[str, GapInfo]:
    values = {}
    for name, (title, metrics, reference) in _NAMED.items():
        for suffix, compare, ratio in _VARIANTS:
            if name == "cross_group_auroc" and suffix:
                continue
            words = title + (", ratio" if ratio else "") + (", to overall" if compare == "overall" else "")
            for join in ("worst", "mean") if len(metrics) > 1 and name != "cross_group_auroc" else ("worst",):
                joined = ""
                if len(metrics) > 1:
                    how = "mean" if join == "mean" else ("min" if ratio else "max")
                    joined = f"{how} over m in ({', '.join(metrics)}) of "
                formula = joined + _FORMULAS[compare, ratio]
                if not joined:
                    formula = formula.replace("m_a", f"{metrics[0]}_a").replace("m|", f"{metrics[0]}|")
                    formula = formula.replace("/m,", f"/{metrics[0]},").replace(" m/", f" {metrics[0]}/")
                mean = "_mean" if join == "mean" else ""
                full = words + (", mean" if mean else "")
                values[name + suffix + mean] = GapInfo(full, metrics, compare, ratio, join, formula, reference)
    return values


NAMED: Mapping[str, GapInfo] = _named()
"""Gaps that have a name of their own; all others are of one metric."""


def _largest(m: str) -> GapInfo:
    info, formula = METRICS[m], f"max {m}_a − min {m}_a"
    return GapInfo(f"{info.title}, largest − smallest", (m,), "between", False, "worst", formula, info.reference)


def _worst(m: str) -> GapInfo:
    info = METRICS[m]
    formula = {"high": f"{m} − min {m}_a", "low": f"max {m}_a − {m}"}.get(str(info.better), f"max |{m}_a − {m}|")
    return GapInfo(f"{info.title}, worst − overall", (m,), "worst", False, "worst", formula, info.reference)


_OF_ONE = {"_max_min": _largest, "_worst_overall": _worst}


def gap_names() -> list[str]:
    """List every gap: two of each metric, then those that have a name of their own."""
    return [*(metric + ending for metric in METRICS for ending in _OF_ONE), *NAMED]


def is_gap(name: str) -> bool:
    """Whether there is a gap of this name."""
    return name in NAMED or any(name.endswith(e) and name.removesuffix(e) in METRICS for e in _OF_ONE)


def gap_info(name: str) -> GapInfo:
    """Describe a gap by its name."""
    for ending, describe in _OF_ONE.items():
        if name.endswith(ending):
            return describe(name.removesuffix(ending))
    return NAMED[name]


def gaps(
    replicates: Replicates, cells: Sequence[int], clusters: Clusters, names: Sequence[str] | None = None
) -> dict[str, Gap]:
    """Measure gaps between some groups of one attribute.

    Args:
        replicates: Replicates from `bootstrap.evaluate`; column 0 is everybody.
        cells: Columns of the groups that may be shown.
        clusters: Clusters of the same cohort and label, from `standard_errors.clusters_of`.
        names: Names of gaps, from `gap_names`; left out, all whose metrics are there.

    Returns:
        In the order of the names, each with its interval.
    """
    if names is None:
        names = [n for n in gap_names() if all(m in replicates.point for m in gap_info(n).metrics)]
    return {name: _gap(name, replicates, list(cells), clusters) for name in names}


def gap_values(info: GapInfo, groups_MGB: _Floats, overall_MB: _Floats) -> _Floats:
    """Return a gap for values of any origin.

    Returns:
        [B]; NaN where a value is NaN or there are fewer than two groups.
    """
    if groups_MGB.shape[1] < 2:
        return np.full(groups_MGB.shape[2], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        single_MB = np.stack([_single(info, m, groups_MGB[i], overall_MB[i]) for i, m in enumerate(info.metrics)])
    if info.join == "mean":
        return single_MB.mean(axis=0)
    return single_MB.min(axis=0) if info.ratio else single_MB.max(axis=0)


def _single(info: GapInfo, metric: str, groups_GB: _Floats, overall_B: _Floats) -> _Floats:
    if info.compare == "between":
        low, high = groups_GB.min(axis=0), groups_GB.max(axis=0)
        return low / high if info.ratio else high - low
    if info.ratio:
        share = groups_GB / overall_B
        return np.where(share > 1, 1 / share, share).min(axis=0)
    better = METRICS[metric].better
    if info.compare == "overall" or better is None:
        return np.abs(groups_GB - overall_B).max(axis=0)
    return overall_B - groups_GB.min(axis=0) if better == "high" else groups_GB.max(axis=0) - overall_B


def _gap(name: str, replicates: Replicates, cells: list[int], clusters: Clusters) -> Gap:
    info = gap_info(name)
    points_MG = np.stack([replicates.point[m][cells] for m in info.metrics])
    valid = np.asarray(~np.isnan(points_MG).any(axis=0))
    used = [c for c, v in zip(cells, valid, strict=True) if v]
    num_replicates = replicates.drawn[info.metrics[0]].shape[1]
    if len(used) < 2:
        nan = float("nan")
        return Gap(name, nan, nan, nan, None, None, len(used), np.full(num_replicates, np.nan))
    points_MG = points_MG[:, valid]
    overall_M = np.stack([replicates.point[m][:1] for m in info.metrics])
    value = float(gap_values(info, points_MG[:, :, None], overall_M)[0])
    drawn_B = gap_values(
        info,
        np.stack([replicates.drawn[m][used] for m in info.metrics]),
        np.stack([replicates.drawn[m][0] for m in info.metrics]),
    )
    ends = _of_ratios if info.ratio else _of_differences
    low, high = (float("nan"),) * 2 if np.isnan(value) else ends(info, replicates, used, clusters)
    worst, best = _extremes(info, points_MG, overall_M)
    return Gap(name, value, low, high, used[worst], None if best is None else used[best], len(used), drawn_B)


def _of_differences(info: GapInfo, replicates: Replicates, used: list[int], clusters: Clusters) -> tuple[float, float]:
    """Interval of the largest of some differences: each has the reach at which all of them hold together."""
    first, second = _compared(info, used)
    values_MK = [replicates.point[m][first] - replicates.point[m][second] for m in info.metrics]
    drawn_MKB = [replicates.drawn[m][first] - replicates.drawn[m][second] for m in info.metrics]
    largest_B = np.zeros(drawn_MKB[0].shape[1])
    for value_K, drawn_KB in zip(values_MK, drawn_MKB, strict=True):
        error_K = np.maximum(np.nanstd(drawn_KB, axis=1, ddof=1), 1e-12)
        largest_B = np.maximum(largest_B, (np.abs(drawn_KB - value_K[:, None]) / error_K[:, None]).max(axis=0))
    known_B = largest_B[~np.isnan(largest_B)]
    if len(known_B) < (1 - MOST_UNDEFINED) * len(largest_B):
        return float("nan"), float("nan")
    # Never less than one difference by itself has: where no answer was wrong, all resamples are alike.
    wide = max(float(np.quantile(known_B, LEVEL)), float(ndtri((1 + LEVEL) / 2)))
    ends = _between if info.compare == "between" else _from_everybody
    lows, highs = zip(
        *(
            ends(info, replicates, metric, (first, second), clusters, float(2 * ndtr(wide) - 1))
            for metric in info.metrics
        ),
        strict=True,
    )
    join = np.mean if info.join == "mean" else np.max
    return float(join(lows)), float(join(highs))


_Pairs = tuple[list[int], list[int]]


def _between(
    info: GapInfo, replicates: Replicates, metric: str, pairs: _Pairs, clusters: Clusters, level: float
) -> tuple[float, float]:
    """Ends of the largest distance between two groups, from the intervals of both (MOVER): they share no patient."""
    low_G, high_G, _ = of(replicates, metric, clusters, level=level)
    value_G = replicates.point[metric]
    higher, lower = (np.where(value_G[pairs[0]] >= value_G[pairs[1]], *both) for both in (pairs, pairs[::-1]))
    apart_K = value_G[higher] - value_G[lower]
    down_K = np.hypot(value_G[higher] - low_G[higher], high_G[lower] - value_G[lower])
    up_K = np.hypot(high_G[higher] - value_G[higher], value_G[lower] - low_G[lower])
    # Where both signs are possible the distance may be 0, and as large as the larger of both reaches.
    return max(0.0, float((apart_K - down_K).max())), float(np.maximum(apart_K + up_K, down_K - apart_K).max())


def _from_everybody(
    info: GapInfo, replicates: Replicates, metric: str, pairs: _Pairs, clusters: Clusters, level: float
) -> tuple[float, float]:
    """Ends of the largest distance from everybody, of whom the group is a part: value ± t · SE."""
    first, second = pairs
    mended = standard_errors(replicates, metric, clusters)
    # The own mend of everybody is next to nothing and is left out.
    added_K = (mended.variance_G - mended.bootstrap_G * mended.df_G / (mended.df_G + 1))[first]
    value_K = replicates.point[metric][first] - replicates.point[metric][second]
    drawn_KB = replicates.drawn[metric][first] - replicates.drawn[metric][second]
    sign_K = np.where(value_K < 0, -1.0, 1.0)
    if info.compare == "worst" and (better := METRICS[metric].better) is not None:
        sign_K = np.full(len(value_K), -1.0 if better == "high" else 1.0)
    reach_K = stdtrit(float(mended.df_G[first].min()), (1 + level) / 2) * np.sqrt(
        np.nanvar(drawn_KB, axis=1, ddof=1) + added_K
    )
    distance_K = value_K * sign_K
    return max(0.0, float((distance_K - reach_K).max())), float((distance_K + reach_K).max())


def _of_ratios(info: GapInfo, replicates: Replicates, used: list[int], clusters: Clusters) -> tuple[float, float]:
    """Interval of the smallest of some ratios of rates, from the intervals of the rates."""
    first, second = _compared(info, used)
    level = 1 - (1 - LEVEL) / (len(first) * len(info.metrics))
    lows, highs = [], []
    for metric in info.metrics:
        low_G, high_G, _ = of(replicates, metric, clusters, level=level)
        value_G = replicates.point[metric]
        a, b = first + second, second + first
        least_K = least_ratio(value_G[a], low_G[a], value_G[b], high_G[b])
        lows.append(float(least_K.min()))
        highs.append(1 / float(np.maximum(1.0, least_K.max())))  # the most a/b can be: 1 over the least of b/a
    return (float(np.mean(lows)), float(np.mean(highs))) if info.join == "mean" else (min(lows), min(highs))


def _compared(info: GapInfo, used: list[int]) -> tuple[list[int], list[int]]:
    """Columns of the first and of the second of all differences that the gap is the largest of."""
    if info.compare != "between":
        return used, [0] * len(used)
    pairs = list(combinations(used, 2))
    return [a for a, _ in pairs], [b for _, b in pairs]


def _extremes(info: GapInfo, points_MG: _Floats, overall_M1: _Floats) -> tuple[int, int | None]:
    """Which groups make the gap, for the metric that decides it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [
            _single(info, m, points_MG[i][:, None], overall_M1[i])[0] * (-1 if info.ratio else 1)
            for i, m in enumerate(info.metrics)
        ]
    decides = int(np.argmax(np.where(np.isnan(each), -np.inf, each)))
    values_G, better = points_MG[decides], METRICS[info.metrics[decides]].better
    if info.compare == "overall" or (info.compare == "worst" and better is None):
        distance = np.abs(values_G - overall_M1[decides])
        if info.ratio:
            with np.errstate(invalid="ignore", divide="ignore"):
                distance = np.abs(np.log(values_G / overall_M1[decides]))
        return int(np.argmax(distance)), None
    ends = int(np.argmin(values_G)), int(np.argmax(values_G))
    return (ends[1], ends[0]) if better == "low" else ends

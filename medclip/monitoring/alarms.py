"""Alarms: which scanner, site, view or protocol changed, and since when, with one stated rate of false alarms a year.

A chart is one figure of one stratum: scores of a class, distances to the pack's home, the share of patients with a file
that was not scored, directions of vectors; of everything, and of each scanner, site, view and protocol. At each look
(week, month or run) it asks whether the last 1, 2, 3, 4, 6, 8, ... looks differ from all before them, the reference
among these: a slow drift adds up, and what came before need not be known exactly, since it is one side of each
comparison. So a chart is a change-point model, a likelihood-ratio CUSUM whose size of change is not chosen beforehand.

Values are ranked among those of the chart's own reference and become normal scores, a value for each patient and look:
means of few patients are then nearly normal, and an outlier counts as a rank. Shares have the signed root of the
likelihood ratio.

A look alarms where the largest statistic of all charts is above that look's limit. The limit is drawn: residuals of
patients are multiplied by normal numbers, one for each patient, so that all charts, looks and repeated visits of a
patient keep their correlation, and the limit of a look is what the largest statistic of so many charts exceeds in
`rate / looks a year` of the draws that are not in an alarm already. Limits use the sizes that really came, so that
missing weeks, small strata and scanners that came later cost nothing extra.

One change moves many charts. The alarm is led by the chart that moved most; others join it where nothing of them is
left without the leader's images.

References: Page, Biometrika 41 (1954) 100-115 (CUSUM); Hawkins, Qiu & Kang, J. Quality Technology 35 (2003) 355-366
(change-point model of unknown parameters); Lai, JRSS-B 57 (1995) 613-658 (windows that grow geometrically); Hawkins &
Deng, J. Quality Technology 42 (2010) 165-173 (ranks); Zhang & Woodall, Stat. Med. 34 (2015) 3336-3348 (limits of equal
false alarms at each look); Chernozhukov, Chetverikov & Kato, Ann. Stat. 41 (2013) 2786-2819 (multipliers for the
largest of many means).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.monitoring.read_results import NOT_STATED, NUM_FIRST, SCORED, SEVERAL, Periods, Watched
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.sums import means
from medclip.statistics.resampling.weights import draw_weights

Floats = NDArray[np.float64]

FALSE_ALARMS_A_YEAR = 1.0
LOOKS_A_YEAR = {"week": 52, "month": 12, "run": 365}
"""Runs are taken for nights: where they are rarer, false alarms are, too."""
FEWEST_PATIENTS = 20
"""Of a chart's reference."""
EVERYTHING = "everything"
OTHERS = "others"
WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Looks that are compared with all before them."""
_NUM_SIMULATED = 1000
_SET_ASIDE = 8
"""Looks for which a simulated alarm is not counted again."""
_TAIL = 0.10
"""Share of the simulated statistics that the limit's tail is fitted to."""
_RECENT = 4
"""Looks by which an alarm is found to be over."""
_AS_BEFORE = 2.0
"""Statistic of the recent looks below which they are as before."""
_JOINS = 3.0
"""Statistic without the leader's images below which a chart moved with them."""
_ALIKE = 0.02
"""Standard deviation of probabilities below which their logits are shown: 1.00 before and 1.00 after says nothing."""
_NUM_DIRECTIONS = 5
"""Of vectors: principal axes of the reference."""


@dataclass(frozen=True)
class Alarm:
    """One chart that went above its limit."""

    event: int
    """Number of the change that it belongs to, from 1; the first row of an event is its leader."""
    fact: str
    """scanner, site, view, protocol or modality; everything."""
    stratum: str
    """Which one; "" for everything."""
    about: str
    """scores, distance, files or vectors."""
    subject: str
    """Task and class, modality, or direction."""
    measure: str
    """mean probability, mean logit where nearly all probabilities are alike, mean distance, share of patients."""
    period: str
    """When it went above the limit."""
    since: str
    """First period after the change, as far as the figures tell."""
    until: str
    """When the figures were as before again; "" where they are not."""
    before: float
    """Mean over patients, or the share of patients."""
    after: float
    difference: float
    low: float
    high: float
    statistic: float
    limit: float
    num_patients_before: int
    num_patients_after: int


@dataclass(frozen=True)
class ChartPoint:
    """One look of the chart that leads an alarm."""

    event: int
    period: str
    """The first is the reference."""
    num_patients: int
    value: float
    """Mean by patient; NaN where there was none."""
    statistic: float
    """Signed; NaN in the chart's reference."""
    limit: float


@dataclass(frozen=True)
class Alarms:
    """What the charts of some runs say."""

    alarms: tuple[Alarm, ...]
    points: tuple[ChartPoint, ...]
    num_charts: int
    strata: tuple[tuple[str, int], ...]
    """Facts, and how many of their values have charts."""
    rate: float
    """False alarms a year that the limits are for."""
    num_looks: int
    notes: tuple[str, ...] = ()

    @property
    def stand(self) -> bool:
        """Whether an alarm stands at the end of the watched time."""
        return any(not alarm.until for alarm in self.alarms)


@dataclass(frozen=True, eq=False)
class _Figure:
    """The rows of one figure: of studies or units."""

    about: str
    subject: str
    patients_N: NDArray[np.int64]
    look_N: NDArray[np.int64]
    """0 for the reference; -1 for rows that are of no look."""
    value_N: Floats
    facts: dict[str, NDArray[np.object_]]
    measure: str
    shown_N: Floats
    """Value in the units of the measure."""

    @property
    def is_share(self) -> bool:
        return self.about == "files"


@dataclass(frozen=True, eq=False)
class _Chart:
    """One figure of one stratum, a row for each patient and look."""

    figure: _Figure
    fact: str
    stratum: str
    mask_N: NDArray[np.bool_]
    patients_M: NDArray[np.int64]
    look_M: NDArray[np.int64]
    y_M: Floats
    """Normal scores among the reference; 0 or 1 for shares."""
    shown_M: Floats
    last_reference: int
    """Last look of the chart's reference."""
    scale: float
    """Standard deviation of the reference."""


def alarms_of(
    watched: Watched,
    reference: Watched | None,
    periods: Periods,
    *,
    rate: float = FALSE_ALARMS_A_YEAR,
    fewest: int = FEWEST_PATIENTS,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Alarms:
    """Look at all charts, period after period, as if each had been the last.

    Args:
        watched: The runs that are watched.
        reference: Runs of the time before; None for the first `NUM_FIRST` periods of the watched ones.
        periods: Periods that the time of the watched runs is divided into: the looks.
        rate: False alarms a year that are accepted, over all charts.
        fewest: Patients that the reference of a chart needs.
        num_resamples: Resamples of patients for the intervals of before and after.
        seed: Seed of all draws.

    Returns:
        The alarms in the order in which they came, leaders before those that joined them.
    """
    num_first = 0 if reference is not None else min(NUM_FIRST, max(1, len(periods.names) - 1))
    names = ("the reference", *periods.names[num_first:])
    notes: list[str] = []
    charts: list[_Chart] = []
    strata: dict[str, set[str]] = {}
    pooled: dict[str, set[str]] = {}
    new: dict[tuple[str, str], int] = {}
    for figure in _figures(watched, reference, periods, num_first):
        for chart in _charts(figure, len(names), fewest, pooled):
            charts.append(chart)
            strata.setdefault(chart.fact, set()).add(chart.stratum)
            if chart.last_reference > 0 and chart.fact != EVERYTHING:
                new.setdefault((chart.fact, chart.stratum), chart.last_reference)
    notes += [
        f"The {fact} “{stratum}” has no {fewest} patients in the reference: its own reference goes up to {names[last]}."
        for (fact, stratum), last in sorted(new.items())
    ]
    notes += [
        f"Too few patients for charts of their own, and watched together as one: {len(values)} values of {fact}."
        for fact, values in sorted(pooled.items())
        if len(values) > 1
    ]
    looks = LOOKS_A_YEAR[periods.by]
    limits_L, factors = _limits(charts, len(names), min(rate / looks, 0.5), seed)
    alarms, points = _watch(charts, factors, limits_L, names, num_resamples, seed)
    counted = tuple((fact, len(values)) for fact, values in strata.items() if fact != EVERYTHING)
    return Alarms(tuple(alarms), tuple(points), len(charts), counted, rate, len(names) - 1, tuple(notes))


def _figures(watched: Watched, reference: Watched | None, periods: Periods, num_first: int) -> Iterator[_Figure]:
    """Yield scores, distances, failures and directions of vectors, with the rows of the reference in front."""

    def looks(table: Any, before: Any, suffix: str) -> NDArray[np.int64]:
        codes = periods.codes(getattr(table, f"week_{suffix}"), getattr(table, f"run_{suffix}"))
        codes = np.where(codes < 0, -1, np.maximum(codes - num_first + 1, 0))
        if before is None:
            return codes
        return np.concatenate([np.zeros(len(getattr(before, f"run_{suffix}")), np.int64), codes])

    def both(now: NDArray[Any], before: NDArray[Any] | None) -> NDArray[Any]:
        return now if before is None else np.concatenate([before, now])

    def facts_of(now: Any, before: Any) -> dict[str, NDArray[np.object_]]:
        return {name: both(now.facts[name], None if before is None else before.facts[name]) for name in now.facts}

    earlier = {} if reference is None else {(q.task, q.name): q for q in reference.questions}
    for question in watched.questions:
        other = earlier.get((question.task, question.name))
        if reference is not None and other is None:
            continue
        probability = both(question.probability_N, None if other is None else other.probability_N)
        logit = both(question.logit_N, None if other is None else other.logit_N)
        patients = both(question.patients_N, None if other is None else other.patients_N)
        look = looks(question, other, "N")
        of_reference = probability[look == 0]
        is_alike = len(of_reference) > 0 and float(of_reference.std()) < _ALIKE
        shown = ("mean logit", logit) if is_alike else ("mean probability", probability)
        yield _Figure("scores", question.title, patients, look, logit, facts_of(question, other), *shown)

    units, before = watched.units, None if reference is None else reference.units
    patients = both(units.patients_U, None if before is None else before.patients_U)
    look, facts = looks(units, before, "U"), facts_of(units, before)
    distance = both(units.distance_U, None if before is None else before.distance_U)
    for modality in sorted(set(facts["modality"][~np.isnan(distance)].tolist())):
        rows = ~np.isnan(distance) & (facts["modality"] == modality)
        of_rows = {name: values[rows] for name, values in facts.items()}
        values = distance[rows]
        yield _Figure("distance", modality, patients[rows], look[rows], values, of_rows, "mean distance", values)
    unscored = (both(units.status_U, None if before is None else before.status_U) != SCORED).astype(np.float64)
    if unscored.any():
        yield _Figure("files", "not scored", patients, look, unscored, facts, "share of patients", unscored)
    yield from _directions(watched, reference, looks, both, facts_of)


def _directions(watched: Watched, reference: Watched | None, looks: Any, both: Any, facts_of: Any) -> Iterator[_Figure]:
    """Yield the projections of vectors on the principal axes of the reference."""
    vectors, before = watched.vectors, None if reference is None else reference.vectors
    if vectors is None or (reference is not None and (before is None or before.pack != vectors.pack)):
        return
    values = both(vectors.vectors_ND, None if before is None else before.vectors_ND)
    patients = both(vectors.patients_N, None if before is None else before.patients_N)
    look, facts = looks(vectors, before, "N"), facts_of(vectors, before)
    of_reference = values[look == 0].astype(np.float64)
    if len(of_reference) <= _NUM_DIRECTIONS:
        return
    axes = np.linalg.svd(of_reference - of_reference.mean(axis=0), full_matrices=False)[2][:_NUM_DIRECTIONS]
    for place, axis in enumerate(axes, 1):
        along = (values - of_reference.mean(axis=0)) @ axis
        yield _Figure("vectors", f"direction {place}", patients, look, along, facts, "mean", along)


def _charts(figure: _Figure, num_looks: int, fewest: int, pooled: dict[str, set[str]]) -> Iterator[_Chart]:
    """Yield the charts of a figure: everything, then each stratum that is not the same images once more."""
    inside = figure.look_N >= 0
    seen: set[bytes] = set()

    def chart_of(fact: str, stratum: str, mask: NDArray[np.bool_]) -> _Chart | None:
        code = np.packbits(mask).tobytes()
        chart = None if code in seen else _chart(figure, fact, stratum, mask, num_looks, fewest)
        seen.add(code)
        return chart

    everything = chart_of(EVERYTHING, "", inside)
    if everything is not None:
        yield everything
    for fact in (name for name in ("scanner", "site", "view", "protocol", "modality") if name in figure.facts):
        values = figure.facts[fact]
        small = []
        for stratum in sorted(set(values[inside].tolist()) - {NOT_STATED, SEVERAL}):
            mask = inside & (values == stratum)
            chart = chart_of(fact, str(stratum), mask)
            if chart is not None:
                yield chart
            elif not _is_chartable(figure, mask, num_looks, fewest):
                small.append(str(stratum))
        if small:
            pooled.setdefault(fact, set()).update(small)
            if len(small) > 1 and (chart := chart_of(fact, OTHERS, inside & np.isin(values, small))) is not None:
                yield chart


def _is_chartable(figure: _Figure, mask: NDArray[np.bool_], num_looks: int, fewest: int) -> bool:
    _, look = _patients_by_look(figure, mask, num_looks)[:2]
    return _last_reference(look, num_looks, fewest) is not None


def _patients_by_look(
    figure: _Figure, mask: NDArray[np.bool_], num_looks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Return a row for each patient and look: both, and the means of value and shown value; of shares the largest."""
    keys, places = np.unique(figure.patients_N[mask] * num_looks + figure.look_N[mask], return_inverse=True)
    counts = np.maximum(np.bincount(places, minlength=len(keys)), 1)
    value, shown = (
        np.bincount(places, of[mask], minlength=len(keys)) / counts for of in (figure.value_N, figure.shown_N)
    )
    if figure.is_share:
        value = shown = (value > 0).astype(np.float64)
    return keys // num_looks, keys % num_looks, value, shown


def _last_reference(look_M: NDArray[np.int64], num_looks: int, fewest: int) -> int | None:
    """Return the look at whose end enough patients had come; None where nothing comes after it."""
    enough = np.flatnonzero(np.cumsum(np.bincount(look_M, minlength=num_looks)) >= fewest)
    return int(enough[0]) if len(enough) and (look_M > enough[0]).any() else None


def _chart(
    figure: _Figure, fact: str, stratum: str, mask: NDArray[np.bool_], num_looks: int, fewest: int
) -> _Chart | None:
    patients, look, value, shown = _patients_by_look(figure, mask, num_looks)
    last = _last_reference(look, num_looks, fewest)
    if last is None:
        return None
    y, scale = value, 1.0
    if not figure.is_share:
        y = _normal_scores(value, np.sort(value[look <= last]))
        scale = float(y[look <= last].std())
        if not scale > 0:
            return None
    return _Chart(figure, fact, stratum, mask, patients, look, y, shown, last, scale)


def _normal_scores(value_M: Floats, reference_R: Floats) -> Floats:
    """Return the normal quantile of each value's rank among the sorted reference; ties share the middle."""
    from scipy.special import ndtri

    below, upto = (np.searchsorted(reference_R, value_M, side=side) for side in ("left", "right"))
    return ndtri(((below + upto) / 2 + 0.5) / (len(reference_R) + 1))


def _sums(look_M: NDArray[np.int64], y_M: Floats, num_looks: int) -> tuple[Floats, Floats]:
    return (
        np.bincount(look_M, minlength=num_looks).astype(np.float64),
        np.bincount(look_M, y_M, minlength=num_looks).astype(np.float64),
    )


def _differences(
    num_L: NDArray[np.floating], sum_LB: NDArray[np.floating], scale: float, last: int, windows: Sequence[int]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield, for each window, the statistic of each look that it fits into, [looks, ...]; 0 where nothing came."""
    nums, sums = (np.concatenate([np.zeros_like(of[:1]), np.cumsum(of, axis=0)]) for of in (num_L, sum_LB))
    for window in windows:
        first = last + window  # the first look with this window behind its reference
        if first >= len(num_L):
            return
        before = slice(first + 1 - window, len(nums) - window)
        upto = slice(first + 1, len(nums))
        num_before, num_after = nums[before], nums[upto] - nums[before]
        errors = scale * np.sqrt(1 / np.maximum(num_before, 1) + 1 / np.maximum(num_after, 1))
        inverse = np.where((num_before > 0) & (num_after > 0), 1 / errors, 0.0)
        shape = (-1, *(1,) * (sum_LB.ndim - 1))
        after = (sums[upto] - sums[before]) / np.maximum(num_after, 1).reshape(shape)
        yield first, (after - sums[before] / np.maximum(num_before, 1).reshape(shape)) * inverse.reshape(shape)


def _limits(charts: Sequence[_Chart], num_looks: int, share: float, seed: int) -> tuple[Floats, list[float]]:
    """Return the limit of each look, and how much wider each chart's statistic is than of single patients."""
    from scipy import sparse

    if not charts:
        return np.full(num_looks, math.inf), []
    num_patients = 1 + max(int(chart.patients_M.max()) for chart in charts)
    largest_LB = np.zeros((num_looks, _NUM_SIMULATED), np.float32)
    factors = []
    drawn = {
        is_share: np.random.default_rng([seed, is_share]).standard_normal((num_patients, _NUM_SIMULATED), np.float32)
        for is_share in {chart.figure.is_share for chart in charts}
    }
    for chart in charts:
        residuals = _residuals(chart, num_looks).astype(np.float32)
        shape = (num_looks, num_patients)
        of_patients = sparse.csr_array((residuals, (chart.look_M, chart.patients_M)), shape=shape)
        sums_LB = of_patients @ drawn[chart.figure.is_share]
        num_L = np.bincount(chart.look_M, minlength=num_looks).astype(np.float32)
        parts = list(_differences(num_L, sums_LB, 1.0, chart.last_reference, WINDOWS))
        squares = np.concatenate([np.mean(part**2, axis=1) for _, part in parts])
        squares = squares[squares > 0]
        factor = float(np.sqrt(squares.mean())) if len(squares) else 1.0
        factors.append(factor)
        for first, part in parts:
            np.maximum(largest_LB[first:], np.abs(part) / factor, out=largest_LB[first:])
    return _limits_of(largest_LB, share), factors


def _residuals(chart: _Chart, num_looks: int) -> Floats:
    """Return each patient's residual from its look's mean, in standard deviations; of shares 1, of which few vary."""
    if chart.figure.is_share:
        return np.ones(len(chart.y_M))
    num_L, sum_L = _sums(chart.look_M, chart.y_M, num_looks)
    num_M = num_L[chart.look_M]
    alone = num_M < 2
    residuals = (chart.y_M - (sum_L / np.maximum(num_L, 1))[chart.look_M]) * np.sqrt(num_M / np.maximum(num_M - 1, 1))
    residuals = np.where(alone, np.clip(chart.y_M / chart.scale, -2, 2), residuals / chart.scale)
    size = float(np.sqrt(np.mean(residuals**2)))
    return residuals / size if size > 0 else np.ones(len(residuals))


def _limits_of(largest_LB: NDArray[np.float32], share: float) -> Floats:
    """Return the limits that a share of the draws exceeds which are not in an alarm; infinite where nothing can alarm.

    Squares of the largest statistic have an exponential tail, which is fitted: a share of 1 in 365 of a thousand draws
    would be three of them.
    """
    limits = np.full(len(largest_LB), math.inf)
    resting_B = np.zeros(largest_LB.shape[1], np.int64)
    for look, largest_B in enumerate(largest_LB):
        resting_B = np.maximum(resting_B - 1, 0)
        squares = np.sort(largest_B[resting_B == 0].astype(np.float64) ** 2)
        if not len(squares) or squares[-1] <= 0:
            continue
        start = np.quantile(squares, 1 - _TAIL)
        if share < _TAIL:
            limits[look] = math.sqrt(start + float((squares[squares > start] - start).mean()) * math.log(_TAIL / share))
        else:
            limits[look] = math.sqrt(np.quantile(squares, 1 - share))
        resting_B[(largest_B > limits[look]) & (resting_B == 0)] = _SET_ASIDE
    return limits


@dataclass(eq=False)
class _State:
    """One chart while its looks are gone through."""

    chart: _Chart
    factor: float
    num_L: Floats
    sum_L: Floats
    statistic_L: Floats
    """Signed, the largest of the windows."""
    alarm: list[Any] | None = None
    """Event, look of the alarm, first look after the change, look at which it was over; None where it is quiet."""

    def statistics(self, look: int, windows: Sequence[int] | None = None) -> tuple[Floats, NDArray[np.int64]]:
        """Return the statistic of each window that ends at a look, and the first look of each."""
        most = look - self.chart.last_reference
        chosen = np.array([window for window in (windows or WINDOWS) if window <= most], np.int64)
        return self.of_split(look, look + 1 - chosen), look + 1 - chosen

    def of_split(self, look: int, first_K: NDArray[np.int64], start: int = 0) -> Floats:
        """Return the statistic of the looks from `first_K` to a look against those before."""
        nums, sums = (np.concatenate([[0.0], np.cumsum(of)]) for of in (self.num_L, self.sum_L))
        n1, s1 = nums[first_K] - nums[start], sums[first_K] - sums[start]
        n2, s2 = nums[look + 1] - nums[first_K], sums[look + 1] - sums[first_K]
        return two_sample(n1, s1, n2, s2, self.chart.scale, is_share=self.chart.figure.is_share) / self.factor

    def leave_out(self, first: int, last: int) -> None:
        """Forget looks that were in an alarm that is over."""
        for of in (self.num_L, self.sum_L):
            of[first : last + 1] = 0.0


def two_sample(n1: Any, s1: Any, n2: Any, s2: Any, scale: float, *, is_share: bool) -> Floats:
    """Return the signed statistic of two means or shares, standard normal where nothing changed; 0 without patients.

    Args:
        n1: Patients before.
        s1: Sum of their values.
        n2: Patients after.
        s2: Sum of their values.
        scale: Standard deviation of a patient; not looked at for shares.
        is_share: Whether values are 0 or 1: then the signed root of the likelihood ratio.
    """
    m1, m2 = s1 / np.maximum(n1, 1), s2 / np.maximum(n2, 1)
    empty = (n1 < 1) | (n2 < 1)
    if not is_share:
        error = scale * np.sqrt(1 / np.maximum(n1, 1) + 1 / np.maximum(n2, 1))
        return np.where(empty, 0.0, (m2 - m1) / error)
    from scipy.special import xlogy

    pooled = (s1 + s2) / np.maximum(n1 + n2, 1)

    def likelihood(s: Any, n: Any, p: Any) -> Any:
        return xlogy(s, p) + xlogy(n - s, 1 - p)

    ratio = likelihood(s1, n1, m1) + likelihood(s2, n2, m2) - likelihood(s1 + s2, n1 + n2, pooled)
    return np.where(empty, 0.0, np.sign(m2 - m1) * np.sqrt(2 * np.maximum(ratio, 0.0)))


def _watch(
    charts: Sequence[_Chart],
    factors: Sequence[float],
    limits_L: Floats,
    names: tuple[str, ...],
    num_resamples: int,
    seed: int,
) -> tuple[list[Alarm], list[ChartPoint]]:
    """Go through the looks in order, as one who sees no later one."""
    num_looks = len(names)
    states = [
        _State(chart, factor, *_sums(chart.look_M, chart.y_M, num_looks), np.full(num_looks, np.nan))
        for chart, factor in zip(charts, factors, strict=True)
    ]
    leaders: list[_State] = []
    kept: list[tuple[int, _State, list[Any], float]] = []
    for look in range(1, num_looks):
        new: list[tuple[float, _State, int]] = []
        for state in states:
            if look <= state.chart.last_reference:
                continue
            values, first = state.statistics(look)
            place = int(np.argmax(np.abs(values)))
            state.statistic_L[look] = values[place]
            if state.alarm is not None:
                _end(state, look)
            elif abs(values[place]) > limits_L[look]:
                values, first = state.statistics(look, range(1, num_looks))
                new.append((float(values[place := int(np.argmax(np.abs(values)))]), state, int(first[place])))
        for value, state, first in sorted(new, key=lambda one: -abs(one[0])):
            standing = [number for number, leader in enumerate(leaders) if leader.alarm and leader.alarm[3] is None]
            event = next((n for n in standing if _joins(state, leaders[n], look, first, num_looks)), None)
            if event is None:
                event = len(leaders)
                leaders.append(state)
            state.alarm = [event, look, first, None]
            kept.append((event, state, state.alarm, value))
    kept.sort(key=lambda one: one[0])  # stable: the leader of an event came first
    alarms = [_alarm(*one, limits_L, names, num_resamples, seed) for one in kept]
    points = [point for event, state in enumerate(leaders, 1) for point in _points(event, state, limits_L, names)]
    return alarms, points


def _end(state: _State, look: int) -> None:
    """Find out whether a chart in alarm is as before again; if so it watches on without the looks of the alarm."""
    assert state.alarm is not None
    _, began, first, _ = state.alarm
    if look < began + _RECENT:
        return
    sign = np.sign(state.of_split(began, np.array([first]))[0])
    nums, sums = (np.concatenate([[0.0], np.cumsum(of)]) for of in (state.num_L, state.sum_L))
    recent = look + 1 - _RECENT
    n2, s2 = nums[look + 1] - nums[recent], sums[look + 1] - sums[recent]
    share = state.chart.figure.is_share
    value = two_sample(nums[first], sums[first], n2, s2, state.chart.scale, is_share=share) / state.factor
    if n2 > 0 and sign * value < _AS_BEFORE:
        state.alarm[3] = look
        state.leave_out(first, look)
        state.alarm = None


def _joins(state: _State, leader: _State, look: int, first: int, num_looks: int) -> bool:
    """Return whether a chart moved with the leader's images only, or the leader is everything."""
    one, other = state.chart, leader.chart
    if other.fact == EVERYTHING or (one.fact, one.stratum) == (other.fact, other.stratum):
        return True
    values = one.figure.facts.get(other.fact)
    if values is None:
        return False
    inside = values == other.stratum
    if other.stratum == OTHERS:
        inside = np.isin(values, np.unique(other.figure.facts[other.fact][other.mask_N]))
    rest = one.mask_N & ~inside
    if not rest.any():
        return True
    _, look_M, value, _ = _patients_by_look(one.figure, rest, num_looks)
    reference = look_M <= one.last_reference
    if not reference.any():
        return False
    y = value if one.figure.is_share else _normal_scores(value, np.sort(value[reference]))
    without = _State(one, state.factor, *_sums(look_M, y, num_looks), state.statistic_L)
    return abs(float(without.of_split(look, np.array([first]))[0])) < _JOINS


def _alarm(
    event: int,
    state: _State,
    alarm: Sequence[Any],
    value: float,
    limits_L: Floats,
    names: tuple[str, ...],
    num_resamples: int,
    seed: int,
) -> Alarm:
    """Estimate before and after in the figure's own units, with an interval over patients."""
    _, look, first, over = alarm
    chart = state.chart
    last = len(names) - 1 if over is None else max(look, over - _RECENT)
    before, after = chart.look_M < first, (chart.look_M >= first) & (chart.look_M <= last)
    patients = np.unique(chart.patients_M, return_inverse=True)[1]
    weights = draw_weights(int(patients.max()) + 1, num_resamples, seed=seed)
    (one, two), drawn_2B = means(patients, weights, [(before, chart.shown_M), (after, chart.shown_M)])
    counts = tuple(len(np.unique(patients[side])) for side in (before, after))
    tested = change(float(two - one), drawn_2B[1] - drawn_2B[0], min(counts))
    return Alarm(
        event + 1,
        chart.fact,
        chart.stratum,
        chart.figure.about,
        chart.figure.subject,
        chart.figure.measure,
        names[look],
        names[first],
        "" if over is None else names[over],
        float(one),
        float(two),
        tested.value,
        tested.low,
        tested.high,
        value,
        float(limits_L[look]),
        *counts,
    )


def _points(event: int, state: _State, limits_L: Floats, names: tuple[str, ...]) -> Iterator[ChartPoint]:
    chart = state.chart
    num_L, sum_L = _sums(chart.look_M, chart.shown_M, len(names))
    for look, name in enumerate(names):
        value = sum_L[look] / num_L[look] if num_L[look] else math.nan
        limit = float(limits_L[look]) if look > chart.last_reference else math.nan
        yield ChartPoint(event, name, int(num_L[look]), float(value), float(state.statistic_L[look]), limit)

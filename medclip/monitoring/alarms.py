"""Alarms: which scanner, site, view or protocol changed, and since when, with one stated rate of false alarms a year.

At each look (week, month or run) a chart (`medclip.monitoring.charts`) asks whether the last 1, 2, 3, 4, 6, 8, ...
looks differ from all before them, the reference among these: a slow drift adds up, and what came before need not be
known exactly, since it is one side of each comparison. So it is a change-point model, a likelihood-ratio CUSUM whose
size of change is not chosen beforehand. Means are compared of normal scores, shares by the signed root of the
likelihood ratio.

A look alarms where the largest statistic of all charts is above that look's limit. The limit is drawn: residuals of
patients are multiplied by normal numbers, one for each patient, so that all charts, looks and repeated visits of a
patient keep their correlation, and the limit of a look is what the largest statistic of so many charts exceeds in
`rate / looks a year` of the draws that are not in an alarm already. Limits use the sizes that really came, so that
missing weeks, small strata and scanners that came later cost nothing extra.

One change moves many charts. The alarm is led by the chart that moved most; others join it where nothing of them is
left without the leader's images.

References: Page, Biometrika 41 (1954) 100-115 (CUSUM); Hawkins, Qiu & Kang, J. Quality Technology 35 (2003) 355-366
(change-point model of unknown parameters); Lai, JRSS-B 57 (1995) 613-658 (windows that grow geometrically); Zhang &
Woodall, Stat. Med. 34 (2015) 3336-3348 (limits of equal false alarms at each look); Chernozhukov, Chetverikov & Kato,
Ann. Stat. 41 (2013) 2786-2819 (multipliers for the largest of many means).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.monitoring.changes import FEWEST_PATIENTS
from medclip.monitoring.charts import (
    EVERYTHING,
    OTHERS,
    Chart,
    Floats,
    charts_of,
    figures_of,
    normal_scores,
    patients_by_look,
)
from medclip.monitoring.read_results import NUM_FIRST, Periods, Watched
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.sums import means
from medclip.statistics.resampling.weights import draw_weights

FALSE_ALARMS_A_YEAR = 1.0
LOOKS_A_YEAR = {"week": 52, "month": 12, "run": 365}
"""Runs are taken for nights: where they are rarer, false alarms are, too."""
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
    charts: list[Chart] = []
    strata: dict[str, set[str]] = {}
    pooled: dict[str, set[str]] = {}
    new: dict[tuple[str, str], int] = {}
    for figure in figures_of(watched, reference, periods, num_first):
        for chart in charts_of(figure, len(names), fewest, pooled):
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


def _limits(charts: Sequence[Chart], num_looks: int, share: float, seed: int) -> tuple[Floats, list[float]]:
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


def _residuals(chart: Chart, num_looks: int) -> Floats:
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

    chart: Chart
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
    charts: Sequence[Chart],
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
    _, look_M, value, _ = patients_by_look(one.figure, rest, num_looks)
    reference = look_M <= one.last_reference
    if not reference.any():
        return False
    y = value if one.figure.is_share else normal_scores(value, np.sort(value[reference]))
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

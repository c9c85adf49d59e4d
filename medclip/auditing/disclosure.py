"""Small cells: which are not shown, and how counts are rounded so that nobody works them out from those that are.

A cell with few rows, positives, negatives or patients has no reliable value, and its counts may name somebody. Its
values are never exported. That alone does not hide its counts: who subtracts all other groups from the total has them.
So the counts of an attribute with a hidden cell are rounded to a multiple of 5, those below 10 are "<10", and the
subtraction is tried (as a linear programme over all partitions, intersections, what groups of one attribute have in
common with those of another, and positives + negatives = rows): where it leaves fewer than `MIN_WIDTH` possible counts
of a hidden cell, a larger multiple is taken. Other attributes and everybody stay exact, unless they would give it away.
Exact rates would give counts away as well (0.3469 of about 50 can only be 17 of 49), so those of such an attribute are
rounded to what one case changes; finer only where a value would otherwise fall on an end of its own interval.

What stays possible: to see that a group exists and is small; to bound its count where its range is narrow; to narrow
counts of shown groups by the rates that are made of them, which the linear programme does not know; to combine
the export with another one of the same patients (another audit, other groups), which this module does not know of.

The attack that rounding has to stand: what can be worked out about a hidden count from all exported ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.auditing.input.groups import CROSS
from medclip.statistics.cohort import ALL, CONFLICT, MISSING, Attribute, Cell, Cohort, Label, cells_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAR = 1e-6
"""Slack of the solver, in counts."""
_SHOTS = 8
"""Pairs of programmes for all hidden counts at once, before single ones are asked for."""


@dataclass(frozen=True, eq=False)
class System:
    """What an export says about rows, positives and negatives of G cells (the order of `cells_of`)."""

    low_3G: NDArray[np.intp]
    high_3G: NDArray[np.intp]
    hidden_3G: NDArray[np.bool_]
    """Counts that must not be worked out."""


def is_safe(cohort: Cohort, system: System, enough: int) -> bool:
    """Return whether every hidden count can still have so many values.

    Rows, positives and negatives of every group are unknowns; the groups of an attribute add up to everybody, those of
    an intersection to the groups they are parts of, positives and negatives to rows. Where some groups of one attribute
    have the very rows of some of another (scanners of a vendor, ages under 50), their sums are the same. Every point
    that a linear programme finds for one count shows values of all others as well, so that few have to be asked for one
    by one.
    """
    from scipy.optimize import linprog

    equal, zeros, at_most, caps = _relations(cohort)
    bounds = np.stack([system.low_3G.ravel(), system.high_3G.ravel()], 1)
    hidden = system.hidden_3G.ravel()
    low, high = np.full(len(bounds), np.inf), np.full(len(bounds), -np.inf)

    def look(goal: NDArray[np.float64]) -> None:
        solution = linprog(goal, A_ub=at_most, b_ub=caps, A_eq=equal, b_eq=zeros, bounds=bounds, method="highs")
        np.minimum(low, solution.x, out=low)
        np.maximum(high, solution.x, out=high)

    def is_narrow(index: int) -> bool:
        return np.floor(high[index] + _NEAR) - np.ceil(low[index] - _NEAR) + 1 < enough

    random = np.random.default_rng(0)
    for _ in range(_SHOTS):
        signs = random.choice([-1.0, 1.0], len(bounds)) * hidden
        look(signs)
        look(-signs)
    for index in np.flatnonzero(hidden).tolist():
        for sign in (1.0, -1.0):
            if is_narrow(index):
                look(sign * (np.arange(len(bounds)) == index))
        if is_narrow(index):
            return False
    return True


def _relations(cohort: Cohort) -> tuple[Any, NDArray[np.float64], Any, NDArray[np.float64] | None]:
    """Write what adds up as rows of sparse matrices over [3 G] unknowns."""
    from scipy.sparse import coo_array

    cells = cells_of(cohort)
    place = {(c.attribute, c.group): i for i, c in enumerate(cells) if c.position[0] >= 0}
    exact: list[dict[int, float]] = []
    capped: list[dict[int, float]] = []
    for attribute in cohort.attributes:
        exact.append({0: -1.0} | {place[attribute.name, g]: 1.0 for g in attribute.groups})
        names = attribute.name.split(CROSS)
        complete = not {MISSING, CONFLICT} & set(attribute.groups)
        for part, name in enumerate(names if len(names) > 1 else ()):
            inside: dict[str, list[int]] = {}
            for group in attribute.groups:
                if group not in (MISSING, CONFLICT):
                    inside.setdefault(group.split(CROSS)[part], []).append(place[attribute.name, group])
            for group, members in inside.items():
                if (name, group) in place:
                    row = {place[name, group]: -1.0} | dict.fromkeys(members, 1.0)
                    (exact if complete else capped).append(row)
    for one, other in combinations(cohort.attributes, 2):
        for groups, others in _same_rows(one, other):
            row = {place[one.name, one.groups[g]]: -1.0 for g in groups}
            exact.append(row | {place[other.name, other.groups[g]]: 1.0 for g in others})
    num = len(cells)
    exact = [{i + shift * num: v for i, v in row.items()} for row in exact for shift in range(3)]
    capped = [{i + shift * num: v for i, v in row.items()} for row in capped for shift in range(3)]
    exact += [{i: 1.0, i + num: -1.0, i + 2 * num: -1.0} for i in range(num)]

    def matrix(rows: list[dict[int, float]]) -> Any:
        where = [(r, i, v) for r, row in enumerate(rows) for i, v in row.items()]
        r, i, v = zip(*where, strict=True)
        return coo_array((v, (r, i)), shape=(len(rows), 3 * num)).tocsr()

    return (
        matrix(exact),
        np.zeros(len(exact)),
        matrix(capped) if capped else None,
        np.zeros(len(capped)) if capped else None,
    )


def _same_rows(one: Attribute, other: Attribute) -> Iterator[tuple[list[int], list[int]]]:
    """Yield groups of one attribute and of another that have the very same rows, as few at a time as there can be.

    That is each connected part of the graph in which two groups are joined that have a row in common; one part is
    everybody, which is known already.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num = len(one.groups)
    pairs = np.unique(one.codes_N.astype(np.int64) * len(other.groups) + other.codes_N)
    ends = (pairs // len(other.groups), num + pairs % len(other.groups))
    size = num + len(other.groups)
    num_parts, part = connected_components(coo_array((np.ones(len(pairs)), ends), shape=(size, size)), directed=False)
    for number in range(num_parts if num_parts > 1 else 0):
        groups, others = np.flatnonzero(part[:num] == number), np.flatnonzero(part[num:] == number)
        if len(groups) and len(others):
            yield groups.tolist(), others.tolist()


FEW_CASES = 50
"""A value of fewer cases is shown with a flag: a TPR of fewer positives, an FPR of fewer negatives."""
MIN_WIDTH = 3
"""Fewest counts that a hidden one may have after all others were subtracted."""
_BASES = (5, 10, 20, 50, 100)
_MOST_DECIMALS = 4
_MOST_FLAGS = 2**28
"""Bytes of a table of groups and patients; above it they are sorted instead."""


@dataclass(frozen=True)
class Policy:
    """What a cell needs to be shown."""

    min_n: int = 10
    min_pos: int = 10
    min_neg: int = 10
    min_patients: int = 10
    exact_counts: bool = False
    """Export all counts as they are: for those who may see them anyway."""

    @property
    def floor(self) -> int:
        """Counts below this are exported as "<floor" where anything is hidden."""
        return max(self.min_n, self.min_patients, 1)


@dataclass(frozen=True)
class CellState:
    """Whether one cell is shown for one label. The counts are exact; export them through `Rounding` only."""

    cell: Cell
    n: int
    n_pos: int
    n_neg: int
    n_patients: int
    reason: str = ""
    """Why it is hidden, with no count of it; "" where it is shown."""

    @property
    def shown(self) -> bool:
        """Whether its values may be exported."""
        return not self.reason


@dataclass(frozen=True)
class Rounding:
    """How counts and values are written."""

    base: int = 1
    """Counts are rounded to a multiple of this; 1: exact."""
    floor: int = 10

    def count(self, n: int) -> int | str:
        """Return a count as it is exported.

        Example:
            >>> Rounding(5).count(52), Rounding(5).count(7), Rounding().count(7)
            (50, '<10', 7)
        """
        if self.base == 1:
            return int(n)
        return f"<{self.floor}" if n < self.floor else max(_nearest(n, self.base), self.floor)

    def value(self, value: float, smallest: int) -> float:
        """Return a metric as it is exported: rounded to no less than what one case changes.

        Args:
            value: A rate or an area, NaN for none.
            smallest: Smallest count that the metric is made of: of positives and negatives the fewer; of an area half
                the pairs.

        Example:
            >>> Rounding(5).value(17 / 49, 49), Rounding().value(0.5 / 3, 3) == 0.5 / 3
            (0.35, True)
        """
        if self.base == 1 or not math.isfinite(value):
            return value
        return _on(value, self._grids(smallest)[0])

    def with_interval(self, value: float, low: float, high: float, smallest: int) -> tuple[float, float, float]:
        """Return value and interval as they are exported; arguments as in `value`.

        Ends are rounded outwards, and the grid is no coarser than keeps a value within its interval that was within it.

        Example:
            >>> Rounding(20).with_interval(0.83, 0.71, 0.91, 14), Rounding(20).with_interval(0.03, 0.01, 0.2, 14)
            ((0.8, 0.7, 1.0), (0.05, 0.0, 0.2))
        """
        if self.base == 1 or not math.isfinite(value):
            return value, low, high
        grids = self._grids(smallest)
        for grid in grids:
            exported = _on(value, grid), _on(low, grid, math.floor), _on(high, grid, math.ceil)
            apart = (exported[1] < exported[0] or not low < value) and (exported[0] < exported[2] or not value < high)
            if apart or grid == grids[-1]:
                return exported
        raise AssertionError

    def _grids(self, smallest: int) -> list[float]:
        """Return the grid on which one case changes the value by a step at most, and all finer ones."""
        exported = self.count(smallest)  # and not the count itself, which the number of digits would give away
        step = 1.0 / max(bounds_of(exported, self)[0], 1)
        every = [m * 10.0**-e for e in range(_MOST_DECIMALS, -1, -1) for m in (1, 2, 5)]
        place = next((i for i, grid in enumerate(every) if grid >= step), len(every) - 1)
        return every[place::-1]


@dataclass(frozen=True)
class Roundings:
    """How counts and values of a whole export are written: each attribute in its own way."""

    floor: int = 10
    by_attribute: Mapping[str, Rounding] = field(default_factory=dict)
    """Of those that are rounded; everything else is exact."""

    def of(self, attribute: str) -> Rounding:
        """Return how the groups of an attribute are written (`cohort.ALL`: everybody)."""
        return self.by_attribute.get(attribute, Rounding(1, self.floor))

    @property
    def coarsest(self) -> Rounding:
        """For what is of no single attribute."""
        return max(self.by_attribute.values(), key=lambda one: one.base, default=Rounding(1, self.floor))

    def __str__(self) -> str:
        """Write "exact", or "rounded to 5 (age), 10 (site)"."""
        bases = [f"{one.base} ({'everybody' if name == ALL else name})" for name, one in self.by_attribute.items()]
        return f"rounded to {', '.join(bases)}" if bases else "exact"


def hidden(cohort: Cohort, label: Label, policy: Policy) -> tuple[CellState, ...]:
    """Count every cell for one label, and say which are hidden, in the order of `cells_of`.

    Of times to events no negatives are asked for: everybody may have had the event.
    """
    if label.time_N is not None:
        policy = replace(policy, min_neg=0)
    valid_N = label.valid_N
    positive_N = valid_N & (label.truth_N > 0)
    cells_hidden = []
    counts: dict[tuple[int, int], NDArray[np.intp]] = {}
    for a, codes_N in enumerate([np.zeros(len(valid_N), np.int16), *(x.codes_N for x in cohort.attributes)], -1):
        num = 1 if a < 0 else len(cohort.attributes[a].groups)
        n_G = np.bincount(codes_N[valid_N], minlength=num)
        pos_G = np.bincount(codes_N[positive_N], minlength=num)
        patients_G = count_patients(codes_N[valid_N], cohort.patients_N[valid_N], num, cohort.num_patients)
        for g in range(num):
            counts[a, g] = np.asarray([n_G[g], pos_G[g], n_G[g] - pos_G[g], patients_G[g]])
    for cell in cells_of(cohort):
        n, n_pos, n_neg, n_patients = (int(v) for v in counts[cell.position])
        cells_hidden.append(state(cell, n, n_pos, n_neg, n_patients, policy))
    return tuple(cells_hidden)


def count_patients(
    codes_N: NDArray[np.int16], patients_N: NDArray[np.int32], num_groups: int, num_patients: int
) -> NDArray[np.intp]:
    """Count the different patients of each group, [G]."""
    place_N = codes_N.astype(np.int64) * num_patients + patients_N
    if num_groups * num_patients > _MOST_FLAGS:
        return np.bincount(np.unique(place_N) // num_patients, minlength=num_groups)
    present = np.zeros(num_groups * num_patients, bool)
    present[place_N] = True
    return present.reshape(num_groups, num_patients).sum(1)


def state(cell: Cell, n: int, n_pos: int, n_neg: int, n_patients: int, policy: Policy) -> CellState:
    """Judge one cell by its counts."""
    reasons = [
        f"fewer than {least} {what}"
        for number, least, what in (
            (n, policy.min_n, "rows"),
            (n_patients, policy.min_patients, "patients"),
            (n_pos, policy.min_pos, "positives"),
            (n_neg, policy.min_neg, "negatives"),
        )
        if number < least
    ]
    return CellState(cell, n, n_pos, n_neg, n_patients, ", ".join(reasons))


def roundings(cohort: Cohort, by_label: Iterable[Sequence[CellState]], policy: Policy) -> Roundings:
    """Choose how an export is rounded.

    Returns:
        Exact where nothing is hidden or where the policy says so; else for each attribute with a hidden cell the
        smallest multiple with which no hidden count can be worked out. Where none is large enough, all are rounded.
    """
    several = list(dict.fromkeys(tuple(s) for s in by_label))
    rare = list(dict.fromkeys(s.cell.attribute for states_G in several for s in states_G if not s.shown))
    if policy.exact_counts or not rare:
        return Roundings(policy.floor)

    def chosen(bases: Mapping[str, int]) -> Roundings:
        return Roundings(policy.floor, {name: Rounding(base, policy.floor) for name, base in bases.items()})

    def safe(bases: Mapping[str, int]) -> bool:
        return all(is_safe(cohort, System(*_published(states_G, chosen(bases))), MIN_WIDTH) for states_G in several)

    everything = [ALL, *(a.name for a in cohort.attributes)]
    for names in (rare, everything):
        for base in _BASES:
            bases = dict.fromkeys(names, base)
            if not safe(bases):
                continue
            for name in rare:  # one rare group does not coarsen what another attribute needs no more than 5 for
                finer = (bases | {name: less} for less in _BASES if less < base)
                bases = next((less for less in finer if safe(less)), bases)
            return chosen(bases)
    return chosen(dict.fromkeys(everything, _BASES[-1]))


def _published(
    states_G: Sequence[CellState], chosen: Roundings
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Return what a reader knows: least and most rows, positives and negatives, [3, G], and which are hidden."""
    counts = np.asarray([[s.n, s.n_pos, s.n_neg] for s in states_G], np.intp).T
    ways = [chosen.of(s.cell.attribute) for s in states_G]
    bounds = [bounds_of(way.count(int(n)), way) for row in counts for n, way in zip(row, ways, strict=True)]
    low, high = np.asarray(bounds, np.intp).T.reshape(2, *counts.shape)
    low[0, 0] = high[0, 0] = counts[0, 0]  # the size of the whole audit set is said in many places
    rounded = np.asarray([way.base > 1 for way in ways])
    return low, high, (counts < chosen.floor) & rounded


def _on(value: float, grid: float, rule: Callable[[float], int] = round) -> float:
    """Round to a grid; what lies on it, but for the last digits of a float, stays."""
    if not math.isfinite(value):
        return value
    places = value / grid
    return round((round(places) if abs(places - round(places)) < 1e-9 else rule(places)) * grid, _MOST_DECIMALS)


def bounds_of(exported: int | str, chosen: Rounding) -> tuple[int, int]:
    """Return the lowest and highest count that is exported so.

    Example:
        >>> bounds_of("<10", Rounding(5)), bounds_of(50, Rounding(5))
        ((0, 9), (48, 52))
    """
    if isinstance(exported, str):
        return 0, chosen.floor - 1
    low, high = exported, exported
    if chosen.base == 1:
        return low, high
    while low - 1 >= chosen.floor and chosen.count(low - 1) == exported:
        low -= 1
    while chosen.count(high + 1) == exported:
        high += 1
    return low, high


def _nearest(n: int, base: int) -> int:
    """Round to a multiple, halves up."""
    return (2 * n + base) // (2 * base) * base

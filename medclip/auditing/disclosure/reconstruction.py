"""The attack that rounding has to stand: what can be worked out about a hidden count from all exported ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.auditing.input.groups import CROSS
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute, Cohort, cells_of

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

    Args:
        cohort: Cohort, whose attributes say which cells are parts of which.
        system: Bounds of the counts as an export tells them, and which of these are hidden.
        enough: Fewest values that a hidden count must be able to have.
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

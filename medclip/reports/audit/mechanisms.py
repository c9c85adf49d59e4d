"""One finding for each mechanism: what a shift of scores, or noise in them, does to a group is told once.

Scores that are lower in a group lower its sensitivity and its false positive rate, and raise those of all others
beside it; noise lowers its AUROC and its sensitivity. Differences of one group that one of these explains are one
mechanism, and a group that differs from all others only because another one does is not told again. Of attributes
that coincide (view and scanner) the one whose difference stays, given the other, is told, and names the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medclip.auditing.result import Row
from medclip.wording import real

RANKING = ("auroc", "c_index")
RATES = ("tpr", "fpr")
PLACE = ("model", "label", "attribute")
_CELL = (*PLACE, "group", "metric")


@dataclass(frozen=True, eq=False)
class Mechanism:
    """What makes one group fare worse."""

    rows: tuple[Row, ...]
    """Differences that were found, the worst harm first."""
    beside: tuple[Row, ...] = ()
    """Other differences of the group that go with it, whose interval leaves 0 out."""
    given: tuple[Row, ...] = ()
    """The first difference within the groups of attributes that the group goes with."""
    merged: tuple[Mechanism, ...] = ()
    """The same mechanism by attributes that coincide with this one."""

    @property
    def lead(self) -> Row:
        """The difference that is told first."""
        return self.rows[0]

    @property
    def strength(self) -> float:
        """The largest difference in units of its interval."""
        return max(_strength(row) for row in self.rows)


def mechanisms(
    differences: Iterable[Row],
    values: Iterable[Row],
    is_found: Callable[[Row], bool],
    harm_of: Callable[[Row], int | None],
) -> list[Mechanism]:
    """Gather differences of groups from all others by what explains them.

    Args:
        differences: Rows of groups minus all others.
        values: Rows with the measures of the same groups.
        is_found: Whether a difference is to be told.
        harm_of: The harm of a difference, the worst the smallest; None where the group fares no worse.
    """
    measures = {tuple(row.get(name) for name in _CELL): row for row in values}
    places: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for row in differences:
        if real(row.get("value")) is not None:
            groups = places.setdefault(tuple(row.get(name) for name in PLACE), {})
            groups.setdefault(str(row.get("group")), []).append(row)
    every: list[Mechanism] = []
    for groups in places.values():
        candidates = [
            mechanism for rows in groups.values() for mechanism in _of_group(rows, is_found, harm_of) if mechanism.rows
        ]
        # Two groups of four are the other side of the other two: the fewest count, of as many the worse harm.
        ways = [
            _smallest_set(sorted(candidates, key=order), list(groups), measures)
            for order in (lambda one: (harm_of(one.lead), -one.strength), lambda one: -one.strength)
        ]
        every += min(ways, key=lambda mechanisms: (len(mechanisms), [harm_of(one.lead) for one in mechanisms]))
    return every


def _smallest_set(
    candidates: list[Mechanism], groups: Sequence[str], measures: Mapping[tuple[Any, ...], Row]
) -> list[Mechanism]:
    """Take the first one, and then what stands out most from the groups of those that were taken."""
    mechanisms: list[Mechanism] = []
    while candidates:
        left = [[_left(row, mechanisms, groups, measures) for row in one.rows] for one in candidates]
        first = max(range(len(left)), key=lambda place: (max(left[place]) if mechanisms else 0, -place))
        one = candidates.pop(first)
        if rows := tuple(row for row, rest in zip(one.rows, left[first], strict=True) if rest > 1):
            mechanisms.append(replace(one, rows=rows))
    return mechanisms


def _of_group(
    rows: Sequence[Row], is_found: Callable[[Row], bool], harm_of: Callable[[Row], int | None]
) -> list[Mechanism]:
    """Divide the differences of a group: a shift of scores does not change how they rank, so that is another one."""
    worse = sorted(
        (row for row in rows if is_found(row) and harm_of(row) is not None),
        key=lambda row: (harm_of(row), -abs(float(row["value"]))),
    )
    clear = [row for row in rows if _is_clear(row) and row not in worse]
    rates = [row for row in rows if row.get("metric") in RATES and _is_clear(row)]
    is_shift = len({float(row["value"]) > 0 for row in rates}) == 1 and len(rates) == len(RATES)
    if not is_shift:
        return [Mechanism(tuple(worse), tuple(clear))]
    ranking = tuple(row for row in worse if row.get("metric") in RANKING)
    beside = tuple(row for row in clear if row.get("metric") not in RANKING)
    return [Mechanism(tuple(row for row in worse if row not in ranking), beside), Mechanism(ranking)]


def _left(
    row: Row, mechanisms: Sequence[Mechanism], groups: Sequence[str], measures: Mapping[tuple[Any, ...], Row]
) -> float:
    """Return how far a group is from those that are in no mechanism yet in the same kind of measure, in halves of its
    interval; up to 1 the mechanisms explain it, and infinity where nothing can.
    """
    kind = row.get("metric") in RANKING
    harmed = {
        str(one.lead.get("group"))
        for one in mechanisms
        for r in one.rows + one.beside
        if (r.get("metric") in RANKING) == kind
    }
    if not harmed or str(row.get("group")) in harmed:
        return math.inf
    others = [group for group in groups if group not in harmed and group != row.get("group")]
    cells = [measures.get((*(row.get(name) for name in PLACE), group, row.get("metric"))) for group in others]
    known = [(float(cell["value"]), _cases(cell)) for cell in cells if cell and real(cell.get("value")) is not None]
    own = measures.get(tuple(row.get(name) for name in _CELL))
    if not others:
        return 0.0 if len(groups) == 2 else math.inf
    if own is None or real(own.get("value")) is None or not known:
        return math.inf
    mean = sum(value * cases for value, cases in known) / sum(cases for _, cases in known)
    apart = float(own["value"]) - mean
    if apart * float(row["value"]) <= 0:
        return 0.0
    return 2 * abs(apart) / max(float(row["high"]) - float(row["low"]), 1e-9)


def _cases(row: Row) -> float:
    name = {"tpr": "n_pos", "fpr": "n_neg"}.get(str(row.get("metric")), "n")
    return max(real(row.get(name)) or 1.0, 1.0)


def _is_clear(row: Row) -> bool:
    low, high = real(row.get("low")), real(row.get("high"))
    return low is not None and high is not None and (low > 0 or high < 0)


def _strength(row: Row) -> float:
    low, high = real(row.get("low")), real(row.get("high"))
    return abs(float(row["value"])) / max(high - low, 1e-9) if low is not None and high is not None else 0.0


def join_coinciding(every: Sequence[Mechanism], coinciding: Iterable[Row]) -> list[Mechanism]:
    """Join mechanisms by attributes that coincide, and give each its differences within the others' groups.

    Where the difference of one stays, given the attribute of the other, and that of the other does not, the other is
    joined to it; where neither stays the weaker one; where both do both stay.
    """
    rows_of: dict[tuple[Any, ...], list[Row]] = {}
    for row in coinciding:
        rows_of.setdefault(tuple(row.get(name) for name in _CELL), []).append(row)
    mechanisms: list[Mechanism] = []
    for one in sorted(every, key=lambda mechanism: -mechanism.strength):
        given = tuple(rows_of.get(tuple(one.lead.get(name) for name in _CELL), ()))
        one = replace(one, given=given)
        for place, other in enumerate(mechanisms):
            forth, back = _given(one, other), _given(other, one)
            if forth is None or back is None or not _alike(one, other):
                continue
            stays, other_stays = _stays(one, forth), _stays(other, back)
            if stays and other_stays:
                continue
            first, second = (one, other) if stays else (other, one)
            mechanisms[place] = replace(first, merged=(*first.merged, replace(second, merged=()), *second.merged))
            break
        else:
            mechanisms.append(one)
    return mechanisms


def _given(one: Mechanism, other: Mechanism) -> Row | None:
    """Return the first difference of a mechanism within the groups of another one's attribute."""
    if any(one.lead.get(name) != other.lead.get(name) for name in ("model", "label")):
        return None
    return next((row for row in one.given if row.get("given") == other.lead.get("attribute")), None)


def _alike(one: Mechanism, other: Mechanism) -> bool:
    kinds = [{row.get("metric") in RANKING for row in m.rows + m.beside} for m in (one, other)]
    return bool(kinds[0] & kinds[1])


def _stays(one: Mechanism, row: Row) -> bool:
    """Whether a difference is still there, given another attribute: beyond chance, or at least half as large.

    Within groups there are fewer patients, so that an interval with 0 does not show that nothing is left.
    """
    value, before = real(row.get("value")), float(one.lead["value"])
    return value is not None and value * before > 0 and (_is_clear(row) or abs(value) >= abs(before) / 2)

"""Time-to-event scores: the concordance index for many resamples, and binary labels at a horizon.

A pair is comparable when one row had its event and the other is known to have gone on for longer (a later time, or
the same time without an event). Comparable pairs are split by halves of the time axis, then by halves of the halves:
at each level the events of the earlier halves meet the rows of the later ones, which is a contest as for the AUROC.
Each pair is met at one level.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Label, Rows
from medclip.statistics.metrics.ranks import cumulated
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.sums import Block, blocks, summing_matrix

Kind = Literal["harrell_td", "uno", "mirai_compat"]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Subjects:
    """Some rows, as the concordance needs them."""

    order: NDArray[np.int64]
    """Position in time: smaller is comparable with larger, equal ones are not."""
    event: NDArray[np.bool_]
    rank: NDArray[np.int64]
    """Dense rank of the score."""
    patients: NDArray[np.int32]
    num_patients: int
    earlier_weight: Array | None = None
    """Weight of a row as the one that had its event first; None: 1."""
    later_weight: Array | None = None


@dataclass(frozen=True, eq=False)
class _Meeting:
    """Events of several groups against the later rows of the same group."""

    earlier: Any
    later: Any
    start_K: NDArray[np.int64]
    below_K: NDArray[np.int64]
    through_K: NDArray[np.int64]
    end_K: NDArray[np.int64]

    def __call__(self, block: Block) -> tuple[Array, Array]:
        """Return the weight of pairs won (ties half) and of pairs met, for each column of the block."""
        weights_Kb = block.sums(self.earlier)
        sums_Ub = cumulated(block.sums(self.later).astype(np.float64))
        start_Kb = sums_Ub[self.start_K]
        won_Kb = (sums_Ub[self.below_K] + sums_Ub[self.through_K]) / 2 - start_Kb
        met_Kb = sums_Ub[self.end_K] - start_Kb
        return (weights_Kb * won_Kb).sum(axis=0), (weights_Kb * met_Kb).sum(axis=0)


class Concordance:
    """The c-index of all cells of one label with times (Harrell; ties of the score count half)."""

    def __init__(self, rows: Rows) -> None:
        assert rows.time_n is not None
        order_n = time_order(rows.time_n, rows.truth_n)
        self._meetings = []
        for cell in rows.cells:
            weight = rows.values(cell)
            sorted_rows = (order_n[cell], rows.truth_n[cell], rows.rank_n[cell], rows.patients_n[cell])
            self._meetings.append(_by_halves(_Subjects(*sorted_rows, rows.num_patients, weight, weight)))

    def __call__(self, block: Block) -> Array:
        """Return the c-index, [G, columns of the block]; NaN where no pair is comparable."""
        return np.stack([_share_won(meetings, block) for meetings in self._meetings])


def concordance(
    time_N: ArrayLike,
    event_N: ArrayLike,
    risk: ArrayLike,
    *,
    kind: Kind = "harrell_td",
    columns_N: ArrayLike | None = None,
    weights_NB: NDArray[Any] | None = None,
) -> Array:
    """Measure the concordance of risks with times to event.

    Args:
        time_N: Time to event, or to the end of follow-up.
        event_N: Whether the event was seen.
        risk: Risk of each row, higher for earlier events; [N], or [N, T] for risks that change with the horizon: a pair
            is then compared in the column of its later row.
        kind: Way to count pairs: `harrell_td` counts all alike (Harrell 1996; Antolini 2005 for risks that change);
            `uno` weights a pair by 1/G(t⁻)² of the earlier row, G the Kaplan–Meier estimate of not being censored (Uno
            2011); `mirai_compat` by 1/K(t)² of the later row, K that of the event itself, as Mirai's published code
            does.
        columns_N: Column of `risk` of each row's time; needed for [N, T].
        weights_NB: Weight of each row in each replicate; None: each counts once. Kaplan–Meier weights stay the
            sample's.

    Returns:
        One value a replicate, [B]; NaN where no pair is comparable.

    Raises:
        MedclipError: `risk` is [N, T] without columns.
    """
    time, event, risks = np.asarray(time_N, np.float64), np.asarray(event_N, bool), np.asarray(risk, np.float64)
    weights = np.ones((len(time), 1), np.uint8) if weights_NB is None else weights_NB
    earlier = later = None
    if kind == "uno":
        earlier = _inverse(kaplan_meier(time, ~event, time, before=True, others_first=True) ** 2)
    elif kind == "mirai_compat":
        later = _inverse(kaplan_meier(time, event, time) ** 2)
    order = time_order(time, event)
    rows = np.arange(len(time), dtype=np.int32)

    def subjects(column: Array) -> _Subjects:
        return _Subjects(order, event, _ranks(column), rows, len(time), earlier, later)

    if risks.ndim == 1:
        meetings = _by_halves(subjects(risks))
    elif columns_N is None:
        raise MedclipError(Reason.WRONG_USE, "risks at several horizons need the column of each row's time.")
    else:
        columns = np.asarray(columns_N)
        meetings = [m for c in np.unique(columns) for m in _by_halves(subjects(risks[:, c]), columns == c)]
    unpaired = earlier is None and later is None
    values = [_share_won(meetings, block)[: block.num] for block in blocks(weights, len(time), unpaired)]
    return np.concatenate(values)


def time_order(time_n: Array, event_n: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the moments: at equal times events come first, and those who went on without one after them."""
    return np.unique(2 * _ranks(time_n) + ~event_n, return_inverse=True)[1]


def kaplan_meier(
    time_n: Array, event_n: NDArray[np.bool_], at_m: Array, *, before: bool = False, others_first: bool = False
) -> Array:
    """Estimate the probability of no event up to a time (Kaplan and Meier 1958).

    Args:
        time_n: Time to event, or to the end of follow-up.
        event_n: Whether the event was seen. For the censoring distribution: whether the row was censored.
        at_m: Times to estimate the probability at.
        before: Whether to estimate the value just before the time.
        others_first: Whether at equal times rows without the event have left already (censoring happens after events).
    """
    moments, moment_n = np.unique(time_n, return_inverse=True)
    events = np.bincount(moment_n, event_n, minlength=len(moments))
    leaving = np.bincount(moment_n, minlength=len(moments))
    at_risk = leaving[::-1].cumsum()[::-1] - (leaving - events if others_first else 0)
    staying = 1 - np.divide(events, at_risk, out=np.zeros(len(moments)), where=at_risk > 0)
    survival = np.r_[1.0, np.cumprod(staying)]
    return survival[np.searchsorted(moments, at_m, side="left" if before else "right")]


def at_horizon(label: Label, horizon: float, *, weighted: bool = True) -> Label:
    """Turn a label with times into a binary one: had the event by the horizon, or was followed to it without.

    Rows that were censored before the horizon are not known and do not count; the others are weighted by the inverse
    of the probability of being known, 1/G(min(t, horizon)⁻), G the Kaplan–Meier estimate of not being censored (Graf
    1999, Uno 2007). Intervals resample these weights with their rows and do not estimate them anew.

    Args:
        label: A label with `time_N`.
        horizon: Time in the unit of `time_N`.
        weighted: Whether the known rows stand for the others, too; without it each counts once, as in Mirai's AUC.

    Returns:
        A label without times, named `<name> by <horizon>`.

    Raises:
        MedclipError: The label has no times, or nobody was followed to the horizon.
    """
    if label.time_N is None:
        raise MedclipError(Reason.WRONG_USE, "a horizon needs a label with times to event.", where=label.name)
    time = np.asarray(label.time_N, np.float64)
    is_known = label.valid_N & ~np.isnan(time)
    if not (is_known & (time >= horizon)).any():
        raise MedclipError(
            Reason.WRONG_USE,
            f"nobody was followed to {horizon:g}.",
            where=label.name,
            hint="Choose an earlier horizon, in the unit of the times.",
        )
    event = label.truth_N == 1
    had = is_known & event & (time <= horizon)
    free = is_known & ~had & (time >= horizon)
    until = np.minimum(time, horizon)
    weight = np.zeros(len(time))
    seen = had | free
    censored = kaplan_meier(time[is_known], ~event[is_known], until[seen], before=True, others_first=True)
    weight[seen] = 1 / censored
    if label.weight_N is not None:
        weight *= np.where(seen, label.weight_N, 0.0)
    truth = np.where(had, 1.0, np.where(free, 0.0, np.nan))
    weight_N = weight if weighted else label.weight_N
    return replace(label, name=f"{label.name} by {horizon:g}", truth_N=truth, weight_N=weight_N, time_N=None)


def _by_halves(subjects: _Subjects, as_later_n: NDArray[np.bool_] | None = None) -> list[_Meeting]:
    """Meet each comparable pair once, at the level where its two moments part; `as_later_n`: of these later rows."""
    meetings = []
    for level in range(int(subjects.order.max(initial=0)).bit_length()):
        group, half = subjects.order >> (level + 1), (subjects.order >> level) & 1
        earlier = np.flatnonzero((half == 0) & subjects.event)
        later = np.flatnonzero(half == 1 if as_later_n is None else (half == 1) & as_later_n)
        later = later[np.isin(group[later], group[earlier])]
        if len(earlier) and len(later):
            meetings.append(_meeting(subjects, earlier, later, group))
    return meetings


def _meeting(
    subjects: _Subjects, earlier: NDArray[np.int64], later: NDArray[np.int64], group: NDArray[np.int64]
) -> _Meeting:
    """Cut the later rows of each group at the scores of its events."""
    size = int(subjects.rank.max(initial=0)) + 1
    joined = group * size + subjects.rank
    places, place = np.unique(joined[earlier], return_inverse=True)
    group_K = places // size
    tied = np.isin(joined[later], places)
    # pieces of different groups stay apart: 2·(number of places) + 1 is more than any piece's number
    span = 2 * len(places) + 1
    pieces, piece = np.unique(
        group[later] * span + 2 * np.searchsorted(places, joined[later]) + tied, return_inverse=True
    )
    columns = group_K * span + 2 * np.arange(len(places)) + 1
    ids, count = subjects.patients, subjects.num_patients

    def weight(values: Array | None, rows: NDArray[np.int64]) -> Array | None:
        return None if values is None else values[rows]

    return _Meeting(
        earlier=summing_matrix(place, len(places), ids[earlier], count, weight(subjects.earlier_weight, earlier)),
        later=summing_matrix(piece, len(pieces), ids[later], count, weight(subjects.later_weight, later)),
        start_K=np.searchsorted(pieces, group_K * span),
        below_K=np.searchsorted(pieces, columns),
        through_K=np.searchsorted(pieces, columns, side="right"),
        end_K=np.searchsorted(pieces, (group_K + 1) * span),
    )


def _share_won(meetings: Iterable[_Meeting], block: Block) -> Array:
    won = met = np.zeros(block.weights_Pb.shape[1])
    for meeting in meetings:
        more_won, more_met = meeting(block)
        won, met = won + more_won, met + more_met
    return ratio(won, met)


def _ranks(values: Array) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _inverse(values: Array) -> Array:
    """1 / value, and 0 where the value is 0: nobody is left to weight."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)

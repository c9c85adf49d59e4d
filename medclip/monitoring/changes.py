"""What changed from a reference to a later period: why files fail, what arrives, what the model says of it.

Every figure is compared in every period that is large enough. Shares have the score test and the interval of
`statistics.significance`, means the bootstrap over patients of both sides together: a patient who is
in both is drawn once. p-values are adjusted by Benjamini and Hochberg's method over all figures and periods, so that of
the changes that are shown as such about one in twenty is chance, however many weeks and findings there are. A change
counts as small below 0.2, as clear from there and as large from 0.5: Cohen's h for shares, standard deviations of the
reference for means, and for vectors the distance of two normal laws that a classifier tells apart as well.

References: Benjamini & Hochberg, JRSS-B 57 (1995) 289-300; Cohen, Statistical power analysis, 1988 (h and d).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.checks.embeddings.drift import drift_between
from medclip.auditing.checks.embeddings.vectors import whole_patients
from medclip.monitoring.read_results import NUM_FIRST, SCORED, UNIT_FACTS, Periods, Watched
from medclip.statistics.cohort import Attribute
from medclip.statistics.estimate import Difference
from medclip.statistics.resampling.resampled import change
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import means
from medclip.statistics.resampling.weights import draw_weights
from medclip.statistics.significance import benjamini_hochberg, share_difference

Floats = NDArray[np.float64]

FEWEST_PATIENTS = 20
"""Of a period, of the reference, and of that of a chart; smaller ones are counted and not compared."""
MOST_ROWS = 20_000
"""Of each side of a comparison; of more, whole patients are drawn."""
MOST_VECTORS = 1_000
MOST_VALUES = 10
"""Scanners, views and modalities that are named; the others together are one."""
OTHERS = "others"
NUM_PERMUTATIONS = 999
LEVEL = 0.05
CLEAR, LARGE = 0.2, 0.5
TAIL = 0.95
"""Quantile of the reference's scores above which they are counted."""
FAR = 1.0
"""Distance beyond which one in twenty of the images lie that a pack's figures were measured on."""


@dataclass(frozen=True)
class Change:
    """One figure of one period beside that of the reference."""

    period: str
    about: str
    """files, mix, scores, distance or embeddings."""
    subject: str
    """What it is of: "reason", "scanner", "view", "modality", a task and class."""
    name: str
    """Which value of it; "" for a mean."""
    measure: str
    """share, mean, share in the tail, share far away or AUROC of a classifier."""
    reference: float
    value: float
    difference: float
    low: float
    high: float
    effect: float
    """Signed; see above."""
    p: float
    num: int
    """Units or studies of the period."""
    num_patients: int
    p_adjusted: float = math.nan
    size: str = ""
    """small, clear or large; "" where chance explains it."""
    note: str = ""


@dataclass(frozen=True, eq=False)
class _Sides:
    """The rows of the reference and of each period of one table."""

    patients_N: NDArray[np.int64]
    reference_N: NDArray[np.bool_]
    period_N: NDArray[np.int64]
    """−1 for rows that are of no watched period."""

    def of(self, period: int, seed: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows of the reference and of a period, some patients of them where there are many."""
        sides = (np.flatnonzero(self.reference_N), np.flatnonzero(self.period_N == period))
        first, second = (rows[whole_patients(self.patients_N[rows], most, seed)] for rows in sides)
        return first, second


def changes_of(
    watched: Watched,
    reference: Watched | None,
    periods: Periods,
    *,
    fewest: int = FEWEST_PATIENTS,
    num_resamples: int = 2000,
    seed: int = 0,
) -> list[Change]:
    """Compare every period with the reference.

    Args:
        watched: The runs that are watched.
        reference: Runs of the time before; None for the first `NUM_FIRST` periods of the watched ones, which are then
            not compared themselves.
        periods: Periods that the time of the watched runs is divided into.
        fewest: Patients that a side needs.
        num_resamples: Resamples of patients.
        seed: Seed of all draws.

    Returns:
        The changes in the order of kinds, figures and periods, adjusted; [] where no two sides are large enough.
    """
    changes = [
        *_of_units(watched, reference, periods, fewest, seed),
        *_of_scores(watched, reference, periods, fewest, num_resamples, seed),
        *_of_distances(watched, reference, periods, fewest, num_resamples, seed),
        *_of_vectors(watched, reference, periods, fewest, seed),
    ]
    return _adjusted(changes)


def compared_periods(reference: Watched | None, periods: Periods) -> range:
    """Return the periods that are compared: all, or those after the first ones, which are the reference."""
    return range(0 if reference is not None else min(NUM_FIRST, max(1, len(periods.names) - 1)), len(periods.names))


def _sides(periods: Periods, reference: Watched | None, of_watched: Any, of_reference: Any) -> _Sides:
    """Divide rows of the watched runs, with those of the reference behind them."""
    codes = periods.codes(_get(of_watched, "week"), _get(of_watched, "run"))
    patients = _get(of_watched, "patients")
    if reference is None:
        later = compared_periods(None, periods)
        return _Sides(patients, (codes >= 0) & (codes < later.start), np.where(codes >= later.start, codes, -1))
    others = np.empty(0, np.int64) if of_reference is None else _get(of_reference, "patients")
    num, more = len(patients), len(others)
    return _Sides(
        np.concatenate([patients, others]),
        np.arange(num + more) >= num,
        np.concatenate([codes, np.full(more, -1, np.int64)]),
    )


def _get(table: Any, name: str) -> NDArray[Any]:
    return getattr(table, f"{name}_U" if hasattr(table, f"{name}_U") else f"{name}_N")


def _both(of_watched: NDArray[Any], of_reference: NDArray[Any] | None) -> NDArray[Any]:
    return of_watched if of_reference is None else np.concatenate([of_watched, of_reference])


def _of_units(
    watched: Watched, reference: Watched | None, periods: Periods, fewest: int, seed: int
) -> Iterator[Change]:
    units, before = watched.units, None if reference is None else reference.units
    sides = _sides(periods, reference, units, before)
    status = _both(units.status_U, None if before is None else before.status_U)
    reasons = _both(units.reason_U, None if before is None else before.reason_U)
    facts = {n: _both(units.facts[n], None if before is None else before.facts[n]) for n in UNIT_FACTS}
    scored = status == SCORED
    for period in compared_periods(reference, periods):
        first, second = sides.of(period, seed, MOST_ROWS)
        name = periods.names[period]
        yield from _shares(name, "files", "reason", reasons, sides, first, second, fewest)
        first, second = first[scored[first]], second[scored[second]]
        for fact, values in facts.items():
            yield from _shares(name, "mix", fact, values, sides, first, second, fewest)


def _shares(
    period: str,
    about: str,
    subject: str,
    values: NDArray[Any],
    sides: _Sides,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    fewest: int,
) -> Iterator[Change]:
    """Yield the share of each value; of a fact with one value only there is nothing to compare."""
    rows = np.concatenate([first, second])
    if not _is_enough(sides, first, second, fewest):
        return
    inside = np.arange(len(rows)) >= len(first)
    names, codes = np.unique(values[rows].astype(str), return_inverse=True)
    if len(names) < 2:
        return
    counts = np.bincount(codes)
    named = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    if len(names) == 2 and all(names):  # the other share is one less this
        named = named[1:]
    for code in sorted(named.tolist(), key=lambda c: names[c]):
        if names[code]:  # units that were scored have no reason
            yield _share(period, about, subject, str(names[code]), "share", codes == code, inside, sides, rows)
    if len(names) > MOST_VALUES:
        rest = ~np.isin(codes, named)
        yield _share(period, about, subject, OTHERS, "share", rest, inside, sides, rows)


def _share(
    period: str,
    about: str,
    subject: str,
    name: str,
    measure: str,
    case: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    sides: _Sides,
    rows: NDArray[np.int64],
) -> Change:
    patients = np.unique(sides.patients_N[rows], return_inverse=True)[1]
    one = share_difference(case, inside, patients)
    before = one.share - one.difference
    effect = 2 * (math.asin(math.sqrt(one.share)) - math.asin(math.sqrt(min(max(before, 0.0), 1.0))))
    num, num_patients = int(inside.sum()), len(np.unique(patients[inside]))
    return Change(
        period,
        about,
        subject,
        name,
        measure,
        before,
        one.share,
        one.difference,
        one.difference_low,
        one.difference_high,
        effect,
        one.p,
        num,
        num_patients,
    )


def _is_enough(sides: _Sides, first: NDArray[np.int64], second: NDArray[np.int64], fewest: int) -> bool:
    return min(len(np.unique(sides.patients_N[rows])) for rows in (first, second)) >= fewest


def _of_scores(
    watched: Watched, reference: Watched | None, periods: Periods, fewest: int, num_resamples: int, seed: int
) -> list[Change]:
    before = {} if reference is None else {(q.task, q.name): q for q in reference.questions}
    questions = [q for q in watched.questions if reference is None or (q.task, q.name) in before]
    pairs = [(question, before.get((question.task, question.name))) for question in questions]
    values = [_both(one.probability_N, None if other is None else other.probability_N) for one, other in pairs]
    sides = [_sides(periods, reference, one, other) for one, other in pairs]
    changes: list[list[Change]] = [[] for _ in questions]
    for period in compared_periods(reference, periods):  # outside, so that all questions share the draws of patients
        name = periods.names[period]
        for place, question in enumerate(questions):
            first, second = sides[place].of(period, seed, MOST_ROWS)
            if not _is_enough(sides[place], first, second, fewest):
                continue
            probability = values[place]
            of = ("scores", question.title)
            changes[place].append(_mean(name, *of, probability, sides[place], first, second, num_resamples, seed))
            rows = np.concatenate([first, second])
            inside = np.arange(len(rows)) >= len(first)
            case = probability[rows] > np.quantile(probability[first], TAIL)
            changes[place].append(_share(name, *of, "", "share in the tail", case, inside, sides[place], rows))
    return [one for of_question in changes for one in of_question]


def _of_distances(
    watched: Watched, reference: Watched | None, periods: Periods, fewest: int, num_resamples: int, seed: int
) -> Iterator[Change]:
    """Compare how far images lie from those that the pack's figures were measured on, modality by modality."""
    units, before = watched.units, None if reference is None else reference.units
    values = _both(units.distance_U, None if before is None else before.distance_U)
    modality = _both(units.facts["modality"], None if before is None else before.facts["modality"])
    sides = _sides(periods, reference, units, before)
    for one in sorted(set(modality[~np.isnan(values)].tolist())):
        measured = ~np.isnan(values) & (modality == one)
        of_one = replace(
            sides, reference_N=sides.reference_N & measured, period_N=np.where(measured, sides.period_N, -1)
        )
        for period in compared_periods(reference, periods):
            first, second = of_one.of(period, seed, MOST_ROWS)
            if not _is_enough(of_one, first, second, fewest):
                continue
            name = periods.names[period]
            yield _mean(name, "distance", one, values, of_one, first, second, num_resamples, seed)
            rows = np.concatenate([first, second])
            inside = np.arange(len(rows)) >= len(first)
            yield _share(name, "distance", one, "", "share far away", values[rows] > FAR, inside, of_one, rows)


def _mean(
    period: str,
    about: str,
    subject: str,
    values: NDArray[np.floating],
    sides: _Sides,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    num_resamples: int,
    seed: int,
) -> Change:
    rows = np.concatenate([first, second])
    inside = np.arange(len(rows)) >= len(first)
    names, patients = np.unique(sides.patients_N[rows], return_inverse=True)
    weights = _weights(len(names), num_resamples, seed)
    (before, now), drawn_2B = means(patients, weights, [(~inside, values[rows]), (inside, values[rows])])
    smallest = min(effective_patients(patients[side]) for side in (inside, ~inside))
    tested: Difference = change(float(now - before), drawn_2B[1] - drawn_2B[0], smallest)
    spread = float(np.std(values[first]))
    effect = tested.value / spread if spread > 0 else math.nan
    return Change(
        period,
        about,
        subject,
        "",
        "mean",
        float(before),
        float(now),
        tested.value,
        tested.low,
        tested.high,
        effect,
        tested.p,
        int(inside.sum()),
        len(np.unique(patients[inside])),
    )


@lru_cache(maxsize=1)
def _weights(num_patients: int, num_resamples: int, seed: int) -> NDArray[Any]:
    """Draw patients: once for all questions of a period, which mostly have the same."""
    return draw_weights(num_patients, num_resamples, seed=seed)


def _of_vectors(
    watched: Watched, reference: Watched | None, periods: Periods, fewest: int, seed: int
) -> Iterator[Change]:
    vectors, before = watched.vectors, None if reference is None else reference.vectors
    if vectors is None or (reference is not None and (before is None or before.pack != vectors.pack)):
        return
    values = _both(vectors.vectors_ND, None if before is None else before.vectors_ND)
    sides = _sides(periods, reference, vectors, before)
    for period in compared_periods(reference, periods):
        first, second = sides.of(period, seed, MOST_VECTORS // 2)
        if not _is_enough(sides, first, second, fewest):
            continue
        rows = np.concatenate([first, second])
        name = periods.names[period]
        codes = np.where(np.arange(len(rows)) < len(first), 0, 1).astype(np.int16)
        patients = np.unique(sides.patients_N[rows], return_inverse=True)[1]
        of_period = Attribute(periods.by, ("reference", name), codes)
        tests = drift_between(
            values[rows],
            patients,
            of_period,
            reference=("reference",),
            num_permutations=NUM_PERMUTATIONS,
            fewest=fewest,
            most=MOST_VECTORS,
            seed=seed,
        )
        measured = {row["name"].rpartition(": ")[2]: row for row in tests}
        area = measured.get("domain classifier AUROC")
        if area is None:
            continue
        note = "; ".join(f"{what}: p {row['p']:.3f}" for what, row in measured.items() if row is not area)
        yield Change(
            name,
            "embeddings",
            "vectors",
            "",
            "AUROC of a classifier",
            0.5,
            area["value"],
            area["value"] - 0.5,
            math.nan,
            math.nan,
            _distance_of(area["value"]),
            area["p"],
            len(second),
            len(np.unique(sides.patients_N[second])),
            note=note,
        )


def _distance_of(area: float) -> float:
    """Return how many standard deviations two normal laws are apart that have this AUROC."""
    from scipy.special import ndtri

    return float(math.sqrt(2) * ndtri(min(max(area, 0.5), 0.9999)))


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """Adjust p-values over all figures and periods, and judge the sizes of what is left.

    Tests of vectors are a family of their own: permutations give no p below 1 in 1,000, which hundreds of other figures
    beside them would drown.
    """
    adjusted: dict[int, float] = {}
    for is_of_vectors in (False, True):
        places = [place for place, one in enumerate(changes) if (one.about == "embeddings") == is_of_vectors]
        values = benjamini_hochberg([changes[place].p for place in places])
        adjusted |= zip(places, values.tolist(), strict=True)
    return [
        replace(one, p_adjusted=adjusted[place], size=_size(one.effect, adjusted[place]))
        for place, one in enumerate(changes)
    ]


def _size(effect: float, p: float) -> str:
    if not p <= LEVEL or math.isnan(effect):
        return ""
    return "large" if abs(effect) >= LARGE else "clear" if abs(effect) >= CLEAR else "small"

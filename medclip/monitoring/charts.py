"""Charts: one figure of one stratum, look after look, with a value for each patient.

Figures are scores of a class, distances to the pack's home, the share of patients with a file that was not scored, and
directions of vectors; strata are everything, and each scanner, site, view, protocol and modality that has enough
patients. Values are ranked among those of the chart's own reference and become normal scores: means of few patients are
then nearly normal, and an outlier counts as a rank (Hawkins & Deng, J. Quality Technology 42 (2010) 165-173).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.monitoring.read_results import NOT_STATED, SCORED, SEVERAL, Periods, Watched

Floats = NDArray[np.float64]

EVERYTHING = "everything"
OTHERS = "others"
_ALIKE = 0.02
"""Standard deviation of probabilities below which their logits are shown: 1.00 before and 1.00 after says nothing."""
_NUM_DIRECTIONS = 5
"""Of vectors: principal axes of the reference."""


@dataclass(frozen=True, eq=False)
class Figure:
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
        """Whether values are 0 or 1."""
        return self.about == "files"


@dataclass(frozen=True, eq=False)
class Chart:
    """One figure of one stratum, a row for each patient and look."""

    figure: Figure
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


def figures_of(watched: Watched, reference: Watched | None, periods: Periods, num_first: int) -> Iterator[Figure]:
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
        yield Figure("scores", question.title, patients, look, logit, facts_of(question, other), *shown)

    units, before = watched.units, None if reference is None else reference.units
    patients = both(units.patients_U, None if before is None else before.patients_U)
    look, facts = looks(units, before, "U"), facts_of(units, before)
    distance = both(units.distance_U, None if before is None else before.distance_U)
    for modality in sorted(set(facts["modality"][~np.isnan(distance)].tolist())):
        rows = ~np.isnan(distance) & (facts["modality"] == modality)
        of_rows = {name: values[rows] for name, values in facts.items()}
        values = distance[rows]
        yield Figure("distance", modality, patients[rows], look[rows], values, of_rows, "mean distance", values)
    unscored = (both(units.status_U, None if before is None else before.status_U) != SCORED).astype(np.float64)
    if unscored.any():
        yield Figure("files", "not scored", patients, look, unscored, facts, "share of patients", unscored)
    yield from _directions(watched, reference, looks, both, facts_of)


def _directions(watched: Watched, reference: Watched | None, looks: Any, both: Any, facts_of: Any) -> Iterator[Figure]:
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
        yield Figure("vectors", f"direction {place}", patients, look, along, facts, "mean", along)


def charts_of(figure: Figure, num_looks: int, fewest: int, pooled: dict[str, set[str]]) -> Iterator[Chart]:
    """Yield the charts of a figure: everything, then each stratum that is not the same images once more."""
    inside = figure.look_N >= 0
    seen: set[bytes] = set()

    def chart_of(fact: str, stratum: str, mask: NDArray[np.bool_]) -> Chart | None:
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


def _is_chartable(figure: Figure, mask: NDArray[np.bool_], num_looks: int, fewest: int) -> bool:
    _, look = patients_by_look(figure, mask, num_looks)[:2]
    return _last_reference(look, num_looks, fewest) is not None


def patients_by_look(
    figure: Figure, mask: NDArray[np.bool_], num_looks: int
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
    figure: Figure, fact: str, stratum: str, mask: NDArray[np.bool_], num_looks: int, fewest: int
) -> Chart | None:
    patients, look, value, shown = patients_by_look(figure, mask, num_looks)
    last = _last_reference(look, num_looks, fewest)
    if last is None:
        return None
    y, scale = value, 1.0
    if not figure.is_share:
        y = normal_scores(value, np.sort(value[look <= last]))
        scale = float(y[look <= last].std())
        if not scale > 0:
            return None
    return Chart(figure, fact, stratum, mask, patients, look, y, shown, last, scale)


def normal_scores(value_M: Floats, reference_R: Floats) -> Floats:
    """Return the normal quantile of each value's rank among the sorted reference; ties share the middle."""
    from scipy.special import ndtri

    below, upto = (np.searchsorted(reference_R, value_M, side=side) for side in ("left", "right"))
    return ndtri(((below + upto) / 2 + 0.5) / (len(reference_R) + 1))

"""Risks by year measured: who had the event first, who had it by the end of each year, and how many.

Of each year cases are rows with the event by its end, controls those that were followed to its end without it; others
are not known. Areas and points of the ROC curve count each of them once, as Mirai's do. The top tenth and the Brier
score are of everybody: of women who left only those with a cancer are known, so that known rows have more cases than
there are, and a tenth of them is less than a tenth of the women. There known rows are weighted by the inverse of the
probability of being known (`concordance.at_horizon`).

Those weights are right where leaving has nothing to do with the risk. Where women at high risk leave sooner, they made
true risks look wrong in 84 % of simulated cohorts. Observed/expected and calibration slope therefore hold the months
that each row was followed, up to the end of the year, against the risk of such a month (`person_months`): who leaves
sooner is expected to have fewer events. They are right however leaving depends on the risk.

Cancers that are found within half a year were there at the examination: seeing them is detection. So every figure is of
two populations: `risk` leaves those rows out, `detection_and_risk` has them.

References: Yala et al., Sci. Transl. Med. 13 (2021); Antolini, Boracchi & Biganzoli, Stat. Med. 24 (2005) 3927-3944;
Uno et al., Stat. Med. 30 (2011) 1105-1117; Crowson, Atkinson & Therneau, Stat. Methods Med. Res. 25 (2016) 1692-1706
(calibration in the time that was followed); Singer & Willett, J. Educ. Stat. 18 (1993) 155-195 (rows of periods).

The threshold is chosen anew in each resample, on the very rows that are measured: the figures are points of the ROC
curve, not the rates of a threshold that somebody could use. For those, choose a threshold on other patients
(`medclip.auditing.thresholds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label, Risk, Rows, cell_rows, cells_of, valid_rows
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics import catalogue
from medclip.statistics.metrics.concordance import Kind, at_horizon, concordance
from medclip.statistics.metrics.ranks import cumulated
from medclip.statistics.metrics.rates import ratio
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.standard_errors import Clusters, clusters_of
from medclip.statistics.resampling.sums import blocks, summing_matrix

Floats = NDArray[np.float64]
FIXED = 0.9
"""Specificity, or sensitivity, that the other one is measured at."""
TOP = 0.1
"""Share of rows that are called, the highest scores first."""
POINTS: Mapping[str, str] = {
    "tpr_at_tnr": f"sensitivity at a specificity of {FIXED:g}",
    "tnr_at_tpr": f"specificity at a sensitivity of {FIXED:g}",
    "tpr_of_top": f"sensitivity of the top {TOP:.0%}",
}
"""Names in words."""
_ROUNDING = 1e-9


def operating_points(cohort: Cohort, label: Label, weights_PB: NDArray[Any]) -> dict[str, tuple[Floats, Floats]]:
    """Measure points of the ROC curve in every cell of the cohort.

    A specificity counts as reached by the lowest threshold that reaches it, without interpolation; of rows with equal
    scores at the edge of the top tenth the share that fits in is taken, as drawing among them would on average.

    Args:
        cohort: Patients and attributes.
        label: Scores and truths; its row weights count, too.
        weights_PB: Weight of each patient in each replicate.

    Returns:
        By the names of `POINTS`: values of the sample [G] and of the resamples [G, B]; NaN where a side is empty.
    """
    rows = valid_rows(cohort, label)
    names = list(POINTS)
    values_MG1B = np.full((len(names), rows.num_cells, 1 + weights_PB.shape[1]), np.nan)
    for g, cell in enumerate(rows.cells):
        if not len(cell):
            continue
        place_n = np.unique(-rows.rank_n[cell], return_inverse=True)[1]  # the highest score first
        sides = [_summed(rows, cell, place_n, side) for side in (True, False)]
        start = 0
        for weights in (np.ones((len(weights_PB), 1), np.uint8), weights_PB):
            for block in blocks(weights, len(cell), rows.weight_n is None):
                columns = slice(start, start + block.num)
                points = _points(*(cumulated(block.sums(side)).astype(np.float64) for side in sides))
                values_MG1B[:, g, columns] = points[:, : block.num]
                start += block.num
    return {name: (values[:, 0], values[:, 1:]) for name, values in zip(names, values_MG1B, strict=True)}


def _summed(rows: Rows, cell: NDArray[np.int64], place_n: NDArray[np.int64], positive: bool) -> Any:
    side = rows.truth_n[cell] == positive
    cells = cell[side]
    return summing_matrix(
        place_n[side], int(place_n.max()) + 1, rows.patients_n[cells], rows.num_patients, rows.values(cells)
    )


def _points(true_Ub: Floats, false_Ub: Floats) -> Floats:
    """Return the metrics [M, b] of true and false positives after each score, the highest first."""
    tpr_Ub, fpr_Ub = (ratio(side_Ub, np.broadcast_to(side_Ub[-1], side_Ub.shape)) for side_Ub in (true_Ub, false_Ub))
    at_tnr = np.where(fpr_Ub <= 1 - FIXED + _ROUNDING, tpr_Ub, -np.inf).max(axis=0)
    at_tpr = np.where(tpr_Ub >= FIXED - _ROUNDING, 1 - fpr_Ub, -np.inf).max(axis=0)
    called_Ub = true_Ub + false_Ub
    wanted_b = TOP * called_Ub[-1]
    after_b = np.minimum((called_Ub < wanted_b).sum(axis=0), len(called_Ub) - 1)
    columns = np.arange(len(after_b))
    before_b = np.maximum(after_b - 1, 0)
    step_b = called_Ub[after_b, columns] - called_Ub[before_b, columns]
    part_b = np.divide(wanted_b - called_Ub[before_b, columns], step_b, out=np.ones(len(step_b)), where=step_b > 0)
    first, last = tpr_Ub[before_b, columns], tpr_Ub[after_b, columns]
    of_top = first + part_b * (last - first)
    undefined_b = (true_Ub[-1] == 0) | (false_Ub[-1] == 0)
    return np.where(undefined_b, np.nan, np.stack([at_tnr, at_tpr, of_top]))


MONTHS = 12
DETECTED_MONTHS = 6
"""An event up to here was there at the examination."""
POPULATIONS = ("risk", "detection_and_risk")
CONCORDANCES: Mapping[str, Kind] = {f"c_index_{kind}": kind for kind in get_args(Kind)}
_CALIBRATION = tuple(name for name, metric in catalogue.METRICS.items() if metric.yearly)
_BY_MONTH = ("observed_expected", "calibration_slope")
"""Calibration that is measured of the months that were followed."""
_OF_EVERYBODY = "tpr_of_top"
"""The operating point that depends on how many rows are cases."""
METRICS: Mapping[str, str] = {
    "c_index_harrell_td": "concordance (Harrell, with the risk of the later row's year)",
    "c_index_uno": "concordance (Uno, weighted for censoring)",
    "c_index_mirai_compat": "concordance (Mirai's own weights)",
    "auroc": "AUROC of the year",
    **POINTS,
    **{name: catalogue.METRICS[name].title for name in _CALIBRATION},
}
"""Names in words."""


@dataclass(frozen=True, eq=False)
class YearlyFigures:
    """Metrics of one population in every cell, of all years (year 0) or of one."""

    population: str
    year: int
    """0 for what is of all years."""
    label: Label
    """What is counted: its positives are cases, its negatives controls."""
    estimates: Mapping[str, tuple[Estimate, ...]]
    """By metric, in the order of `cells_of`."""
    calibration: tuple[Replicates, Clusters] | None = None
    """What observed/expected and slope were measured from, in the same order; None for all years together."""


def of_population(risk: Risk, population: str) -> Risk:
    """Leave out the rows that a population does not have: their times become unknown."""
    if population == POPULATIONS[1]:
        return risk
    early_N = risk.event_months_N <= DETECTED_MONTHS
    months = (np.where(early_N, np.nan, values) for values in (risk.event_months_N, risk.followup_months_N))
    return Risk(risk.name, risk.risk_NK, risk.years, *months)


def label_of(risk: Risk) -> Label:
    """Return the label with times whose score is the risk of the last year; rows that are not known have no truth."""
    truth_N = np.where(risk.valid_N, ~np.isnan(risk.event_months_N), np.nan).astype(np.float64)
    return Label(risk.name, risk.risk_NK[:, -1], truth_N, time_N=risk.time_N)


def yearly_figures(cohort: Cohort, risk: Risk, weights_PB: NDArray[Any]) -> Iterator[YearlyFigures]:
    """Measure risks in both populations: the concordance, then each year that somebody was followed to.

    Args:
        cohort: Patients and attributes.
        risk: One of the cohort's risks.
        weights_PB: Weight of each patient in each replicate.
    """
    for population in POPULATIONS:
        part = of_population(risk, population)
        timed = label_of(part)
        yield YearlyFigures(population, 0, timed, _concordances(cohort, part, timed, weights_PB))
        for column, year in enumerate(risk.years):
            scored = Label(risk.name, part.risk_NK[:, column], timed.truth_N, time_N=part.time_N)
            try:
                plain = at_horizon(scored, MONTHS * year, weighted=False)
            except MedclipError:  # nobody was followed so far
                break
            months, by_month = person_months(cohort, part, column)
            calibration = evaluate(months, by_month, weights_PB, metrics=_BY_MONTH), clusters_of(months, by_month)
            figures = _of_year(cohort, plain, at_horizon(scored, MONTHS * year), weights_PB)
            figures |= {name: tuple(estimates(calibration[0], name, calibration[1])) for name in _BY_MONTH}
            yield YearlyFigures(population, year, plain, figures, calibration)


def person_months(cohort: Cohort, risk: Risk, column: int) -> tuple[Cohort, Label]:
    """Turn each row into the months that it was followed, up to the end of a year: did the event come in such a month?

    Within a year every month has the same risk, 1 − ((1 − r)/(1 − s))^(1/12) with the risks r by its end and s by its
    start. Months of a year without the event are one row, weighted by their number; the month of the event is another.

    Args:
        cohort: Patients and attributes.
        risk: One of the cohort's risks.
        column: Which year is the last, as its place in `risk.years`.

    Returns:
        Patients and attributes of the new rows, and the label with their monthly risks, events and weights; rows that
        were not followed so far have no truth.
    """
    time_N, has_event_N = risk.time_N, ~np.isnan(risk.event_months_N) & (risk.time_N <= MONTHS * risk.years[-1])
    event_column_N = column_of(time_N, risk.years)
    without_N = np.where(has_event_N, np.ceil(time_N) - 1, time_N)
    survival_NK = 1 - np.concatenate([np.zeros((len(time_N), 1)), risk.risk_NK], axis=1)
    risks, truths, weights = list[Floats](), list[Floats](), list[Floats]()
    for k in range(column + 1):
        start, end = MONTHS * (risk.years[k - 1] if k else 0), MONTHS * risk.years[k]
        staying_N = np.clip(ratio(survival_NK[:, k + 1], survival_NK[:, k]), 0.0, 1.0)
        months_N = np.clip(without_N, start, end) - start
        for truth, weight_N in ((0.0, months_N), (1.0, has_event_N * (event_column_N == k))):
            risks.append(1 - staying_N ** (1 / (end - start)))
            truths.append(np.where(risk.valid_N & (weight_N > 0), truth, np.nan))
            weights.append(np.nan_to_num(weight_N).astype(np.float64))
    label = Label(risk.name, np.concatenate(risks), np.concatenate(truths), weight_N=np.concatenate(weights))
    attributes = tuple(replace(one, codes_N=np.tile(one.codes_N, len(risks))) for one in cohort.attributes)
    return Cohort(np.tile(cohort.patients_N, len(risks)), (label,), attributes), label


def column_of(months_N: Floats, years: Sequence[int]) -> NDArray[np.int64]:
    """Return the column of each time: that of the first year by whose end it is; the last one for all that is later."""
    ends_K = MONTHS * np.asarray(years, np.float64)
    return np.minimum(np.searchsorted(ends_K, np.nan_to_num(months_N)), len(ends_K) - 1)


def _concordances(
    cohort: Cohort, risk: Risk, label: Label, weights_PB: NDArray[Any]
) -> dict[str, tuple[Estimate, ...]]:
    time_N, event_N = risk.time_N, ~np.isnan(risk.event_months_N)
    column_N = column_of(time_N, risk.years)
    cells = [np.flatnonzero(risk.valid_N & cell_rows(cohort, cell)) for cell in cells_of(cohort)]
    drawn: dict[str, Floats] = {name: np.full((len(cells), 1 + weights_PB.shape[1]), np.nan) for name in CONCORDANCES}
    for g, rows in enumerate(cells):
        once_N1 = np.ones((len(rows), 1), np.uint8)
        weights_NB = np.concatenate([once_N1, weights_PB[cohort.patients_N[rows]]], axis=1)
        for name, kind in CONCORDANCES.items():
            if event_N[rows].any():
                ranked = time_N[rows], event_N[rows], risk.risk_NK[rows]
                drawn[name][g] = concordance(*ranked, kind=kind, columns_N=column_N[rows], weights_NB=weights_NB)
    counted = evaluate(cohort, label, weights_PB[:, :0], metrics=())
    return {
        name: _as(counted, "c_index", values[:, 0], values[:, 1:], clusters_of(cohort, label))
        for name, values in drawn.items()
    }


def _of_year(
    cohort: Cohort,
    plain: Label,
    weighted: Label,
    weights_PB: NDArray[Any],
) -> dict[str, tuple[Estimate, ...]]:
    once, everybody = clusters_of(cohort, plain), clusters_of(cohort, weighted)
    calibration = evaluate(
        cohort, weighted, weights_PB, metrics=[name for name in _CALIBRATION if name not in _BY_MONTH]
    )
    replicates = evaluate(cohort, plain, weights_PB, metrics=("auroc",))
    of_everybody = operating_points(cohort, weighted, weights_PB)[_OF_EVERYBODY]
    measured = {"auroc": tuple(estimates(replicates, "auroc", once))}
    for name, drawn in operating_points(cohort, plain, weights_PB).items():
        if name == _OF_EVERYBODY:
            measured[name] = _as(calibration, "tpr", *of_everybody, everybody)
        else:
            measured[name] = _as(replicates, "tnr" if name == "tnr_at_tpr" else "tpr", *drawn, once)
    return measured | {name: tuple(estimates(calibration, name, everybody)) for name in calibration.point}


def _as(
    replicates: Replicates, metric: str, point_G: Floats, drawn_GB: Floats, clusters: Clusters
) -> tuple[Estimate, ...]:
    """Return the intervals that a metric of the audit would have with these values."""
    values = replace(replicates, point={metric: point_G}, drawn={metric: drawn_GB})
    return tuple(estimates(values, metric, clusters))

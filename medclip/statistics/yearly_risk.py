"""Risks by year measured: who had the event first, who had it by the end of each year, and how many.

Of each year cases are rows with the event by its end, controls those that were followed to its end without it; others
are not known. Areas and points of the ROC curve count each of them once, as Mirai's do. The top tenth and calibration
are of everybody: of women who left only those with a cancer are known, so that known rows have more cases than there
are, and a tenth of them is less than a tenth of the women. There known rows are weighted by the inverse of the
probability of being known (`concordance.at_horizon`).

Cancers that are found within half a year were there at the examination: seeing them is detection. So every figure is of
two populations: `risk` leaves those rows out, `detection_and_risk` has them.

References: Yala et al., Sci. Transl. Med. 13 (2021); Antolini, Boracchi & Biganzoli, Stat. Med. 24 (2005) 3927-3944;
Uno et al., Stat. Med. 30 (2011) 1105-1117.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError
from medclip.statistics.cohort import Cohort, Label, Risk, cell_rows, cells_of
from medclip.statistics.estimate import Estimate
from medclip.statistics.metrics import catalogue, operating_points
from medclip.statistics.metrics.concordance import Kind, at_horizon, concordance
from medclip.statistics.resampling.bootstrap import Replicates, evaluate
from medclip.statistics.resampling.intervals import estimates
from medclip.statistics.resampling.standard_errors import Clusters, clusters_of

Floats = NDArray[np.float64]
MONTHS = 12
DETECTED_MONTHS = 6
"""An event up to here was there at the examination."""
POPULATIONS = ("risk", "detection_and_risk")
CONCORDANCES: Mapping[str, Kind] = {f"c_index_{kind}": kind for kind in get_args(Kind)}
_CALIBRATION = ("observed_expected", "calibration_slope", "brier")
_OF_EVERYBODY = "tpr_of_top"
"""The operating point that depends on how many rows are cases."""
METRICS: Mapping[str, str] = {
    "c_index_harrell_td": "concordance (Harrell, with the risk of the later row's year)",
    "c_index_uno": "concordance (Uno, weighted for censoring)",
    "c_index_mirai_compat": "concordance (Mirai's own weights)",
    "auroc": "AUROC of the year",
    **operating_points.METRICS,
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
        own = of_population(risk, population)
        timed = label_of(own)
        yield YearlyFigures(population, 0, timed, _concordances(cohort, own, timed, weights_PB))
        for column, year in enumerate(risk.years):
            scored = Label(risk.name, own.risk_NK[:, column], timed.truth_N, time_N=own.time_N)
            try:
                plain = at_horizon(scored, MONTHS * year, weighted=False)
            except MedclipError:  # nobody was followed so far
                break
            yield YearlyFigures(
                population, year, plain, _of_year(cohort, plain, at_horizon(scored, MONTHS * year), weights_PB)
            )


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
    cohort: Cohort, plain: Label, weighted: Label, weights_PB: NDArray[Any]
) -> dict[str, tuple[Estimate, ...]]:
    once, everybody = clusters_of(cohort, plain), clusters_of(cohort, weighted)
    replicates = evaluate(cohort, plain, weights_PB, metrics=("auroc",))
    calibration = evaluate(cohort, weighted, weights_PB, metrics=_CALIBRATION)
    of_everybody = operating_points.operating_points(cohort, weighted, weights_PB)[_OF_EVERYBODY]
    measured = {"auroc": tuple(estimates(replicates, "auroc", once))}
    for name, drawn in operating_points.operating_points(cohort, plain, weights_PB).items():
        if name == _OF_EVERYBODY:
            measured[name] = _as(calibration, "tpr", *of_everybody, everybody)
        else:
            measured[name] = _as(replicates, "tnr" if name == "tnr_at_tpr" else "tpr", *drawn, once)
    return measured | {name: tuple(estimates(calibration, name, everybody)) for name in _CALIBRATION}


def _as(
    replicates: Replicates, metric: str, point_G: Floats, drawn_GB: Floats, clusters: Clusters
) -> tuple[Estimate, ...]:
    """Return the intervals that a metric of the audit would have with these values."""
    values = replace(replicates, point={metric: point_G}, drawn={metric: drawn_GB})
    return tuple(estimates(values, metric, clusters))

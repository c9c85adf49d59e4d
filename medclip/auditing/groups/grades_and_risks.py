"""Gradings in ordered classes, and risks by year, in every group.

Of gradings: kappa, agreement, errors up and down, and each group against all others. Shares have the interval of every
share (Wilson's at the effective size of patients, with Student's t). Kappa has value ± t · SE of its Fisher transform
artanh κ, taken back, so that it stays below 1. A difference is group minus rest with value ± t · SE of the resamples,
and tested; all of a model are one family.

Of risks: concordance, areas, operating points and calibration, without and with early events. Intervals are those that
the same metrics of labels have (`statistics.resampling.intervals`). Groups are not compared: a difference of
concordances between groups is measured of labels with times (`--time`). Whether the risks of the last year are
calibrated is tested, in the family of all findings (`family`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.disclosure import FEW_CASES, CellState, Roundings, hidden, roundings
from medclip.auditing.groups.differences import REST
from medclip.auditing.groups.family import Tested, ideal_tests
from medclip.auditing.groups.measure import Row, adjust, exported, fewest_of, rounded_values, short
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import Cohort, Label, Ordinal, cell_rows
from medclip.statistics.estimate import Difference, Estimate
from medclip.statistics.metrics.grading_agreement import KAPPA, SHARES, agreement, ordinal_sums
from medclip.statistics.resampling.resampled import Resampled, change, combination, interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.yearly_risk import CONCORDANCES, POPULATIONS, yearly_figures

Floats = NDArray[np.float64]
_COMPARED = (KAPPA, "exact", "within_one", "one_up", "one_down")


def ordinal_rows(model: str, cohort: Cohort, weights_PB: NDArray[Any], options: MeasureOptions) -> list[Row]:
    """Return the table `ordinal`: each measure of each grading in each group, then each group minus all others.

    Returns:
        A row that compares has `reference` "rest" and p; groups that are too small are there without a value.
    """
    policy = replace(options.small_cells, min_pos=0, min_neg=0)
    states = {o.name: hidden(cohort, _as_label(o), policy) for o in cohort.ordinals}
    ways = roundings(cohort, states.values(), policy) if states else Roundings()
    rows: list[Row] = []
    for ordinal in cohort.ordinals:
        rows += _Grading(model, cohort, ordinal, weights_PB, states[ordinal.name], ways).rows()
    adjust([row for row in rows if "family" in row])
    return [short(ways.of(row["attribute"]), row) for row in rows]


def _as_label(ordinal: Ordinal) -> Label:
    """Return what cells are counted by: rows that have both grades; those that are graded right are positives."""
    valid_N = ordinal.valid_N
    right_N = np.where(valid_N, ordinal.truth_N == ordinal.predicted_N, np.nan)
    return Label(ordinal.name, np.where(valid_N, 0.0, np.nan), right_N.astype(np.float64), probability=False)


class _Grading:
    """One grading of one model."""

    def __init__(
        self,
        model: str,
        cohort: Cohort,
        ordinal: Ordinal,
        weights_PB: NDArray[Any],
        states: Sequence[CellState],
        ways: Roundings,
    ) -> None:
        self._model, self._cohort, self._ordinal = model, cohort, ordinal
        self._states, self._ways = states, ways
        sums = ordinal_sums(cohort, ordinal, weights_PB)
        self._inside = agreement(sums)
        self._outside = agreement(sums[:, :1] - sums)

    def rows(self) -> Iterator[Row]:
        """Yield the measures of each cell, then the differences."""
        for g, state in enumerate(self._states):
            head = {
                **{"model": self._model, "label": self._ordinal.name, "attribute": state.cell.attribute},
                **{"group": state.cell.group, "flag": "", "reason": ""},
            }
            if not state.shown:
                yield from (head | {"metric": m, "flag": "suppressed", "reason": state.reason} for m in self._inside)
                continue
            way = self._ways.of(state.cell.attribute)
            counts = {"n": exported(way, state.n), "n_patients": exported(way, state.n_patients)}
            for metric in self._inside:
                estimate = self._estimate(metric, self._inside, g, state.n, self._patients(g))
                yield head | counts | {"metric": metric} | self._rounded(state, estimate, state.n)
        for g, state in enumerate(self._states):
            yield from self._differences(g, state)

    def _differences(self, g: int, state: CellState) -> Iterator[Row]:
        rest = self._states[0].n - state.n, self._states[0].n_patients
        outside = self._patients(g, outside=True)
        if g == 0 or not state.shown or min(rest[0], outside) < self._ways.floor:
            return
        for metric in _COMPARED:
            d = self._difference(metric, g, state.n, rest[0], outside)
            yield {
                **{"model": self._model, "label": self._ordinal.name, "attribute": state.cell.attribute},
                **{"group": state.cell.group, "metric": metric, "reference": REST, "flag": "", "reason": ""},
                **self._rounded(state, d, min(state.n, rest[0])),
                **{"p": d.p, "family": f"grades, {self._model}"},
            }

    def _patients(self, g: int, *, outside: bool = False) -> float:
        inside_N = cell_rows(self._cohort, self._states[g].cell)
        return effective_patients(self._cohort.patients_N[self._ordinal.valid_N & (inside_N != outside)])

    def _rounded(self, state: CellState, estimate: Estimate, n: int) -> Row:
        """Round as other rates are: kappa is of all pairs of grades, and gives away no more than a rate."""
        way = self._ways.of(state.cell.attribute)
        return rounded_values(way, n, estimate.value, estimate.low, estimate.high)

    def _estimate(self, metric: str, of: dict[str, Floats], g: int, n: int, patients: float) -> Estimate:
        value, drawn_B = float(of[metric][g, 0]), of[metric][g, 1:]
        if metric in SHARES:
            return interval_of(share(value, drawn_B, cases=float(n), patients=patients))
        with np.errstate(divide="ignore", invalid="ignore"):
            bent, bent_B = np.arctanh(value), np.arctanh(drawn_B)
        if not np.isfinite(bent):
            return Estimate(value)
        d = change(float(bent), np.where(np.isfinite(bent_B), bent_B, np.nan), patients)
        return Estimate(value, float(np.tanh(d.low)), float(np.tanh(d.high)))

    def _difference(self, metric: str, g: int, n: int, rest: int, outside: float) -> Difference:
        """Compare a group with all others: floors under the variance of shares are those of their intervals."""
        ours, theirs = self._inside[metric][g], self._outside[metric][g]
        apart, apart_B = float(ours[0] - theirs[0]), ours[1:] - theirs[1:]
        if metric == KAPPA:
            return change(apart, apart_B, min(self._patients(g), outside))
        parts: list[Resampled] = [
            share(float(side[0]), side[1:], cases=float(cases), patients=patients)
            for side, cases, patients in ((ours, n, self._patients(g)), (theirs, rest, outside))
        ]
        joined = combination(apart, parts[0].drawn_B - parts[1].drawn_B, parts, [1, -1])
        return change(apart, joined.drawn_B, joined.df + 1, added=joined.lift)


_ALIKE = (
    {"tnr_at_tpr": "tnr"} | dict.fromkeys(("tpr_at_tnr", "tpr_of_top"), "tpr") | dict.fromkeys(CONCORDANCES, "c_index")
)
"""Metrics whose digits give away as much."""


def risk_rows(
    model: str, cohort: Cohort, weights_PB: NDArray[Any], options: MeasureOptions
) -> tuple[list[Row], list[Tested]]:
    """Return the table `risk`: each metric of each risk, population and year in each group.

    Returns:
        Rows, of which those of all years have no `year`, and groups that are too small are there without a value; and
        the tests of calibration by the last year, of everybody, without events that were there at the examination.
    """
    measured = [one for risk in cohort.risks for one in yearly_figures(cohort, risk, weights_PB)]
    states = [hidden(cohort, one.label, options.small_cells) for one in measured]
    ways = roundings(cohort, states, options.small_cells)
    rows: list[Row] = []
    for one, every in zip(measured, states, strict=True):
        name = one.label.name.removesuffix(f" by {12 * one.year}")
        for g, state in enumerate(every):
            head = {
                **{"model": model, "label": name, "attribute": state.cell.attribute, "group": state.cell.group},
                **{"population": one.population, "year": one.year or None, "flag": "", "reason": ""},
            }
            if not state.shown:
                hide = {"flag": "suppressed", "reason": state.reason}
                rows += [head | hide | {"metric": metric} for metric in one.estimates]
                continue
            way = ways.of(state.cell.attribute)
            counts = {n: exported(way, getattr(state, n)) for n in ("n", "n_pos", "n_neg", "n_patients")}
            weak = {"flag": "underpowered"} if state.n_pos < FEW_CASES else {}
            for metric, estimates in one.estimates.items():
                e, fewest = estimates[g], fewest_of(_ALIKE.get(metric, metric), state)
                written = rounded_values(way, fewest, e.value, e.low, e.high)
                rows.append(head | counts | weak | {"metric": metric} | written)
    last = {
        one.label.name.removesuffix(f" by {12 * one.year}"): (one, every[0])
        for one, every in zip(measured, states, strict=True)
        if one.calibration is not None and one.population == POPULATIONS[0]
    }
    tests: list[Tested] = []
    for name, (one, everybody) in last.items():
        if everybody.shown and one.calibration is not None:
            head = {"model": model, "label": f"{name} by year {one.year}"}
            tests += ideal_tests(head, *one.calibration)
    return rows, tests

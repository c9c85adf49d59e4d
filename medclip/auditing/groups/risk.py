"""Risks by year in every group: concordance, areas, operating points and calibration, without and with early events.

Intervals are those that the same metrics of labels have (`statistics.resampling.intervals`). Groups are not compared:
a difference of concordances between groups is measured of labels with times (`--time`).
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from medclip.auditing.disclosure.small_cells import hidden, roundings
from medclip.auditing.groups.measure import Row, exported, fewest_of, rounded_values
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import Cohort
from medclip.statistics.yearly_risk import CONCORDANCES, yearly_figures

_ALIKE = (
    {"tnr_at_tpr": "tnr"} | dict.fromkeys(("tpr_at_tnr", "tpr_of_top"), "tpr") | dict.fromkeys(CONCORDANCES, "c_index")
)
"""Metrics whose digits give away as much."""


def risk_rows(model: str, cohort: Cohort, weights_PB: NDArray[Any], options: MeasureOptions) -> list[Row]:
    """Return the table `risk`: each metric of each risk, population and year in each group.

    Args:
        model: Name of the model, as it is printed.
        cohort: Cohort with its risks.
        weights_PB: Weight of each of the cohort's patients in each replicate.
        options: Options, of which the policy of small cells is used.

    Returns:
        Rows of all years have no `year`; groups that are too small are there without a value.
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
            weak = {"flag": "underpowered"} if state.underpowered else {}
            for metric, estimates in one.estimates.items():
                e, fewest = estimates[g], fewest_of(_ALIKE.get(metric, metric), state)
                written = rounded_values(way, fewest, e.value, e.low, e.high)
                rows.append(head | counts | weak | {"metric": metric} | written)
    return rows

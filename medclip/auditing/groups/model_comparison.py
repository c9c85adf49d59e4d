"""Two models on the same patients: paired differences in every group, tested as one family."""

from __future__ import annotations

from typing import Any

import numpy as np

from medclip.auditing.groups.differences import paired as paired_differences
from medclip.auditing.groups.measure import (
    EXPLORATORY,
    Measured,
    adjust,
    compared,
    defined,
    fewest_of,
    measure,
    rounded_values,
    short,
)
from medclip.auditing.input.read import paired
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import ALL
from medclip.statistics.metrics import delong
from medclip.statistics.resampling.standard_errors import clusters_of
from medclip.statistics.resampling.weights import draw_weights


def model_rows(one: Measured, other: Measured, options: MeasureOptions) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the table `models`: the other model minus the first, on the rows that both scored.

    DeLong's p, in Obuchowski's form for several rows of a patient, stands beside the bootstrap's for everybody.

    Returns:
        Rows, of which p is adjusted within this pair of models, everybody apart from the groups; and sentences.
    """
    first, second = paired(one.cohort, other.cohort)
    notes = tuple(n for n in first.notes if n not in one.cohort.notes)
    weights_PB = draw_weights(first.num_patients, options.num_resamples, seed=options.seed)
    here = measure(one.name, first, one.thresholds, weights_PB, options)
    measured = measure(other.name, second, other.thresholds, weights_PB, options)
    rows: list[dict[str, Any]] = []
    for label, other_label in zip(first.labels, second.labels, strict=True):
        if not np.array_equal(label.valid_N, other_label.valid_N):
            notes += (f"{label.name} is not compared: the models scored different rows of it.",)
            continue
        if not np.array_equal(label.truth_N[label.valid_N], other_label.truth_N[label.valid_N]):
            notes += (f"{label.name} is not compared: the two tables state different truths for the same rows.",)
            continue
        a, b = here.replicates[label.name], measured.replicates[label.name]
        cells = [g for g, s in enumerate(here.states[label.name]) if s.shown]
        clusters = clusters_of(first, label)
        for metric in (m for m in defined(a, compared(models=True)) if m in b.point):
            for g, d in zip(cells, paired_differences(a, b, metric, cells, clusters), strict=True):
                state = here.states[label.name][g]
                rounded = here.roundings.of(state.cell.attribute)
                part = "overall" if state.cell.attribute == ALL else f"by group ({EXPLORATORY})"
                row = {
                    **{"model": one.name, "other": other.name, "label": label.name, "metric": metric, "p": d.p},
                    **{"attribute": state.cell.attribute, "group": state.cell.group},
                    **rounded_values(rounded, fewest_of(metric, state), d.value, d.low, d.high),
                    "family": f"models {part}, {one.name} and {other.name}",
                }
                if metric == "auroc" and state.cell.attribute == ALL and label.weight_N is None:
                    valid = label.valid_N
                    columns = (label.truth_N, label.score_N, other_label.score_N, first.patients_N)
                    row["delong_p"] = delong.paired(*(c[valid] for c in columns)).p
                rows.append(row)
    adjust(rows)
    rows = [short(here.roundings.of(row["attribute"]), row) for row in rows]
    return rows, notes

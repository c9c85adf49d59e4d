"""All shortcut tests of a model that were asked for, as rows of one table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.auditing.disclosure.small_cells import Rounding
from medclip.auditing.groups.measure import Measured, exported
from medclip.auditing.input.options import ReadOptions
from medclip.auditing.input.read import read_cohort
from medclip.auditing.input.score_table import ScoreSource
from medclip.auditing.options import MeasureOptions
from medclip.auditing.shortcuts import masked_pairs as device_pairs
from medclip.auditing.shortcuts import standardised_gaps as reweighted_gaps
from medclip.auditing.shortcuts import tests as shortcuts
from medclip.auditing.shortcuts.device import device_of
from medclip.auditing.shortcuts.reweighting import has_truth
from medclip.files.tables.table import Table
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute, Label

PREVALENCE = "prevalence"
"""What `reweight` may name beside columns: every group gets the same share of positives."""


def shortcut_rows(
    one: Measured,
    source: ScoreSource,
    labels: Table | None,
    label: Sequence[str] | None,
    reading: ReadOptions,
    options: MeasureOptions,
) -> list[dict[str, Any]]:
    """Return the table `shortcuts`, without the model's name.

    Args:
        one: The model, measured.
        source: Scores of the model.
        labels: The label table; None where it is the table of scores.
        label: Labels asked for.
        reading: Options of reading the tables.
        options: Options of measuring, of which `shortcuts` says which tests.

    Raises:
        MedclipError: WRONG_USE, TABLE_INVALID for columns that cannot be used.
    """
    wanted, cohort = options.shortcuts, one.cohort
    mix: tuple[Attribute, ...] = ()
    columns = [c for c in wanted.reweight if c != PREVALENCE]
    if columns:
        mix = read_cohort(source, labels, by=columns, label=label, options=replace(reading, all_pairs=False)).attributes
    masked = None
    if wanted.masked is not None:
        masked = read_cohort(wanted.masked, source.table if labels is None else labels, label=label, options=reading)
    table: list[dict[str, Any]] = []
    for x in (x for x in cohort.labels if x.time_N is None):
        threshold = one.values.get(x.name)
        for column in wanted.devices:
            device_N = device_of(cohort, column)
            least = options.small_cells.min_patients
            rows = shortcuts.device_test(cohort, x, device_N, one.weights_PB, min_patients=least)
            rows += shortcuts.negatives_with_device(
                cohort, x, device_N, one.weights_PB, threshold=threshold, min_patients=least
            )
            if masked is not None:
                masked_N = device_pairs.align(cohort, masked, x.name)
                rows += device_pairs.compare(
                    cohort, x, masked_N, device_N, one.weights_PB, threshold=threshold, min_patients=least
                )
            table += [{**row, "test": f"{column}: {row['test']}"} for row in rows]
        if wanted.reweight:
            table += _reweighted(one, x, mix, threshold, with_prevalence=PREVALENCE in wanted.reweight)
    if one.rounding.base == 1:
        return table
    return [_safe(one.rounding, row) for row in table if not row["stratum"].endswith(reweighted_gaps.BEFORE)]


def _safe(rounding: Rounding, row: dict[str, Any]) -> dict[str, Any]:
    """Round counts, and rates to what one case changes: exact ones would give a hidden group away by subtraction.

    Figures before reweighting stand in the tables of metrics and gaps; here they are left out, as are sentences that
    quote rates.
    """
    n, n_pos = row["n"], row["n_pos"]
    rounded = row | {"n": exported(rounding, n), "n_pos": exported(rounding, n_pos), "p": _three(row["p"])}
    if n is None or "score" in row["metric"]:
        return rounded | {name: round(float(row[name]), 3) for name in ("value", "low", "high")}
    sides = [count for count in (n_pos, n - n_pos) if count]
    smallest = max(math.prod(sides) // 2, 1) if row["metric"].startswith("au") else min(sides, default=1)
    values = {name: rounding.value(float(row[name]), smallest) for name in ("value", "low", "high")}
    return rounded | values | ({} if row["metric"].startswith("au") else {"note": ""})


def _reweighted(
    one: Measured, label: Label, mix: tuple[Attribute, ...], threshold: float | None, *, with_prevalence: bool
) -> list[dict[str, Any]]:
    by = [*mix, has_truth(label)] if with_prevalence else list(mix)
    rows = []
    for a, attribute in enumerate(one.cohort.attributes):
        own = [s for s in one.states[label.name] if s.cell.position[0] == a]
        shown = np.array([s.shown and s.cell.group not in (MISSING, CONFLICT) for s in own], bool)
        rows += reweighted_gaps.compare(one.cohort, label, attribute, by, one.weights_PB, shown, threshold=threshold)
    return rows


def _three(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.3g}")

"""All shortcut tests of a model that were asked for, as rows of one table."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.auditing.checks.shortcuts import masked_pairs, reweighting
from medclip.auditing.checks.shortcuts.device import device_of, device_test, negatives_with_device
from medclip.auditing.checks.table import CheckRows
from medclip.auditing.disclosure import Rounding
from medclip.auditing.groups.measure import Measured, exported
from medclip.auditing.input.read import read_cohort
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute, Label

if TYPE_CHECKING:
    from medclip.auditing.checks.evidence import Evidence

PREVALENCE = "prevalence"
"""What `reweight` may name beside columns: every group gets the same share of positives."""


def check_shortcuts(evidence: Evidence) -> CheckRows:
    """Make the tests of shortcuts that the options name: table `shortcuts`.

    Raises:
        MedclipError: WRONG_USE, TABLE_INVALID for columns that cannot be used.
    """
    one, options, reading, label = evidence.measured, evidence.options, evidence.reading, evidence.label
    wanted, cohort = options.shortcuts, one.cohort
    mix: tuple[Attribute, ...] = ()
    columns = [c for c in wanted.reweight if c != PREVALENCE]
    if columns:
        mix = read_cohort(
            evidence.source, evidence.labels, by=columns, label=label, options=replace(reading, all_pairs=False)
        ).attributes
    masked = None
    if wanted.masked is not None:
        masked = read_cohort(wanted.masked, evidence.label_table, label=label, options=reading)
    table: list[dict[str, Any]] = []
    for x in (x for x in cohort.labels if x.time_N is None):
        threshold = one.values.get(x.name)
        for column in wanted.devices:
            device_N = device_of(cohort, column)
            least = options.small_cells.min_patients
            rows = device_test(cohort, x, device_N, one.weights_PB, min_patients=least)
            rows += negatives_with_device(cohort, x, device_N, one.weights_PB, threshold=threshold, min_patients=least)
            if masked is not None:
                masked_N = masked_pairs.align(cohort, masked, x.name)
                rows += masked_pairs.compare(
                    cohort, x, masked_N, device_N, one.weights_PB, threshold=threshold, min_patients=least
                )
            table += [{**row, "test": f"{column}: {row['test']}"} for row in rows]
        if wanted.reweight:
            table += _reweighted(one, x, mix, threshold, with_prevalence=PREVALENCE in wanted.reweight)
    if one.rounding.base == 1:
        return CheckRows({"shortcuts": table})
    rows = [_safe(one.rounding, row) for row in table if not row["stratum"].endswith(reweighting.BEFORE)]
    return CheckRows({"shortcuts": rows})


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
    by = [*mix, reweighting.has_truth(label)] if with_prevalence else list(mix)
    rows = []
    for a, attribute in enumerate(one.cohort.attributes):
        states = [s for s in one.states[label.name] if s.cell.position[0] == a]
        visible = np.array([s.shown and s.cell.group not in (MISSING, CONFLICT) for s in states], bool)
        rows += reweighting.compare(one.cohort, label, attribute, by, one.weights_PB, visible, threshold=threshold)
    return rows


def _three(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.3g}")

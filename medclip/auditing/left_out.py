"""The tables `flow` and `unscored`: how many rows are left after each step, and who was never scored."""

from __future__ import annotations

from typing import Any

import numpy as np

from medclip.auditing.groups.measure import Measured, adjust, exported, short
from medclip.auditing.input.unscored import LEAST_ROWS
from medclip.auditing.options import MeasureOptions
from medclip.statistics.cohort import ALL, Unscored

Row = dict[str, Any]
_SHARE = ("value", "low", "high")
_DIFFERENCE = ("difference", "difference_low", "difference_high")


def flow_rows(measured: Measured) -> list[Row]:
    """Return the table `flow`: rows after each step of reading, then for each label those with a truth and a score."""
    cohort = measured.cohort
    steps = [("", step, n) for step, n in cohort.steps]
    for label in cohort.labels:
        known = int((~np.isnan(label.truth_N)).sum())
        steps += [(label.name, "with a truth", known), (label.name, "with truth and score", int(label.valid_N.sum()))]
    return [
        {"model": measured.name, "label": label, "step": step, "n": exported(measured.roundings.of(ALL), n)}
        for label, step, n in steps
    ]


def unscored_rows(measured: Measured, options: MeasureOptions) -> list[Row]:
    """Return the table `unscored`: everybody and each group, with a row for all reasons (blank) and one for each.

    Counts of a few rows are blank, and shares of a few are whole per cent, of groups of `LEAST_ROWS` and more.
    """
    rows: list[Row] = []
    cells, floor = options.small_cells, options.small_cells.floor

    def counted(n: int, attribute: str) -> int | None:
        return None if 0 < n < floor else exported(measured.roundings.of(attribute), n)

    for one in measured.cohort.unscored:
        head = {"model": measured.name, "attribute": one.attribute, "group": one.group, "reason": "", "flag": ""}
        few = 0 < one.num_unscored < floor
        if one.num_rows < (LEAST_ROWS if few else cells.min_n) or one.num_patients < cells.min_patients:
            rows.append({**head, "flag": "suppressed"})
            continue
        counts = {"n": counted(one.num_rows, one.attribute), "n_patients": counted(one.num_patients, one.attribute)}
        rows.append(
            {**head, **counts, "n_unscored": counted(one.num_unscored, one.attribute), **_numbers(measured, one, few)}
        )
        rows += [
            {**head, "reason": reason, "n_unscored": counted(n, one.attribute)}
            for reason, n in sorted(one.reasons.items(), key=lambda item: -item[1])
        ]
    adjust([row for row in rows if "family" in row])
    return [short(measured.roundings.of(row["attribute"]), row) for row in rows]


def _numbers(measured: Measured, one: Unscored, few: bool) -> Row:
    rounding = measured.roundings.of(one.attribute)
    fewest = min(one.num_unscored, one.num_rows - one.num_unscored)
    share = (one.num_unscored / one.num_rows, *one.interval)
    values = dict(zip((*_SHARE, *_DIFFERENCE), map(float, (*share, *one.difference)), strict=True))
    row: Row = {name: round(value, 2) if few else rounding.value(value, fewest) for name, value in values.items()}
    if not np.isnan(one.p):
        row |= {"p": one.p, "family": f"never scored, {measured.name}"}
    return row

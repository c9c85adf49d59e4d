"""How many times as often a group is missed as the largest group of its attribute, from the rates as they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medclip.statistics.cohort import ALL, CONFLICT, MISSING
from medclip.statistics.resampling.intervals import least_ratio

Row = dict[str, Any]
METRICS = ("underdiagnosis", "overdiagnosis")


def reference_groups(metrics: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the reference group of each model's attributes: that with the most patients whose value is stated.

    Example:
        >>> cell = {"model": "net", "attribute": "sex", "group": "F", "n_patients": 20}
        >>> reference_groups([cell, {**cell, "group": "M", "n_patients": 30}])
        {('net', 'sex'): 'M'}
    """
    sizes: dict[tuple[str, str], dict[str, int]] = {}
    for row in metrics:
        if row["attribute"] != ALL and row["group"] not in (MISSING, CONFLICT) and row.get("n_patients") is not None:
            of_groups = sizes.setdefault((row["model"], row["attribute"]), {})
            of_groups[row["group"]] = max(of_groups.get(row["group"], 0), row["n_patients"])
    return {place: max(of_groups, key=lambda group: of_groups[group]) for place, of_groups in sizes.items()}


def ratio_rows(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the table `ratios`: rates of each group over those of the reference group of its attribute.

    It is made of the exported values and intervals, so that it tells no more than they do.

    Args:
        metrics: Rows of the table `metrics`, of any number of models.

    Reference: Donner & Zou, Statistical Methods in Medical Research 21 (2012) 347-359.
    """
    references = reference_groups(metrics)
    by_place = {
        _place(row): row for row in metrics if row["metric"] in METRICS and _number(row.get("value")) is not None
    }
    rows: list[Row] = []
    for row in by_place.values():
        reference = references.get((row["model"], row["attribute"]))
        other = by_place.get(_place({**row, "group": reference}))
        if other is None or reference == row["group"] or not other["value"]:
            continue
        low, high = _interval(row, other)
        names = ("model", "label", "attribute", "group", "metric")
        numbers = {"value": row["value"] / other["value"], "low": low, "high": high}
        rows.append({**{name: row[name] for name in names}, "reference": reference, **numbers})
    return rows


def _interval(row: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float | None, float | None]:
    ends = [_number(r.get(end)) for r in (row, other) for end in ("low", "high")]
    if any(end is None for end in ends):
        return None, None
    value, low, high, base, base_low, base_high = (
        np.asarray([x], np.float64) for x in (row["value"], *ends[:2], other["value"], *ends[2:])
    )
    least = float(least_ratio(value, low, base, base_high)[0])
    inverse = float(least_ratio(base, base_low, value, high)[0])
    return least, 1 / inverse if inverse > 0 else None


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "label", "attribute", "group", "metric"))


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)

"""Rates over those of the largest group."""

from __future__ import annotations

from typing import Any

import pytest

from medclip.auditing.groups.differences import ratio_rows


def rate(group: str, value: float | None, *, patients: int = 100, **more: Any) -> dict[str, Any]:
    row = {"model": "net", "label": "flu", "attribute": "race", "group": group, "metric": "underdiagnosis"}
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.05, "high": value + 0.05}
    return {**row, "value": value, **ends, "n_patients": patients, **more}


def test_each_group_is_held_against_the_largest_whose_value_is_stated():
    rows = [rate("A", 0.2, patients=300), rate("B", 0.4), rate("not stated", 0.3, patients=900)]
    first, second = ratio_rows(rows)
    assert [(r["group"], r["reference"]) for r in (first, second)] == [("B", "A"), ("not stated", "A")]
    assert first["value"] == pytest.approx(2.0)
    # MOVER by hand, Donner & Zou (2012), equations 5 and 6
    lower, upper = (
        (0.08 + sign * (0.08**2 - end * (0.8 - end) * base * (0.4 - base)) ** 0.5) / (base * (0.4 - base))
        for sign, end, base in ((-1, 0.35, 0.25), (1, 0.45, 0.15))
    )
    assert (first["low"], first["high"]) == pytest.approx((lower, upper))


def test_a_hidden_group_has_no_ratio_and_no_rate_is_divided_by_nothing():
    assert ratio_rows([rate("A", 0.2, patients=300), rate("B", None)]) == []
    assert ratio_rows([rate("A", 0.0, patients=300), rate("B", 0.1)]) == []
    assert ratio_rows([rate("all", 0.2, attribute="all")]) == []

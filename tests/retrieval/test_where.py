"""Conditions of a search on values that are lists, and on the flags of ECGs."""

from __future__ import annotations

from typing import Any

import pytest

from medclip.retrieval.question import read_conditions


@pytest.mark.parametrize(
    ("where", "value", "holds"),
    [
        ("image_type=primary", ["ORIGINAL", "PRIMARY"], True),
        ("image_type!=primary", ["ORIGINAL", "PRIMARY"], False),
        ("image_type!=primary", ["DERIVED"], True),
        ("ecg_flags!=arms_swapped", [], True),
        ("ecg_flags!=arms_swapped", ["noisy:V1", "arms_swapped"], False),
        ("ecg_flags=lead_off", ["rate_fast", "lead_off:V3,V4"], True),
        ("ecg_flags!=lead_off", ["rate_fast", "lead_off:V3,V4"], False),
        ("ecg_flags=lead_off:v3,v4", ["lead_off:V3,V4"], True),
        ("ecg_flags=lead_off:V3", ["lead_off:V3,V4"], False),
        ("ecg_flags=lead", ["lead_off:V3,V4"], False),
        ("ecg_flags=rate_fast", None, False),
    ],
)
def test_equal_is_any_of_a_list_unequal_none_of_it_and_a_flag_fits_without_its_leads(
    where: str, value: Any, holds: bool
) -> None:
    (condition,) = read_conditions(where)
    assert condition.holds(value) is holds

from __future__ import annotations

import numpy as np
import pytest

from medclip.auditing.checks.shortcuts.device import device_of
from medclip.errors import MedclipError
from medclip.statistics.cohort import MISSING, Attribute, Cohort


def cohort(n: int, **columns: np.ndarray) -> Cohort:
    return Cohort(np.arange(n, dtype=np.int32), (), (), columns=columns)


def test_yes_no_and_unknown_are_understood_in_the_ways_tables_write_them() -> None:
    words = np.array(["1", "yes", True, 1.0, "0", "no", False, 0, "-1", "", None, np.nan, "Unknown"], object)
    found = device_of(cohort(len(words), drain=words), "drain")
    np.testing.assert_array_equal(found, [1] * 4 + [0] * 4 + [np.nan] * 5)
    np.testing.assert_array_equal(device_of(cohort(3, drain=np.array([1, 0, -1])), "drain"), [1, 0, np.nan])
    assert len(device_of(cohort(0, drain=np.zeros(0)), "drain")) == 0


def test_an_attribute_of_that_name_is_used_first() -> None:
    device = Attribute("drain", ("no", "yes", MISSING), np.array([1, 0, 2], np.int16))
    made = Cohort(np.arange(3, dtype=np.int32), (), (device,), columns={"drain": np.zeros(3)})
    np.testing.assert_array_equal(device_of(made, "drain"), [1, 0, np.nan])


def test_another_word_and_a_column_that_is_not_there_are_refused() -> None:
    with pytest.raises(MedclipError, match="1 values that are neither yes nor no"):
        device_of(cohort(2, drain=np.array(["1", "Mr Smith"], object)), "drain")
    with pytest.raises(MedclipError, match=r"no column 'tube'.*drain"):
        device_of(cohort(1, drain=np.zeros(1)), "tube")

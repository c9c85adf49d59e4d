"""Whether a device (chest drain, pacemaker, tube) is in each image, as the label table says; and rows of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.statistics.cohort import Cohort
from medclip.statistics.estimate import Difference, Estimate

Floats = NDArray[np.float64]

PRESENT = frozenset({"1", "1.0", "true", "yes", "y", "present", "with"})
ABSENT = frozenset({"0", "0.0", "false", "no", "n", "absent", "none", "without"})
NOT_DONE = "Not done"
"""How the note of a test that could not be done begins."""
UNKNOWN = frozenset({"", "-1", "-1.0", "nan", "na", "unknown", "not stated"})


def device_of(cohort: Cohort, column: str) -> Floats:
    """Return 1 where the device is in the image, 0 where it is not, NaN where nobody knows (blank or −1), [N].

    Args:
        cohort: Cohort with the column among its attributes or its further columns.
        column: Name of the column.

    Raises:
        MedclipError: WRONG_USE where there is no such column; TABLE_INVALID where it says something else than yes and
            no.
    """
    attribute = next((a for a in cohort.attributes if a.name == column), None)
    if attribute is not None:
        stated = np.asarray(attribute.groups, object)[attribute.codes_N]
    elif column in cohort.columns:
        stated = np.asarray(cohort.columns[column])
    else:
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no column {column!r} that says whether a device is in the image.",
            hint=f"The label table's columns that were read: {', '.join(cohort.columns) or 'none'}.",
        )
    words, place_N = np.unique(["" if w is None else str(w).strip().casefold() for w in stated], return_inverse=True)
    strange = [w for w in words if w not in PRESENT | ABSENT | UNKNOWN]
    if strange:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {column!r} has {len(strange)} values that are neither yes nor no.",
            hint="Write 1 (device in the image), 0 (not in the image), and nothing or -1 where it is not known.",
        )
    value = [1.0 if w in PRESENT else 0.0 if w in ABSENT else np.nan for w in words]
    return np.asarray(value, np.float64)[place_N] if len(words) else np.zeros(0)


TIMES = "a time to an event has no positives and negatives; name a horizon."
"""Why none of the tests is done for such a label."""


def row(
    label: str,
    test: str,
    stratum: str,
    metric: str,
    estimate: Estimate,
    counts: tuple[int, int] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return a row of the table `shortcuts`; `counts` are rows and positives, None where they are not shown."""
    n, n_pos = counts if counts is not None else (None, None)
    return {
        "label": label,
        "test": test,
        "stratum": stratum,
        "metric": metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p if isinstance(estimate, Difference) else float("nan"),
        "n": n,
        "n_pos": n_pos,
        "note": note,
    }


def not_done(label: str, test: str, why: str) -> list[dict[str, Any]]:
    """Return the one row of a test that could not be done."""
    return [row(label, test, "", "", Estimate(float("nan")), note=f"{NOT_DONE}: {why}")]

"""Several files of one study made one row: what they agree on, and what is done where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medclip.files.tables.table import Coded, is_blank, merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOTH = " + "
"""Stands between two values of one study, such as the views "LATERAL + PA"."""


def one_text(cells: Coded, unit_M: NDArray[np.intp], num_units: int) -> tuple[Coded, int]:
    """Return each unit the text that its rows agree on, blanks left out; different ones are joined by `BOTH`.

    Args:
        cells: Of M rows.
        unit_M: Unit of each row, 0 to U - 1.
        num_units: U.

    Returns:
        The column of U units, and how many of them had more than one text.
    """
    stated_M = ~np.asarray([is_blank(v) for v in cells.values] or [True])[cells.codes_N]
    num = len(cells.values)
    low_U = np.full(num_units, num, np.intp)
    high_U = np.full(num_units, -1, np.intp)
    np.minimum.at(low_U, unit_M[stated_M], cells.codes_N[stated_M])
    np.maximum.at(high_U, unit_M[stated_M], cells.codes_N[stated_M])
    codes_U = np.where(high_U < 0, num, low_U)
    differing_U = (high_U >= 0) & (low_U < high_U)
    texts = [*cells.values, ""]
    if differing_U.any():
        several: dict[int, set[str]] = {}
        for row in np.flatnonzero(stated_M & differing_U[unit_M]).tolist():
            several.setdefault(int(unit_M[row]), set()).add(cells.values[cells.codes_N[row]])
        for unit, different in several.items():
            codes_U[unit] = len(texts)
            texts.append(BOTH.join(sorted(different)))
    return merged(codes_U, texts), int(differing_U.sum())


def any_positive(
    truth_M: NDArray[np.float64], unit_M: NDArray[np.intp], num_units: int
) -> tuple[NDArray[np.float64], int]:
    """Return each unit 1 if any of its rows is 1, else 0 if any is 0, else NaN.

    Returns:
        The truth of U units, and for how many of them rows disagreed.
    """
    known_M = ~np.isnan(truth_M)
    high_U = np.full(num_units, -1.0)
    low_U = np.full(num_units, 2.0)
    np.maximum.at(high_U, unit_M[known_M], truth_M[known_M])
    np.minimum.at(low_U, unit_M[known_M], truth_M[known_M])
    return np.where(high_U < 0, np.nan, high_U), int((high_U > low_U).sum())

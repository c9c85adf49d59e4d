"""Whether scores are missing more often in one group than in another: who is not scored is not audited either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medclip.auditing.input.groups import one_attribute
from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError

_LEAST_ROWS = 30
"""Smallest group whose share is stated."""
_LEAST_GAP = 0.05
"""Smallest difference of shares that is stated."""


def missing_by_group(source: Source, names: Sequence[str], options: ReadOptions) -> list[str]:
    """Compare the shares of labelled rows without a score between the groups of each attribute.

    Args:
        source: The joined tables.
        names: Attributes, without intersections.
        options: How they are read.

    Returns:
        A sentence for each attribute with a difference of at least five points; shares in whole per cent, and only of
        groups of 30 rows or more.
    """
    notes: list[str] = []
    if not len(source.lost_rows):
        return notes
    rows = np.concatenate([source.label_row_M, source.lost_rows])
    lost_N = np.arange(len(rows)) >= len(source.label_row_M)
    for name in names:
        column = source.labels.find(name)
        if column is None:
            continue
        cells = source.labels.coded(column).take(rows)
        try:
            alone = np.arange(len(rows), dtype=np.int32)
            attribute, _ = one_attribute(name, cells, alone, options, source.labels.where)
        except MedclipError:  # cells that only the rows without a score have
            continue
        n_G = np.bincount(attribute.codes_N, minlength=len(attribute.groups))
        share_G = np.bincount(attribute.codes_N[lost_N], minlength=len(attribute.groups)) / np.maximum(n_G, 1)
        large = n_G >= _LEAST_ROWS
        if large.sum() > 1 and share_G[large].max() - share_G[large].min() >= _LEAST_GAP:
            said = [f"{g} {s:.0%}" for g, s, ok in zip(attribute.groups, share_G, large, strict=True) if ok]
            notes.append(
                f"CAUTION: scores are missing more often in some groups of {name}: {', '.join(said)} of the labelled "
                "rows have none, and the audit says nothing about them."
            )
    return notes

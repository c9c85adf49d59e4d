"""Who was never scored: of each group the share of labelled rows without a score, why, and whether that is chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medclip.auditing.input.groups import one_attribute
from medclip.auditing.input.joined_tables import Source
from medclip.auditing.input.options import ReadOptions
from medclip.errors import MedclipError
from medclip.files.tables.table import in_order
from medclip.statistics.cohort import ALL, Unscored
from medclip.statistics.significance import share_difference

LEAST_ROWS = 30
"""Smallest group whose share is stated in a note, and tested."""
_LEAST_GAP = 0.05
"""Smallest difference of shares that is stated in a note."""
BLANK, PARTLY_BLANK = "the score is blank", "blank for some of the labels"


def unscored_groups(
    source: Source,
    names: Sequence[str],
    options: ReadOptions,
    blank_N: NDArray[np.bool_],
    partly_N: NDArray[np.bool_],
    patient: tuple[str | None, Callable[[str], str] | None] = (None, None),
) -> tuple[Unscored, ...]:
    """Count the labelled rows that lack a score, in everybody and in each group.

    Args:
        source: The joined tables.
        names: Attributes, without intersections; those that only the scores or header values have are left out, for
            rows without a score have neither.
        options: Options of reading the tables.
        blank_N: Whether each unit has no score for any label.
        partly_N: Whether each unit has no score for a label whose truth it has.
        patient: Column of the label table that names the patient, and function that takes the patient out of its cells;
            without a column each row counts as a patient.
    """
    rows = np.concatenate([source.label_row_M, source.lost_rows])
    why_N = np.where(blank_N, BLANK, np.where(partly_N, PARTLY_BLANK, ""))
    why_R = np.array([*why_N[source.unit_M], *source.lost_reasons], object)
    lost_R = np.concatenate([(blank_N | partly_N)[source.unit_M], np.ones(len(source.lost_rows), bool)])
    patients_R = _patients(source, rows, *patient)
    return tuple(
        _counted(attribute, group, inside_R, lost_R, why_R, patients_R)
        for attribute, group, inside_R in _groups(source, names, options, rows, patients_R)
    )


def missing_notes(groups: Sequence[Unscored]) -> list[str]:
    """Write a sentence for each attribute whose groups differ by five points or more, in whole per cent."""
    notes: list[str] = []
    for attribute in dict.fromkeys(one.attribute for one in groups if one.attribute != ALL):
        large = [g for g in groups if g.attribute == attribute and g.num_rows >= LEAST_ROWS]
        shares = [one.num_unscored / one.num_rows for one in large]
        if len(shares) > 1 and max(shares) - min(shares) >= _LEAST_GAP:
            listed = ", ".join(f"{one.group} {share:.0%}" for one, share in zip(large, shares, strict=True))
            notes.append(
                f"CAUTION: scores are missing more often in some groups of {attribute}: {listed} of the labelled "
                "rows lack one, and the audit says nothing about how the model does for them."
            )
    return notes


def _groups(
    source: Source, names: Sequence[str], options: ReadOptions, rows: NDArray[np.intp], patients_R: NDArray[np.int32]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    yield ALL, ALL, np.ones(len(rows), bool)
    for name in names:
        column = source.labels.find(name)
        if column is None:
            continue
        cells = source.labels.coded(column).take(rows)
        try:
            attribute, _ = one_attribute(name, cells, patients_R, options, source.labels.where)
        except MedclipError:  # cells that only the rows without a score have
            continue
        for code, group in enumerate(attribute.groups):
            yield name, group, attribute.codes_N == code


def _patients(
    source: Source, rows: NDArray[np.intp], column: str | None, part: Callable[[str], str] | None
) -> NDArray[np.int32]:
    if column is None:
        return np.arange(len(rows), dtype=np.int32)
    cells = source.labels.coded(column).take(rows)
    cells = cells.mapped(part) if part else cells
    return in_order(cells.codes_N.astype(np.int64))[0].astype(np.int32)


def _counted(
    attribute: str,
    group: str,
    inside_R: NDArray[np.bool_],
    lost_R: NDArray[np.bool_],
    why_R: NDArray[np.object_],
    patients_R: NDArray[np.int32],
) -> Unscored:
    share = share_difference(lost_R, inside_R, patients_R)
    tested = min(int(inside_R.sum()), int((~inside_R).sum())) >= LEAST_ROWS and bool(lost_R.any())
    return Unscored(
        attribute=attribute,
        group=group,
        num_rows=int(inside_R.sum()),
        num_patients=len(np.unique(patients_R[inside_R])),
        num_unscored=int((lost_R & inside_R).sum()),
        reasons=dict(Counter(str(why) for why in why_R[lost_R & inside_R])),
        interval=(share.low, share.high),
        difference=(share.difference, share.difference_low, share.difference_high),
        p=share.p if tested else float("nan"),
    )

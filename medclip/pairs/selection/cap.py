"""`cap`: at most so many pairs of one patient, or of one patient and concept, so that no one fills the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.pairs.pile import Pile
from medclip.pairs.selection.concept import read_labels
from medclip.pairs.selection.steps import Context, FilterSettings, Verdict
from medclip.wording import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATIENT = "patient"


class CapSettings(FilterSettings):
    """What `cap` is asked."""

    num: int = Field(ge=1)
    """Pairs that are kept of each group."""
    by: tuple[str, ...] = Field(default=(PATIENT,), min_length=1)
    """Columns of the pile, or of `labels`, whose values make a group together."""
    labels: Path | None = None
    """Table of labels, as for `concept`."""

    def places(self) -> tuple[Path, ...]:
        """Return the table of labels, where one is named."""
        return () if self.labels is None else (self.labels,)


def cap(pile: Pile, rows_M: NDArray[np.int64], settings: CapSettings, context: Context, number: int) -> Verdict:
    """Keep the first pairs of each group, in an order that is drawn once for the whole pile.

    Whether a pair comes before another depends on the seed and the place of the step alone, not on what earlier steps
    kept. A pair whose patient is not known is a group of its own where groups are made by patient. Its values are the
    places of pairs in their groups, from 1: up to `num` they are kept.
    """
    codes = np.zeros(len(rows_M), np.int64)
    labels = None if settings.labels is None else read_labels(context.folder / settings.labels, context.form)
    for column in settings.by:
        if column in pile.table.column_names:
            cells = pile.cells(column, rows_M)
        elif labels is not None and column in labels.columns:
            cells = labels.cells(column, pile.cells("key", rows_M))
        else:
            names = [*pile.table.column_names, *(labels.columns if labels is not None else ())]
            hint = did_you_mean(column, names, "Columns are")
            raise MedclipError(Reason.RECIPE_INVALID, f"cap: there is no column {column!r}.", hint=hint)
        number_of = {cell: code for code, cell in enumerate(dict.fromkeys(cells))}
        codes = codes * len(number_of) + np.fromiter((number_of[cell] for cell in cells), np.int64, len(cells))
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    notes: tuple[str, ...] = ()
    is_unknown_M = np.zeros(len(rows_M), bool)
    if PATIENT in settings.by:
        is_unknown_M = np.array([not cell for cell in pile.cells(PATIENT, rows_M)], bool)
        if num := int(is_unknown_M.sum()):
            notes = (f"{count(num, 'pair')} of patients whom nobody knows; each counts as a patient of its own.",)
    order_N = context.rng("cap", number).permutation(len(pile))
    place_M = np.where(is_unknown_M, 1, _place_in_group(codes, order_N[rows_M]) + 1)
    kept_M = place_M <= settings.num
    facts = {"groups": len(np.unique(codes[~is_unknown_M])), "unknown": int(is_unknown_M.sum())}
    return Verdict(kept_M, place_M.astype(np.float64), facts=facts, notes=notes)


def _place_in_group(codes_M: NDArray[np.int64], order_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which place each row has among those of its code, in an order.

    Example:
        >>> _place_in_group(np.array([0, 0, 1]), np.array([5, 2, 9])).tolist()
        [1, 0, 0]
    """
    by_code = np.lexsort((order_M, codes_M))
    starts = np.flatnonzero(np.diff(codes_M[by_code], prepend=-1))
    lengths = np.diff(starts, append=len(by_code))
    place_M = np.empty(len(codes_M), np.int64)
    place_M[by_code] = np.arange(len(by_code)) - np.repeat(starts, lengths)
    return place_M

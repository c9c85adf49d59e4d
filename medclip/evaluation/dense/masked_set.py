"""Where a set's images and masks lie, and whose images are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.maps.masked_images import Masked
from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.labelled_set import named_file, table_rows
from medclip.evaluation.zero_shot.suite import MasksFile
from medclip.files.output import digest_of
from medclip.files.tables.read_table import read_table

HELD_OUT = 1 / 3
"""Share of the images whose patients nothing is learned from."""
FEWEST = 2
"""Patients held out, at least."""


@dataclass(frozen=True)
class MaskedSet:
    """A set that is there."""

    part: MasksFile
    rows: tuple[Masked, ...]
    num_left_out: int = 0
    """Images without a mask, and those that the suite leaves out."""

    @property
    def names_patients(self) -> bool:
        """Whether what images share is a patient, so that patients can be counted."""
        return self.part.table.is_patient and all(row.patient is not None for row in self.rows)

    def moved(self, data: Path, images: Path) -> MaskedSet:
        """Return the set with its images, not its masks, below another folder than the one its table is below."""
        if images == data:
            return self
        rows = (replace(row, path=images / row.path.relative_to(data)) for row in self.rows)
        return replace(self, rows=tuple(rows))

    def digest(self, data: Path) -> str:
        """Hash of names, sizes, times and patients of images and masks. 16 hex characters."""
        rows = [[*named_file(r.path, data), *named_file(r.mask, data), r.patient] for r in self.rows]
        return digest_of(rows)


def find_masks(data: Path, part: MasksFile, key: bytes, unpacked: Path | None = None) -> MaskedSet | None:
    """Find a set with masks below the data folder.

    Args:
        data: The data folder.
        part: The suite's entry.
        key: Key that patient identifiers are hashed with.
        unpacked: Folder for records, as in `find_set`.

    Returns:
        The set; None where there is no table.

    Raises:
        MedclipError: TABLE_INVALID for a table without the columns it needs.
    """
    folder = data / part.place
    table = folder / part.table.name
    if not table.is_file():
        return None
    of_file = None if part.mask_table is None else _masks_by_file(folder / part.mask_table, part)
    rows, left_out = [], 0
    columns = (*(() if of_file is not None else (part.mask,)), *part.where)
    for number, cell, path, patient in table_rows(table, part, columns, key, unpacked):
        mask = cell[part.mask] if of_file is None else of_file.get(cell[part.table.file], "")
        if mask and all(cell[column] in allowed for column, allowed in part.where.items()):
            rows.append(Masked(number, path, folder / mask, patient))
        else:
            left_out += 1
    return MaskedSet(part, tuple(rows), left_out)


def _masks_by_file(table: Path, part: MasksFile) -> dict[str, str]:
    read = read_table(table).with_names((part.table.file, part.mask))
    for column in (part.table.file, part.mask):
        if column not in read.names:
            raise MedclipError(Reason.TABLE_INVALID, f"there is no column {column!r}.", where=table)
    return dict(zip(read.texts(part.table.file), read.texts(part.mask), strict=True))


def held_out(patients_N: Sequence[int], *, seed: int = 0) -> NDArray[np.bool_]:
    """Draw the patients whose images are held out, until they have a third of the images.

    Args:
        patients_N: Number of the patient of each image, from 0.
        seed: Seed of the draw.

    Returns:
        bool [N]: images of patients that nothing is learned from.

    Raises:
        MedclipError: TABLE_INVALID where there are fewer than two patients on a side.

    Example:
        >>> held_out([0, 0, 1, 2, 3, 4]).tolist()
        [False, False, False, True, False, True]
    """
    numbers = np.asarray(patients_N, np.int64)
    sizes = np.bincount(numbers) if len(numbers) else np.zeros(0, np.int64)
    order = np.random.default_rng(seed).permutation(len(sizes))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), HELD_OUT * len(numbers))) + 1
    chosen = order[: max(FEWEST, enough)]
    if len(sizes) < 2 * FEWEST or len(chosen) > len(sizes) - FEWEST:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"there are images of {len(sizes)} patients; {FEWEST} to learn from and {FEWEST} to measure on are needed.",
        )
    return np.isin(numbers, chosen)


def drawn_share(has_mask_N: NDArray[np.bool_], share: float, *, seed: int) -> NDArray[np.int64]:
    """Draw a share of the training images; of one seed smaller shares lie in larger ones.

    Args:
        has_mask_N: Whether anything is marked in each training image.
        share: Share of them, rounded up.
        seed: Seed of the draw.

    Returns:
        Their numbers; where anything is marked in any, also in one of these.
    """
    order = np.random.default_rng((1, seed)).permutation(len(has_mask_N))
    first = np.flatnonzero(has_mask_N[order])
    if len(first):  # a head that sees no lesion learns none
        order = np.concatenate([order[first[:1]], np.delete(order, first[0])])
    return order[: max(1, int(np.ceil(share * len(order) - 1e-9)))]

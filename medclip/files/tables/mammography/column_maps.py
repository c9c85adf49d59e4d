"""The column maps of mammography sets: which there are, and which one a table has the columns of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.mammography import cbis, cesm, embed, inbreast, own, rsna, vindr
from medclip.files.tables.mammography.mammogram_row import Cells, MammogramRow, Reading
from medclip.files.tables.table import listed

_BRACES = r"\{([^{}]*)\}"
Read = Callable[[Sequence[Cells], Sequence[Cells] | None, Path], Reading]


@dataclass(frozen=True)
class ColumnMap:
    """How a set's table is read."""

    name: str
    title: str
    columns: tuple[str, ...]
    """That a table must have to be one of this set."""
    file: str
    """Where an image lies in the folder of the set's images, in terms of the table's columns."""
    read: Read
    licence: str = ""
    """For the column `license`; "" where none is stated."""


ALL: Mapping[str, ColumnMap] = {
    m.name: m
    for m in (
        ColumnMap("vindr", "VinDr-Mammo", vindr.COLUMNS, vindr.FILE, vindr.read, "PhysioNet Credentialed Health Data"),
        ColumnMap("rsna", "RSNA screening mammography", rsna.COLUMNS, rsna.FILE, rsna.read, "RSNA competition rules"),
        ColumnMap("cbis", "CBIS-DDSM", cbis.COLUMNS, cbis.FILE, cbis.read, "CC BY 3.0"),
        ColumnMap("cbis_paths", "CBIS-DDSM, paths alone", cbis.PATHS, cbis.FILE, cbis.read_paths, "CC BY 3.0"),
        ColumnMap("ddsm", "DDSM, 4-view exams", cbis.DDSM, cbis.FILE, cbis.read_ddsm),
        ColumnMap("cdd_cesm", "CDD-CESM", cesm.COLUMNS, cesm.FILE, cesm.read),
        ColumnMap("cdd_cesm_sheet", "CDD-CESM, the archive's sheet", cesm.SHEET, cesm.FILE, cesm.read_sheet),
        ColumnMap("embed", "EMBED", embed.COLUMNS, embed.FILE, embed.read, "EMBED Research Use Agreement"),
        ColumnMap("inbreast", "INbreast", inbreast.COLUMNS, inbreast.FILE, inbreast.read),
        ColumnMap("own", "a table of one's own", own.COLUMNS, own.FILE, own.read),
    )
}
"""By name; the last one fits tables that are of no set."""


def map_of(names: Sequence[str], dataset: str | None, where: object) -> ColumnMap:
    """Return the map of a table.

    Args:
        names: Its columns.
        dataset: The set it is of; None: told from its columns.
        where: The table, for errors.

    Raises:
        MedclipError: WRONG_USE for a set that there is none of; TABLE_INVALID where columns are missing, or where they
            are of no set.
    """
    if dataset is not None and dataset not in ALL:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no set named {dataset!r}.", hint=did_you_mean(dataset, ALL, "Sets are")
        )
    present = {_plain(name) for name in names}
    for m in ALL.values() if dataset is None else (ALL[dataset],):
        missing = [name for name in m.columns if _plain(name) not in present]
        if not missing:
            return m
        if dataset is not None:
            raise MedclipError(
                Reason.TABLE_INVALID, f"{m.title} has a column {missing[0]!r}. {listed(list(names))}", where=where
            )
    raise MedclipError(
        Reason.TABLE_INVALID,
        f"the columns are of none of the sets {', '.join(ALL)}. {listed(list(names))}",
        where=where,
        hint="A table of your own has the columns file, patient, laterality, view; and density, birads, findings.",
    )


def placed(rows: Sequence[MammogramRow], m: ColumnMap, pattern: str | None) -> tuple[MammogramRow, ...]:
    """Fill the columns of the set's table into the place of each image.

    Args:
        rows: As read.
        m: The map of the set.
        pattern: Where images lie, with columns in braces: "{study_id}/{image_id}.png". None: where the map says.

    Raises:
        MedclipError: WRONG_USE for a column that the table does not have.
    """
    for name in re.findall(_BRACES, pattern or "") if rows else ():
        if name not in rows[0].source:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the place of images names {name!r}, which is no column.",
                hint=listed(list(rows[0].source)),
            )
    filled = ((row, pattern or (m.file if row.file == m.file else "")) for row in rows)
    return tuple(replace(row, file=_filled(p, row.source)) if p else row for row, p in filled)


def _filled(pattern: str, cells: Cells) -> str:
    return re.sub(_BRACES, lambda m: cells.get(m[1], ""), pattern)


def _plain(name: str) -> str:
    return name.strip().replace(" ", "_").casefold()

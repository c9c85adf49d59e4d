"""The column maps of mammography sets: which there are, and which one a table has the columns of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.mammography import cbis, cesm, embed, inbreast, own, rsna, vindr
from medclip.files.tables.mammography.mammogram_row import Cells, MammogramRow, Reading
from medclip.files.tables.table import PATIENTS, Table, listed

_BRACES = r"\{([^{}]*)\}"
Read = Callable[[Sequence[Cells], Sequence[Cells] | None, Path], Reading]


@dataclass(frozen=True)
class ColumnMap:
    """How a set's table is read."""

    name: str
    title: str
    columns: tuple[str, ...]
    """That a table must have to be one of this set."""
    uses: tuple[str, ...]
    """All that are read, beside `label:...`."""
    file: str
    """Where an image lies in the folder of the set's images, in terms of the table's columns."""
    read: Read
    licence: str = ""
    """For the column `license`; "" where none is stated."""


def _of(name: str, title: str, module: Any, licence: str = "") -> ColumnMap:
    return ColumnMap(name, title, module.COLUMNS, module.USES, module.FILE, module.read, licence)


_PATHS = ("cbis_paths", "CBIS-DDSM, paths alone")
_SHEET = ("cdd_cesm_sheet", "CDD-CESM, the archive's sheet")
_CC_BY = "CC BY 3.0"
ALL: Mapping[str, ColumnMap] = {
    m.name: m
    for m in (
        _of("vindr", "VinDr-Mammo", vindr, "PhysioNet Credentialed Health Data"),
        _of("rsna", "RSNA screening mammography", rsna, "RSNA competition rules"),
        _of("cbis", "CBIS-DDSM", cbis, _CC_BY),
        ColumnMap(*_PATHS, cbis.PATHS, cbis.PATHS, cbis.FILE, cbis.read_paths, _CC_BY),
        ColumnMap("ddsm", "DDSM, 4-view exams", cbis.DDSM, cbis.DDSM_USES, cbis.FILE, cbis.read_ddsm),
        _of("cdd_cesm", "CDD-CESM", cesm),
        ColumnMap(*_SHEET, cesm.SHEET, cesm.SHEET_USES, cesm.FILE, cesm.read_sheet),
        _of("embed", "EMBED", embed, "EMBED Research Use Agreement"),
        _of("inbreast", "INbreast", inbreast),
        _of("own", "a table of one's own", own),
    )
}
"""By name; the last one fits tables that are of no set."""


def map_of(table: Table, dataset: str | None = None) -> ColumnMap:
    """Return the map of a table.

    Args:
        table: As it was read.
        dataset: The set it is of; None: told from its columns.

    Raises:
        MedclipError: WRONG_USE for a set that there is none of; TABLE_INVALID where columns are missing, or where they
            are of no set.
    """
    if dataset is not None and dataset not in ALL:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no set named {dataset!r}.", hint=did_you_mean(dataset, ALL, "Sets are")
        )
    for m in ALL.values() if dataset is None else (ALL[dataset],):
        missing = [name for name in m.columns if table.find(name, *(PATIENTS if name == PATIENTS[0] else ())) is None]
        if not missing:
            return m
        if dataset is not None:
            raise MedclipError(
                Reason.TABLE_INVALID, f"{m.title} has a column {missing[0]!r}. {listed(table.names)}", where=table.where
            )
    raise MedclipError(
        Reason.TABLE_INVALID,
        f"the columns are of none of the sets {', '.join(ALL)}. {listed(table.names)}",
        where=table.where,
        hint="A table of your own has the columns file, patient, laterality, view; and density, birads, findings.",
    )


def rows_of(table: Table, uses: Sequence[str], pattern: str | None = None) -> list[Cells]:
    """Return the rows of a table, with the columns that are used alone, under the names that they are known by.

    Args:
        table: As it was read.
        uses: Columns.
        pattern: Where images lie: its columns are used too.
    """
    named = table.with_names(uses)
    labels = [name for name in named.names if name.startswith("label:")]
    return list(named.select([*uses, *labels, *re.findall(_BRACES, pattern or "")]).rows())


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

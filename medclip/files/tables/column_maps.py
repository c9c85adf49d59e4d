"""Column maps: how the table of a known set is read, which of them a table has the columns of, where its files lie.

Sets of ECGs and of mammograms, by name; each set has a file beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.ecg import label_lists, mimic, ptbxl
from medclip.files.tables.mammography import cbis, cesm, embed, inbreast, own, rsna, vindr
from medclip.files.tables.table import PATIENTS, Table, listed

Cells = Mapping[str, str]
Row = TypeVar("Row", bound=Any)
_BRACES = r"\{([^{}]*)\}"


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
    """Where an image or a record lies in the folder of the set's files, in terms of the table's columns."""
    read: Callable[..., Any]
    licence: str = ""
    """For the column `license`; "" where none is stated."""


def choose_map(table: Table, dataset: str | None, maps: Mapping[str, ColumnMap], hint: str) -> ColumnMap:
    """Return the map of a table.

    Args:
        table: Table as it was read.
        dataset: Name of the set that the table is of; None: told from its columns.
        maps: Maps by name of their set; of several that fit the first is taken.
        hint: Hint of the error where none fits.

    Raises:
        MedclipError: WRONG_USE for a set that there is none of; TABLE_INVALID where columns are missing, or where they
            are of no set.
    """
    if dataset is not None and dataset not in maps:
        raise MedclipError(
            Reason.WRONG_USE, f"there is no set named {dataset!r}.", hint=did_you_mean(dataset, maps, "Sets are")
        )
    for m in maps.values() if dataset is None else (maps[dataset],):
        missing = [name for name in m.columns if table.find(name, *(PATIENTS if name == PATIENTS[0] else ())) is None]
        if not missing:
            return m
        if dataset is not None:
            raise MedclipError(
                Reason.TABLE_INVALID, f"{m.title} has a column {missing[0]!r}. {listed(table.names)}", where=table.where
            )
    raise MedclipError(
        Reason.TABLE_INVALID,
        f"the columns are of none of the sets {', '.join(maps)}. {listed(table.names)}",
        where=table.where,
        hint=hint,
    )


def rows_of(table: Table, uses: Sequence[str], pattern: str | None = None) -> list[Cells]:
    """Return the rows of a table, with the columns that are used alone, under the names that they are known by.

    Args:
        table: Table as it was read.
        uses: Names of the columns that are used.
        pattern: Path of each file, with columns in braces, which are used too.
    """
    named = table.with_names(uses)
    labels = [name for name in named.names if name.startswith("label:")]
    return list(named.select([*uses, *labels, *re.findall(_BRACES, pattern or "")]).rows())


def placed(rows: Sequence[Row], m: ColumnMap, pattern: str | None) -> tuple[Row, ...]:
    """Fill the columns of the set's table into the place of each file.

    Args:
        rows: Rows as read: frozen dataclasses with `file`, and the row of the set's table in `source`.
        m: The map of the set.
        pattern: Path of each file, with columns in braces: "{study_id}/{image_id}.png". None: where the map says.

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
    filled: list[tuple[Any, str]] = [(row, pattern or (m.file if row.file == m.file else "")) for row in rows]
    return tuple(replace(row, file=_filled(p, row.source)) if p else row for row, p in filled)


def _filled(pattern: str, cells: Cells) -> str:
    return re.sub(_BRACES, lambda m: cells.get(m[1], ""), pattern)


# The column maps of ECG sets: which there are, and which one a table has the columns of.

_CC_BY_4, _ODBL = "CC BY 4.0", "Open Database License 1.0"
ECG_MAPS: Mapping[str, ColumnMap] = {
    m.name: m
    for m in (
        ColumnMap("ptbxl_z", "PTB-XL, filtered", ptbxl.Z_COLUMNS, ptbxl.Z_USES, ptbxl.Z_FILE, ptbxl.read_z, _CC_BY_4),
        ColumnMap("ptbxl", "PTB-XL", ptbxl.COLUMNS, ptbxl.USES, ptbxl.FILE, ptbxl.read, _CC_BY_4),
        ColumnMap("mimic_iv_ecg", "MIMIC-IV-ECG", mimic.COLUMNS, mimic.USES, mimic.FILE, mimic.read, _ODBL),
        ColumnMap(
            "cpsc2018",
            "CPSC2018",
            label_lists.CPSC_COLUMNS,
            label_lists.CPSC_COLUMNS,
            label_lists.CPSC_FILE,
            label_lists.read_cpsc,
        ),
        ColumnMap(
            "chapman",
            "Chapman-Shaoxing",
            label_lists.CHAPMAN_COLUMNS,
            label_lists.CHAPMAN_USES,
            label_lists.CHAPMAN_FILE,
            label_lists.read_chapman,
            _CC_BY_4,
        ),
    )
}
"""By name; of two that fit a table the first is taken."""
_ECG_HINT = "For a table of your own with columns of labels use `medclip pairs captions --from labels`."


def ecg_map_of(table: Table, dataset: str | None = None) -> ColumnMap:
    """Return the map of a table, see `choose_map`."""
    return choose_map(table, dataset, ECG_MAPS, _ECG_HINT)


# The column maps of mammography sets: which there are, and which one a table has the columns of.

_MAMMOGRAPHY_HINT = (
    "A table of your own has the columns file, patient, laterality, view; and density, birads, findings."
)


def _map_of_module(name: str, title: str, module: Any, licence: str = "") -> ColumnMap:
    return ColumnMap(name, title, module.COLUMNS, module.USES, module.FILE, module.read, licence)


_PATHS = ("cbis_paths", "CBIS-DDSM, paths alone")
_SHEET = ("cdd_cesm_sheet", "CDD-CESM, the archive's sheet")
_CC_BY_3 = "CC BY 3.0"
MAMMOGRAPHY_MAPS: Mapping[str, ColumnMap] = {
    m.name: m
    for m in (
        _map_of_module("vindr", "VinDr-Mammo", vindr, "PhysioNet Credentialed Health Data"),
        _map_of_module("rsna", "RSNA screening mammography", rsna, "RSNA competition rules"),
        _map_of_module("cbis", "CBIS-DDSM", cbis, _CC_BY_3),
        ColumnMap(*_PATHS, cbis.PATHS, cbis.PATHS, cbis.FILE, cbis.read_paths, _CC_BY_3),
        ColumnMap("ddsm", "DDSM, 4-view exams", cbis.DDSM, cbis.DDSM_USES, cbis.FILE, cbis.read_ddsm),
        _map_of_module("cdd_cesm", "CDD-CESM", cesm),
        ColumnMap(*_SHEET, cesm.SHEET, cesm.SHEET_USES, cesm.FILE, cesm.read_sheet),
        _map_of_module("embed", "EMBED", embed, "EMBED Research Use Agreement"),
        _map_of_module("inbreast", "INbreast", inbreast),
        _map_of_module("own", "a table of one's own", own),
    )
}
"""By name; the last one fits tables that are of no set."""


def mammography_map_of(table: Table, dataset: str | None = None) -> ColumnMap:
    """Return the map of a table, see `choose_map`."""
    return choose_map(table, dataset, MAMMOGRAPHY_MAPS, _MAMMOGRAPHY_HINT)

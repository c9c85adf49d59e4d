"""The column maps of mammography sets: which there are, and which one a table has the columns of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.files.tables.column_maps import ColumnMap, choose_map
from medclip.files.tables.mammography import cbis, cesm, embed, inbreast, own, rsna, vindr
from medclip.files.tables.table import Table

_HINT = "A table of your own has the columns file, patient, laterality, view; and density, birads, findings."


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
    """Return the map of a table, see `choose_map`."""
    return choose_map(table, dataset, ALL, _HINT)

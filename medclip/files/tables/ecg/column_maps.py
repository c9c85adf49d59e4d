"""The column maps of ECG sets: which there are, and which one a table has the columns of."""

from __future__ import annotations

from collections.abc import Mapping

from medclip.files.tables.column_maps import ColumnMap, choose_map
from medclip.files.tables.ecg import label_lists, mimic, ptbxl
from medclip.files.tables.table import Table

_CC_BY, _ODBL = "CC BY 4.0", "Open Database License 1.0"
ALL: Mapping[str, ColumnMap] = {
    m.name: m
    for m in (
        ColumnMap("ptbxl_z", "PTB-XL, filtered", ptbxl.Z_COLUMNS, ptbxl.Z_USES, ptbxl.Z_FILE, ptbxl.read_z, _CC_BY),
        ColumnMap("ptbxl", "PTB-XL", ptbxl.COLUMNS, ptbxl.USES, ptbxl.FILE, ptbxl.read, _CC_BY),
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
            _CC_BY,
        ),
    )
}
"""By name; of two that fit a table the first is taken."""
_HINT = "For a table of your own with columns of labels use `medclip pairs captions --from labels`."


def map_of(table: Table, dataset: str | None = None) -> ColumnMap:
    """Return the map of a table, see `choose_map`."""
    return choose_map(table, dataset, ALL, _HINT)

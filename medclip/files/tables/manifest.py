"""Manifests: a table that says what the files of a folder are."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.tables.cells import DAYS_EXPECTED, day_of, shown
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import close_names, listed, number_hint
from medclip.sample import SIDES, VIEW_KINDS, Modality, ViewType, every_modality, modality_of_name
from medclip.settings import MPP_RANGE_UM

_TEXTS = ("caption", "captions")
_KNOWN = (
    "file",
    "study",
    "patient",
    "modality",
    "laterality",
    "view",
    "view_kind",
    "age",
    "sex",
    "mpp_um",
    "split",
    *_TEXTS,
)
MPP_EXPECTED = f"micrometres per pixel, {MPP_RANGE_UM[0]:g} to {MPP_RANGE_UM[1]:g}"
LABEL_PREFIX = "label:"
CAPTION_SEPARATOR = "\n"
"""Several captions in one cell of a text table stand on lines of their own."""
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R", "b": "B", "both": "B", "": None}
_SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M", "o": "O", "other": "O", "u": None, "": None}


WFDB_HEADER = ".hea"
"""Of a WFDB record, which tables of PhysioNet name without it."""


def file_named(path: Path) -> Path:
    """Return the file that a table names: the path itself, or the header of the WFDB record of this name."""
    header = path.with_name(f"{path.name}{WFDB_HEADER}")
    return header if path.name and not os.path.lexists(path) and os.path.isfile(header) else path


@dataclass(frozen=True)
class ManifestRow:
    """What the table says about one file; None and empty where it says nothing."""

    file: str
    """Relative path with forward slashes, as written in the table."""
    study: str | None = None
    patient: str | None = None
    modality: Modality | None = None
    laterality: str | None = None
    view: str | None = None
    view_kind: str | None = None
    """How a mammogram was made, one of `medclip.sample.VIEW_KINDS`."""
    exam_date: date | None = None
    age: float | None = None
    sex: str | None = None
    mpp_um: float | None = None
    """Micrometres per pixel of a slide."""
    split: str | None = None
    captions: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Columns named `label:<task>` or `label:<task>:<class>`, without the prefix."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """All other columns, as text."""

    @property
    def mammography_view(self) -> ViewType | None:
        """What the row states of a mammogram's view; None where it states none of side, view and kind."""
        if not (self.laterality in SIDES or self.view or self.view_kind):
            return None
        side = self.laterality if self.laterality in SIDES else ""
        return ViewType(side, self.view or "", self.view_kind or VIEW_KINDS[0])


@dataclass(frozen=True)
class Manifest:
    """A table of files."""

    rows: tuple[ManifestRow, ...]
    columns: tuple[str, ...]
    folder: Path | None = None
    """The table's folder; paths in the table are relative to it or to the folder that is scored."""
    _by_name: Mapping[str, ManifestRow] = field(default_factory=dict, repr=False)
    _by_path: Mapping[str, ManifestRow] = field(default_factory=dict, repr=False)
    _folders: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Folders without symbolic links, by how they were named: a table may lie behind another way to the same files."""

    @property
    def digest(self) -> str:
        """Hash of what was understood of every row: equal for a file and a data frame of the same cells."""
        state = hashlib.sha256()
        for row in self.rows:
            state.update(repr(row).encode())
        return state.hexdigest()

    def only(self, *columns: str) -> Manifest:
        """Return what the table says in some columns beside `file`; rows that say nothing there are left out."""

        def reduced(rows: Mapping[str, ManifestRow]) -> dict[str, ManifestRow]:
            kept = {name: {column: getattr(row, column) for column in columns} for name, row in rows.items()}
            return {
                name: ManifestRow(rows[name].file, **cells)
                for name, cells in kept.items()
                if any(cell is not None for cell in cells.values())
            }

        by_name = reduced(self._by_name)
        names = tuple(name for name in self.columns if name == "file" or name in columns)
        return Manifest(tuple(by_name.values()), names, self.folder, by_name, reduced(self._by_path), self._folders)

    def row_for(self, file: str | Path) -> ManifestRow | None:
        """Find the row of a file.

        Args:
            file: The path relative to the scored folder, or the path on disk (looked up from the table's folder). The
                header of a WFDB record has the row that names the record without a suffix, too.

        Returns:
            The row, or None if the table has none for this file.
        """
        row = self._row_named(file)
        if row is None and str(file).endswith(WFDB_HEADER):
            stem = str(file).removesuffix(WFDB_HEADER)
            return self._row_named(stem if isinstance(file, str) else Path(stem))
        return row

    def _row_named(self, file: str | Path) -> ManifestRow | None:
        if isinstance(file, str):
            return self._by_name.get(_normal(file))
        return self._by_path.get(_resolved(file, self._folders)) or self._by_name.get(_normal(file.as_posix()))


def read_manifest(table: Any) -> Manifest:
    """Read a manifest.

    Args:
        table: Path of a CSV, TSV or Parquet file, whatever its suffix, or any data frame that narwhals knows.
            The column `file` is required; `study`, `patient`, `modality`, `laterality`, `view`, `view_kind`,
            `exam_date`, `age`, `sex`, `mpp_um`, `split`, `caption` or `captions` and `label:...` are understood; other
            columns are kept.

    Returns:
        The manifest.

    Raises:
        MedclipError: TABLE_INVALID if it cannot be read, lacks `file`, names a file twice or holds a value that is
            not understood; and what `read_table` raises.

    Example:
        >>> import pyarrow
        >>> manifest = read_manifest(pyarrow.table({"file": ["a.png"], "modality": ["xray"]}))
        >>> manifest.row_for("a.png").modality
        <Modality.XRAY: 'xray'>
    """
    read = read_table(table).with_names(_KNOWN)
    if "file" not in read.names:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"there is no column 'file'. {listed(read.names)}",
            where=read.where,
            hint=f"{close_names('file', read.names)} Name the column that holds the relative paths 'file'.".strip(),
        )
    folder = None if read.path is None else read.path.absolute().parent
    rows: list[ManifestRow] = []
    by_name: dict[str, ManifestRow] = {}
    by_path: dict[str, ManifestRow] = {}
    folders: dict[str, str] = {}
    for number, cells in enumerate(read.rows(), start=1):
        row = _row(cells, number, read.where)
        name = _normal(row.file)
        if name in by_name:
            raise MedclipError(Reason.TABLE_INVALID, f"row {number} names a file a second time.", where=read.where)
        rows.append(row)
        by_name[name] = row
        if folder is not None:
            by_path[_resolved(folder / name, folders)] = row
    return Manifest(tuple(rows), tuple(read.names), folder, by_name, by_path, folders)


def _row(cells: Mapping[str, str], number: int, where: object) -> ManifestRow:
    def bad(column: str, expected: str) -> MedclipError:
        return MedclipError(
            Reason.TABLE_INVALID,
            f"row {number}: column '{column}' is not understood; expected {expected}.",
            where=where,
            hint=number_hint(cells[column], ""),
        )

    if not cells["file"]:
        raise bad("file", "a relative path")
    modality = modality_of_name(cells.get("modality", ""))
    if modality is None and cells.get("modality"):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"row {number}: column 'modality' holds {shown(cells['modality'])}, which is no modality that is known.",
            where=where,
            hint=f"Use one of: {', '.join(every_modality())}.",
        )
    side = cells.get("laterality", "").lower()
    if side not in _SIDES:
        raise bad("laterality", "L, R, left, right or both")
    kind = cells.get("view_kind", "").lower()
    if kind and kind not in VIEW_KINDS:
        raise bad("view_kind", ", ".join(VIEW_KINDS))
    try:
        day = day_of(cells.get("exam_date", ""))
    except ValueError:
        raise bad("exam_date", DAYS_EXPECTED) from None
    try:
        age = float(cells.get("age") or "nan")
    except ValueError:
        raise bad("age", "years as a number") from None
    try:
        mpp = parse_mpp(cells.get("mpp_um", ""))
    except ValueError:
        raise bad("mpp_um", MPP_EXPECTED) from None
    return ManifestRow(
        file=cells["file"],
        study=cells.get("study") or None,
        patient=cells.get("patient") or None,
        modality=modality,
        laterality=_SIDES[side],
        view=cells.get("view", "").upper() or None,
        view_kind=kind or None,
        exam_date=day,
        age=age if math.isfinite(age) else None,
        sex=_SEXES.get(cells.get("sex", "").lower()),
        mpp_um=mpp,
        split=cells.get("split", "").lower() or None,
        captions=_captions(cells),
        labels={k.removeprefix(LABEL_PREFIX): v for k, v in cells.items() if k.startswith(LABEL_PREFIX) and v},
        extra={k: v for k, v in cells.items() if k not in _KNOWN and not k.startswith(LABEL_PREFIX)},
    )


def parse_mpp(text: str) -> float | None:
    """Read micrometres per pixel; None for an empty cell.

    Raises:
        ValueError: For anything but a number that a slide can have.
    """
    if not text:
        return None
    value = float(text)
    if not MPP_RANGE_UM[0] <= value <= MPP_RANGE_UM[1]:
        raise ValueError(text)
    return value


def _captions(cells: Mapping[str, str]) -> tuple[str, ...]:
    texts = [text.strip() for column in _TEXTS for text in cells.get(column, "").split(CAPTION_SEPARATOR)]
    return tuple(text for text in texts if text)


def _resolved(path: Path, folders: dict[str, str]) -> str:
    """Return an absolute path whose folder has no symbolic links; each folder is looked at once."""
    parent = str(path.parent)
    if parent not in folders:
        folders[parent] = os.path.realpath(parent)
    return os.path.join(folders[parent], path.name)


def _normal(name: str) -> str:
    """Return one spelling to a relative path: forward slashes, no './'."""
    return str(PurePosixPath(name.replace("\\", "/") if "/" not in name else name))

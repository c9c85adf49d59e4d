"""Manifests: a table that says what the files of a folder are."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.settings import MPP_RANGE_UM

_TEXTS = ("caption", "captions")
_KNOWN = ("file", "study", "patient", "modality", "laterality", "view", "age", "sex", "mpp_um", "split", *_TEXTS)
MPP_EXPECTED = f"micrometres per pixel, {MPP_RANGE_UM[0]:g} to {MPP_RANGE_UM[1]:g}"
LABEL_PREFIX = "label:"
CAPTION_SEPARATOR = "\n"
"""Several captions in one cell of a text table stand on lines of their own."""
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R", "b": "B", "both": "B", "": None}
_SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M", "o": "O", "other": "O", "u": None, "": None}


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


@dataclass(frozen=True)
class Manifest:
    """A table of files."""

    rows: tuple[ManifestRow, ...]
    columns: tuple[str, ...]
    folder: Path | None = None
    """The table's folder; paths in the table are relative to it or to the folder that is scored."""
    _by_name: Mapping[str, ManifestRow] = field(default_factory=dict, repr=False)
    _by_path: Mapping[str, ManifestRow] = field(default_factory=dict, repr=False)

    def row_for(self, file: str | Path) -> ManifestRow | None:
        """Find the row of a file.

        Args:
            file: The path relative to the scored folder, or the path on disk (looked up from the table's folder).

        Returns:
            The row, or None if the table has none for this file.
        """
        if isinstance(file, str):
            return self._by_name.get(_normal(file))
        return self._by_path.get(str(file.absolute())) or self._by_name.get(_normal(file.as_posix()))


def read_manifest(table: Any) -> Manifest:
    """Read a manifest.

    Args:
        table: Path of a CSV, TSV or Parquet file, or any data frame that narwhals knows (pandas, polars, pyarrow).
            The column `file` is required; `study`, `patient`, `modality`, `laterality`, `view`, `age`, `sex`,
            `mpp_um`, `split`, `caption` or `captions` and `label:...` are understood; other columns are kept.

    Returns:
        The manifest.

    Raises:
        MedclipError: TABLE_INVALID if it cannot be read, lacks `file`, names a file twice or holds a value that is
            not understood; MISSING_FILE if there is no such file.

    Example:
        >>> import pyarrow
        >>> manifest = read_manifest(pyarrow.table({"file": ["a.png"], "modality": ["xray"]}))
        >>> manifest.row_for("a.png").modality
        <Modality.XRAY: 'xray'>
    """
    if isinstance(table, (str, Path)):
        path = Path(table)
        columns, records = _records_of_file(path)
        return _manifest(columns, records, where=path, folder=path.absolute().parent)
    columns, records = _records_of_frame(table)
    return _manifest(columns, records, where="the table", folder=None)


def _records_of_file(path: Path) -> tuple[Sequence[str], Iterable[Mapping[str, Any]]]:
    if not path.is_file():
        raise MedclipError(Reason.MISSING_FILE, "there is no such table.", where=path, hint="Check the path.")
    try:
        with path.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        if is_parquet:
            import pyarrow.parquet

            refuse_twins(pyarrow.parquet.read_schema(path).names, path)
            return _records_of_frame(pyarrow.parquet.read_table(path))
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = "\t" if first.count("\t") > first.count(",") else ","
            if not first.count(delimiter) and first.count(";"):
                delimiter = ";"
            reader = csv.DictReader(stream, delimiter=delimiter)
            columns = list(reader.fieldnames or ())
            refuse_twins(columns, path)
            return columns, list(reader)
    except PermissionError as error:
        raise MedclipError(Reason.PERMISSION_DENIED, "the table may not be read.", where=path) from error
    except (UnicodeDecodeError, csv.Error, OSError, ValueError) as error:
        raise MedclipError(
            Reason.TABLE_INVALID, "the table is neither UTF-8 CSV or TSV nor Parquet.", where=path
        ) from error


def refuse_twins(columns: Sequence[str], where: object) -> None:
    """Refuse a header that names a column twice: one of the two would be lost. Columns without a name are ignored.

    Raises:
        MedclipError: TABLE_INVALID naming the column.
    """
    twins = [name for name, n in Counter(columns).items() if n > 1 and name]
    if twins:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the column {twins[0]!r} stands more than once in the header.",
            where=where,
            hint="Rename or remove one of them.",
        )


def _records_of_frame(frame: Any) -> tuple[Sequence[str], Iterable[Mapping[str, Any]]]:
    import narwhals

    try:
        native = narwhals.from_native(frame)
        eager = native.collect() if isinstance(native, narwhals.LazyFrame) else native
        columns = list(eager.columns)
    except narwhals.exceptions.DuplicateError as error:
        raise MedclipError(
            Reason.TABLE_INVALID, f"two columns have the same name ({' '.join(str(error).split())})."
        ) from error
    except TypeError as error:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"a manifest is a CSV, TSV or Parquet path or a data frame, not {type(frame).__name__}.",
        ) from error
    return columns, eager.rows(named=True)


def _manifest(
    columns: Sequence[str], records: Iterable[Mapping[str, Any]], *, where: object, folder: Path | None
) -> Manifest:
    if "file" not in columns:
        found = ", ".join(columns) or "none"
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"the table has no column 'file'; its columns are: {found}.",
            where=where,
            hint="Name the column that holds the relative paths 'file'.",
        )
    rows: list[ManifestRow] = []
    by_name: dict[str, ManifestRow] = {}
    by_path: dict[str, ManifestRow] = {}
    for number, record in enumerate(records, start=1):
        row = _row(record, number, where)
        name = _normal(row.file)
        if name in by_name:
            raise MedclipError(Reason.TABLE_INVALID, f"row {number} names {row.file} a second time.", where=where)
        rows.append(row)
        by_name[name] = row
        if folder is not None:
            by_path[str(folder / name)] = row
    return Manifest(tuple(rows), tuple(columns), folder, by_name, by_path)


def _row(record: Mapping[str, Any], number: int, where: object) -> ManifestRow:
    def bad(column: str, expected: str) -> MedclipError:
        return MedclipError(
            Reason.TABLE_INVALID,
            f"row {number}: column '{column}' is not understood; expected {expected}.",
            where=where,
        )

    if None in record:  # csv.DictReader's key for surplus cells
        raise MedclipError(Reason.TABLE_INVALID, f"row {number} has more cells than there are columns.", where=where)
    cells = {name: _text(value) for name, value in record.items()}
    if not cells["file"]:
        raise bad("file", "a relative path")
    modality = cells.get("modality", "").lower()
    if modality and modality not in set(Modality):
        raise bad("modality", "one of " + ", ".join(Modality))
    side = cells.get("laterality", "").lower()
    if side not in _SIDES:
        raise bad("laterality", "L, R, left, right or both")
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
        modality=Modality(modality) if modality else None,
        laterality=_SIDES[side],
        view=cells.get("view", "").upper() or None,
        age=age if math.isfinite(age) else None,
        sex=_SEXES.get(cells.get("sex", "").lower()),
        mpp_um=mpp,
        split=cells.get("split", "").lower() or None,
        captions=_captions(record),
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


def _captions(record: Mapping[str, Any]) -> tuple[str, ...]:
    texts: list[str] = []
    for column in _TEXTS:
        value = record.get(column)
        parts = list(value) if isinstance(value, (list, tuple)) else _text(value).split(CAPTION_SEPARATOR)
        texts += [text for part in parts if (text := _text(part))]
    return tuple(texts)


def _text(value: Any) -> str:
    """Give a cell as text: empty for missing values, whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return "" if text in ("<NA>", "NaT") else text


def _normal(name: str) -> str:
    """Give one spelling to a relative path: forward slashes, no './'."""
    return str(PurePosixPath(name.replace("\\", "/") if "/" not in name else name))

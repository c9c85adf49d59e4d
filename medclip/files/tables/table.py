"""Anybody's table as columns: CSV, TSV, Parquet or a data frame, read by columns and fit for millions of rows."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.output import is_file
from medclip.files.tables.cell_privacy import shown
from medclip.files.tables.manifest import refuse_twins

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

BLANK = frozenset({"", "nan", "na", "n/a", "null", "<na>", "nat", "#n/a"})
"""Cells that hold nothing, in small letters; "none" is not one of them, for it may say that there is no device."""
_BLOCK_BYTES = 16 * 2**20
"""Longest row of a text table."""
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?$"
_MOST_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of texts, each different text once: what is understood is understood once for each."""

    codes_N: NDArray[np.int32]
    """Index into `values` of each row."""
    values: tuple[str, ...]
    """Texts without blanks around them, "" for an empty cell; all different, in the order of their first row."""

    def __len__(self) -> int:
        """Give N."""
        return len(self.codes_N)

    def take(self, rows_M: NDArray[np.intp]) -> Coded:
        """Give the column of some rows, [M]."""
        return Coded(self.codes_N[rows_M], self.values)

    def mapped(self, meaning: Callable[[str], str]) -> Coded:
        """Give every text another; those that become equal are merged."""
        return merged(self.codes_N, [meaning(v) for v in self.values])

    def texts_N(self) -> NDArray[np.object_]:
        """Give the text of each row."""
        return np.asarray([*self.values, ""], object)[self.codes_N]

    def counts(self) -> NDArray[np.intp]:
        """Count the rows of each value."""
        return np.bincount(self.codes_N, minlength=len(self.values))

    def used(self) -> Coded:
        """Leave out values that no row has."""
        there = np.flatnonzero(self.counts())
        place = np.zeros(max(len(self.values), 1), np.int32)
        place[there] = np.arange(len(there), dtype=np.int32)
        return Coded(place[self.codes_N], tuple(self.values[i] for i in there))


def merged(codes_N: NDArray[Any], texts: Sequence[str]) -> Coded:
    """Give a column whose texts may repeat one code for each different text."""
    place: dict[str, int] = {}
    code = np.fromiter((place.setdefault(t, len(place)) for t in texts), np.int32, len(texts))
    return Coded(code[codes_N] if len(texts) else np.zeros(0, np.int32), tuple(place))


def in_order(code_N: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number codes anew, 0, 1, ... in the order of their first rows.

    Returns:
        The number of each row, and the first row of each number.

    Example:
        >>> in_order(np.asarray([7, 3, 7]))[0].tolist()
        [0, 1, 0]
    """
    _, first, inverse_N = np.unique(code_N, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    return rank[inverse_N], first[order]


def is_blank(text: str) -> bool:
    """Whether a cell holds nothing."""
    return text.casefold() in BLANK


def plain_name(text: str) -> str:
    """Give a name as it is compared: small letters and digits only.

    Example:
        >>> plain_name("Pleural_Thickening ")
        'pleuralthickening'
    """
    return re.sub(r"[\W_]+", "", text.casefold())


@dataclass(frozen=True, eq=False)
class Table:
    """A table, not yet understood."""

    arrow: pa.Table
    where: str
    """Its path, or what it is ("the table of labels"), for messages."""
    _coded: dict[str, Coded] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> list[str]:
        """Names of the columns that have one."""
        return [n for n in self.arrow.column_names if n]

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.arrow.num_rows

    def find(self, name: str, *also: str) -> str | None:
        """Find a column by its name, else by one that differs in case, blanks and underscores only, else by another.

        Args:
            name: What is looked for.
            also: Other names of the same thing, tried in this order.
        """
        if name in self.names:
            return name
        plain: dict[str, str] = {}
        for column in self.names:
            plain.setdefault(plain_name(column), column)
        return next((plain[plain_name(n)] for n in (name, *also) if plain_name(n) in plain), None)

    def need(self, name: str, what: str = "") -> str:
        """Find a column, or say which are like it.

        Raises:
            MedclipError: TABLE_INVALID.
        """
        found = self.find(name)
        if found is None:
            raise no_such(name, self.names, self.where, what)
        return found

    def take(self, keep_N: NDArray[np.bool_]) -> Table:
        """Give the table of the rows that are kept."""
        import pyarrow as pa

        return Table(self.arrow.filter(pa.array(keep_N)), self.where)

    def coded(self, name: str) -> Coded:
        """Read a column as texts."""
        if name not in self._coded:
            self._coded[name] = self._read(name)
        return self._coded[name]

    def _read(self, name: str) -> Coded:
        import pyarrow as pa

        column = self.arrow.column(name)
        is_text = _is_text(column.type)
        if is_text:
            column = _compute().utf8_trim_whitespace(column.fill_null(""))
        elif pa.types.is_nested(column.type) or pa.types.is_null(column.type):
            column = pa.array([_text(v) for v in column.to_pylist()], pa.string())
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(array, pa.ChunkedArray):  # what is too long for one chunk of its type
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
        coded = array.dictionary_encode(null_encoding="encode")
        codes_N = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        if is_text:
            return Coded(codes_N, tuple(coded.dictionary.to_pylist()))
        return merged(codes_N, [_text(v) for v in coded.dictionary.to_pylist()])

    def numbers(self, name: str, what: str = "a number") -> NDArray[np.float64]:
        """Read a column of numbers, [N]; NaN for an empty cell.

        Raises:
            MedclipError: TABLE_INVALID with how many cells are no number.
        """
        import pyarrow as pa

        pc = _compute()
        column = self.arrow.column(name)
        kind = column.type
        if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
            column, kind = pc.cast(column, pa.float64() if pa.types.is_decimal(kind) else pa.int8()), pa.float64()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            text = pa.array(self.coded(name).texts_N(), pa.string()) if not _is_text(kind) else column
            text = pc.utf8_trim_whitespace(text.fill_null(""))
            empty = pc.is_in(pc.utf8_lower(text), pa.array(sorted(BLANK), text.type))
            bad = pc.and_(pc.invert(empty), pc.invert(pc.match_substring_regex(text, _NUMBER)))
            if (num_bad := pc.sum(bad).as_py() or 0) > 0:
                raise _no_numbers(name, what, num_bad, pc.unique(text.filter(bad)).to_pylist(), self.where)
            column = pc.cast(pc.utf8_ltrim(pc.if_else(empty, None, text), "+"), pa.float64())
        numbers_N = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.array(numbers_N, np.float64)

    def is_numeric(self, name: str) -> bool:
        """Whether all cells that hold something hold a number, and there is one."""
        import pyarrow as pa

        pc = _compute()
        column = self.arrow.column(name)
        kind = column.type
        if not _is_text(kind):
            return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        text = pc.utf8_trim_whitespace(column.drop_null())
        text = text.filter(pc.invert(pc.is_in(pc.utf8_lower(text), pa.array(sorted(BLANK), text.type))))
        return len(text) > 0 and bool(pc.all(pc.match_substring_regex(text, _NUMBER)).as_py())


def read_table(source: Any, what: str) -> Table:
    """Read a table.

    Args:
        source: Path of a CSV, TSV (also packed with gzip) or Parquet file, or a data frame that narwhals knows.
        what: What it is, for messages: "the table of labels".

    Raises:
        MedclipError: MISSING_FILE, PERMISSION_DENIED, TABLE_INVALID, NOTHING_TO_DO for a table without rows.
    """
    if isinstance(source, str | Path):
        table = Table(_of_file(Path(source)), str(source))
    else:
        table = Table(_of_frame(source, what), what)
    if not table.num_rows:
        raise MedclipError(Reason.NOTHING_TO_DO, "the table has no rows.", where=table.where)
    return table


def no_such(name: str, names: Sequence[str], where: object, what: str = "") -> MedclipError:
    """Say that a column is not there, and which are like it."""
    hint = did_you_mean(name, names) or did_you_mean(name, names, "Its columns are")
    tail = f" ({what})" if what else ""
    return MedclipError(Reason.TABLE_INVALID, f"there is no column {name!r}{tail}.", where=where, hint=hint)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _compute() -> Any:
    """Give pyarrow's functions, which it makes at import and no type checker sees."""
    import pyarrow.compute

    return pyarrow.compute


def _of_file(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not is_file(path):
        raise MedclipError(Reason.MISSING_FILE, "there is no such table.", where=path, hint="Check the path.")
    try:
        with path.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        if is_parquet:
            refuse_twins(pq.read_schema(path).names, path)
            return _whole(pq.read_table(path))
        return _of_text(path)
    except PermissionError as e:
        raise MedclipError(Reason.PERMISSION_DENIED, "the table may not be read.", where=path) from e
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as e:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "the table is neither UTF-8 CSV or TSV nor Parquet.",
            where=path,
            hint="Save it as one of them.",
        ) from e


def _of_text(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(_BLOCK_BYTES)
    first = re.split(rb"\r?\n|\r", head, maxsplit=1)[0].decode("utf-8-sig")
    delimiter = max("\t,;", key=lambda d: (first.count(d), d == ","))
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if not any(header):
        raise MedclipError(Reason.NOTHING_TO_DO, "the table's first line names no columns.", where=path)
    refuse_twins(header, path)
    names = [name or f"\0{i}" for i, name in enumerate(header)]  # of a saved index; dropped below
    ragged: list[int] = []

    def note(row: Any) -> str:
        ragged.append(row.actual_columns)
        return "skip"

    table = pacsv.read_csv(
        path,
        read_options=pacsv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK_BYTES),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    if ragged:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{len(ragged):,} rows do not have the {len(header)} cells of the header (one has {ragged[0]}).",
            where=path,
            hint="Put texts that hold the delimiter in double quotes.",
        )
    return table.select([n for n in names if not n.startswith("\0")])


def _of_frame(frame: Any, what: str) -> pa.Table:
    import narwhals as nw
    import pyarrow as pa

    try:
        native = nw.from_native(frame)
        data = native.collect() if isinstance(native, nw.LazyFrame) else native
        names = [str(c) for c in data.columns]
    except nw.exceptions.DuplicateError as e:
        raise MedclipError(
            Reason.TABLE_INVALID, f"two columns have the same name ({' '.join(str(e).split())}).", where=what
        ) from None
    except TypeError as e:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a table is the path of a CSV, TSV or Parquet file or a data frame, not {type(frame).__name__}.",
            where=what,
        ) from e
    refuse_twins(names, what)
    columns = []
    for column in data.iter_columns():
        try:
            columns.append(column.to_arrow())
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # cells of several types
            columns.append(pa.array([_text(v) for v in column], pa.string()))
    return _whole(pa.table(columns, names=names))


def _whole(table: pa.Table) -> pa.Table:
    """Write categories out."""
    import pyarrow as pa

    for i, entry in enumerate(table.schema):
        if pa.types.is_dictionary(entry.type):
            table = table.set_column(i, entry.name, table.column(i).cast(entry.type.value_type))
    return table


def _text(value: object) -> str:
    """Give a cell as text; whole numbers without a decimal point, lists one element a line."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple | np.ndarray):
        return "\n".join(_text(v) for v in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _no_numbers(name: str, what: str, num_bad: int, texts: Sequence[str], where: str) -> MedclipError:
    commas = any(re.match(_NUMBER, t.replace(",", ".")) for t in texts)
    return MedclipError(
        Reason.TABLE_INVALID,
        f"{num_bad:,} cells of the column {name!r} are not {what}: {', '.join(shown(t) for t in texts[:_MOST_SHOWN])}.",
        where=where,
        hint="Write decimals with a point." if commas else "Leave a cell blank where nothing is known.",
    )

"""A table as columns of Arrow, fit for millions of rows: cells as text, numbers, columns found by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.tables.cells import NOT_SHOWN, shown, shown_name
from medclip.wording import count

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

BLANK = frozenset({"", "nan", "na", "n/a", "null", "<na>", "nat", "#n/a"})
"""Cells that hold nothing, in small letters; "none" is not one of them, for it may say that there is no device."""
PATIENTS = ("patient", "patient_id", "subject_id", "subject", "person_id", "case_id")
"""Columns that are taken for the patient where none is named, in the order in which they are looked for."""
_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?$"
_MOST_SHOWN = 3
_MOST_NAMES = 40
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of texts, each different text once: what is understood is understood once for each."""

    codes_N: NDArray[np.int32]
    """Index into `values` of each row."""
    values: tuple[str, ...]
    """Texts without blanks around them, "" for a cell that holds nothing (`BLANK`); all different, in the order of
    their first row."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.codes_N)

    def take(self, rows_M: NDArray[np.intp]) -> Coded:
        """Return the column of some rows, [M]."""
        return Coded(self.codes_N[rows_M], self.values)

    def mapped(self, meaning: Callable[[str], str]) -> Coded:
        """Return every text another; those that become equal are merged."""
        return merged(self.codes_N, [meaning(v) for v in self.values])

    def texts_N(self) -> NDArray[np.object_]:
        """Return the text of each row."""
        return np.asarray([*self.values, ""], object)[self.codes_N]

    def counts(self) -> NDArray[np.intp]:
        """Count the rows of each value."""
        return np.bincount(self.codes_N, minlength=len(self.values))

    def used(self) -> Coded:
        """Leave out values that no row has."""
        present = np.flatnonzero(self.counts())
        place = np.zeros(max(len(self.values), 1), np.int32)
        place[present] = np.arange(len(present), dtype=np.int32)
        return Coded(place[self.codes_N], tuple(self.values[i] for i in present))


def merged(codes_N: NDArray[Any], texts: Sequence[str]) -> Coded:
    """Return a column whose texts may repeat one code for each different text."""
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


def is_marked(text: str) -> bool:
    """Whether a cell of a column such as "synthetic" says that its row is: true, 1, or how it was made.

    Example:
        >>> is_marked("true"), is_marked("pasted"), is_marked("0"), is_marked("")
        (True, True, False, False)
    """
    plain = text.strip().casefold()
    return not is_blank(plain) and plain not in ("0", "0.0", "false", "no", "real")


def plain_name(text: str) -> str:
    """Return a name as it is compared: small letters and digits only.

    Example:
        >>> plain_name("Pleural_Thickening ")
        'pleuralthickening'
    """
    return re.sub(r"[\W_]+", "", text.casefold())


@dataclass(frozen=True)
class TextForm:
    """How text tables were written where neither their bytes nor the usual form say it."""

    encoding: str = "utf-8"
    """Of tables that are not UTF-8 and have no byte order mark, by Python's name for it: cp1252, latin-1, utf-16-le."""
    decimal: str = "point"
    """What parts the decimals: "point" or "comma"."""

    def __post_init__(self) -> None:
        """Refuse what nothing can be read by."""
        if self.decimal not in ("point", "comma"):
            hint = did_you_mean(self.decimal, ("point", "comma"), "It is one of")
            raise MedclipError(Reason.WRONG_USE, f"`decimal` is {self.decimal!r}.", hint=hint)
        try:
            is_ascii = "a".encode(self.encoding).decode(self.encoding) == "a"
        except (LookupError, UnicodeError, ValueError):
            is_ascii = False
        if not is_ascii:
            raise MedclipError(
                Reason.WRONG_USE,
                f"`encoding` is {self.encoding!r}, which names no encoding of text.",
                hint='Western Windows writes cp1252, older Unix latin-1, Excel\'s "Unicode text" utf-16.',
            )


@dataclass(frozen=True, eq=False)
class Table:
    """A table, not yet understood."""

    arrow: pa.Table
    where: str
    """Its path, or what it is ("the table of labels"), for messages."""
    path: Path | None = None
    """Its file; None for a data frame."""
    form: TextForm | None = None
    """How its text was read, where whoever asked can say so; None where refusals have no option to name."""
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
        """Find a column by its name, else the only one that differs in case, blanks and underscores, else by another.

        Args:
            name: Name of the column that is looked for.
            also: Other names of the same thing, tried in this order.
        """
        if name in self.names:
            return name
        plain: dict[str, list[str]] = {}
        for column in self.names:
            plain.setdefault(plain_name(column), []).append(column)
        alike = (plain.get(plain_name(n), []) for n in (name, *also))
        return next((columns[0] for columns in alike if len(columns) == 1), None)

    def with_names(self, column_names: Iterable[str]) -> Table:
        """Return the table with columns under the names that they are known by: `FILE` becomes `file`.

        A name that differs in case, blanks and underscores only is the known one, unless two columns are alike. The
        patient has several names (`PATIENTS`).
        """
        wanted = dict.fromkeys(column_names)
        also = {PATIENTS[0]: [name for name in PATIENTS[1:] if name not in wanted]}
        columns = {self.find(name, *also.get(name, ())): name for name in wanted if name not in self.names}
        names = [n if n in wanted else columns.get(n, n) for n in self.arrow.column_names]
        if names == self.arrow.column_names:
            return self
        return Table(self.arrow.rename_columns(names), self.where, self.path, self.form)

    def need(self, name: str, what: str = "") -> str:
        """Find a column, or say which are like it.

        Raises:
            MedclipError: TABLE_INVALID.
        """
        column = self.find(name)
        if column is None:
            raise no_such(name, self.names, self.where, what)
        return column

    def take(self, keep_N: NDArray[np.bool_]) -> Table:
        """Return the table of the rows that are kept."""
        import pyarrow as pa

        return Table(self.arrow.filter(pa.array(keep_N)), self.where, self.path, self.form)

    def select(self, names: Iterable[str]) -> Table:
        """Return the table of some of its columns; names that it does not have are left out."""
        present = [name for name in dict.fromkeys(names) if name in self.names]
        return Table(self.arrow.select(present), self.where, self.path, self.form)

    def coded(self, name: str) -> Coded:
        """Read a column as texts."""
        if name not in self._coded:
            self._coded[name] = self._read(name)
        return self._coded[name]

    def texts(self, name: str) -> list[str]:
        """Read a column as the text of each row; "" for each where there is no such column."""
        return self.coded(name).texts_N().tolist() if name in self.names else [""] * self.num_rows

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield the texts of one row after the other, by column: the table is never held as rows."""
        columns = [self.coded(name) for name in self.names]
        for start in range(0, self.num_rows, _ROWS_AT_ONCE):
            part = [[c.values[i] for i in c.codes_N[start : start + _ROWS_AT_ONCE].tolist()] for c in columns]
            for cells in zip(*part, strict=True):
                yield dict(zip(self.names, cells, strict=True))

    def _column(self, name: str) -> Any:
        """Return a column with its categories written out, and text of one type."""
        import pyarrow as pa

        column = self.arrow.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column

    def _read(self, name: str) -> Coded:
        import pyarrow as pa

        column = self._column(name)
        if _is_text(column.type):
            column = _compute().utf8_trim_whitespace(column.fill_null(""))
        elif pa.types.is_nested(column.type) or pa.types.is_null(column.type):
            column = pa.array([cell_text(v) for v in column.to_pylist()], pa.string())
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(array, pa.ChunkedArray):  # what is too long for one chunk of its type
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
        coded = array.dictionary_encode(null_encoding="encode")
        codes_N = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        texts = [cell_text(v) for v in coded.dictionary.to_pylist()]
        return merged(codes_N, ["" if is_blank(text) else text for text in texts])

    def numbers(self, name: str, what: str = "a number") -> NDArray[np.float64]:
        """Read a column of numbers, [N]; NaN for an empty cell.

        Raises:
            MedclipError: TABLE_INVALID with how many cells are no number.
        """
        import pyarrow as pa

        pc = _compute()
        column = self._column(name)
        kind = column.type
        if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
            column, kind = pc.cast(column, pa.float64() if pa.types.is_decimal(kind) else pa.int8()), pa.float64()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            text = pa.array(self.coded(name).texts_N(), pa.string()) if not _is_text(kind) else column
            text = pc.utf8_trim_whitespace(text.fill_null(""))
            empty = _blank(text)
            bad = pc.and_(pc.invert(empty), pc.invert(pc.match_substring_regex(text, _NUMBER)))
            if (num_bad := pc.sum(bad).as_py() or 0) > 0:
                raise _no_numbers(name, what, num_bad, pc.unique(text.filter(bad)).to_pylist(), self)
            column = pc.cast(pc.utf8_ltrim(pc.if_else(empty, None, text), "+"), pa.float64())
        numbers_N = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.array(numbers_N, np.float64)

    def is_numeric(self, name: str) -> bool:
        """Whether all cells that hold something hold a number, and there is one.

        Numbers with a decimal comma count, so that `numbers` refuses them and nobody passes the column by.
        """
        import pyarrow as pa

        pc = _compute()
        column = self._column(name)
        kind = column.type
        if not _is_text(kind):
            return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        text = pc.utf8_trim_whitespace(column.drop_null())
        text = text.filter(pc.invert(_blank(text)))
        return len(text) > 0 and bool(pc.all(pc.match_substring_regex(text, f"{_NUMBER}|{_COMMA}")).as_py())


def no_such(name: str, names: Sequence[str], where: object, what: str = "") -> MedclipError:
    """Describe that a column is not there, and which are like it."""
    hint = close_names(name, names) or listed(names)
    tail = f" ({what})" if what else ""
    return MedclipError(Reason.TABLE_INVALID, f"there is no column {name!r}{tail}.", where=where, hint=hint)


def close_names(name: str, names: Sequence[str]) -> str:
    """Ask for the columns that are written like a name; "" where none is. No column that may be a cell is shown."""
    return did_you_mean(name, [n for n in names if shown_name(n) != NOT_SHOWN])


def listed(names: Sequence[str], what: str = "Its columns are") -> str:
    """List the columns of a table in a sentence; names that may be cells of a table without a header are not shown.

    Example:
        >>> listed(["file", "age"])
        'Its columns are: file, age.'
    """
    shown_names = [shown_name(n).strip("'") for n in names[:_MOST_NAMES]]
    return f"{what}: {', '.join(shown_names) or 'none'}{', ...' if len(names) > _MOST_NAMES else ''}."


def number_in(text: str) -> float:
    """Read a number; NaN for a cell that holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def has_decimal_comma(text: str) -> bool:
    """Whether a cell is a number with a comma in the place of the point."""
    return re.match(_COMMA, text.strip()) is not None


def decimal_commas(name: str, num_cells: int, where: str, *, has_option: bool) -> MedclipError:
    """Return the refusal of a column of numbers with decimal commas; `has_option` where `TextForm` can be asked for."""
    are = "is" if num_cells == 1 else "are"
    sentence = f"{count(num_cells, 'cell')} of the column {name!r} {are} written with a decimal comma, not a point."
    hint = number_hint("0,5", "") + (" Or have them read so: --decimal comma." if has_option else "")
    return MedclipError(Reason.TABLE_INVALID, sentence, where=where, hint=hint)


def with_decimal_points(table: Table) -> Table:
    """Return a table whose cells with a decimal comma have a point instead; texts with a comma in them stay.

    Raises:
        MedclipError: TABLE_INVALID for a column in which some numbers have a comma and some a point: there a point may
            part thousands.
    """
    import pyarrow as pa

    pc = _compute()
    columns = {}
    for name in table.arrow.column_names:
        column = table._column(name)
        if _is_text(column.type):
            text = pc.utf8_trim_whitespace(column)
            commas = pc.match_substring_regex(text, _COMMA)
            if pc.any(commas).as_py():
                points = pc.match_substring_regex(text, r"^[+-]?\d*\.\d+$")
                if pc.any(points).as_py():
                    raise MedclipError(
                        Reason.TABLE_INVALID,
                        f"some numbers of the column {name!r} have a decimal comma, and some a point.",
                        where=table.where,
                        hint="Write them alike: a point may part thousands.",
                    )
                column = pc.if_else(commas, pc.replace_substring(text, ",", "."), column)
        columns[name] = column
    return Table(pa.table(columns, metadata=table.arrow.schema.metadata), table.where, table.path, table.form)


def number_hint(text: str, otherwise: str) -> str:
    """Return what to do about a cell that is no number: another sentence for a decimal comma.

    Example:
        >>> number_hint("0,71", "Use years.")
        'Write decimals with a point, not with a comma.'
    """
    return "Write decimals with a point, not with a comma." if has_decimal_comma(text) else otherwise


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _compute() -> Any:
    """Return pyarrow's functions, which it makes at import and no type checker sees."""
    import pyarrow.compute

    return pyarrow.compute


def cell_text(value: object) -> str:
    """Write a cell as text: whole numbers without a decimal point, lists one element a line."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple | np.ndarray):
        return "\n".join(cell_text(v) for v in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return "" if text in ("<NA>", "NaT") else text  # as pandas writes what is missing


def _blank(texts: Any) -> Any:
    import pyarrow as pa

    pc = _compute()
    return pc.is_in(pc.utf8_lower(texts), pa.array(sorted(BLANK), texts.type))


def _no_numbers(name: str, what: str, num_bad: int, texts: Sequence[str], table: Table) -> MedclipError:
    with_comma = [t for t in texts if has_decimal_comma(t)]
    if len(with_comma) == len(texts):
        return decimal_commas(name, num_bad, table.where, has_option=table.form is not None)
    are = "is" if num_bad == 1 else "are"
    samples = ", ".join(shown(t) for t in texts[:_MOST_SHOWN])
    sentence = f"{count(num_bad, 'cell')} of the column {name!r} {are} not {what}: {samples}."
    hint = number_hint(with_comma[0] if with_comma else "", "Leave a cell blank where nothing is known.")
    return MedclipError(Reason.TABLE_INVALID, sentence, where=table.where, hint=hint)

"""The one reader of tables: CSV, TSV or Parquet, whatever its suffix, or a data frame, as a `Table` of Arrow columns.

What a file is, is told from its bytes: Parquet, text between commas, semicolons or tabs, either of them packed with
gzip, in UTF-8, in UTF-16 with a byte order mark, or in the encoding that the user names. What it is not is told too, in
one sentence: Excel and zip files, images, web pages. Every file is opened once. Cells of a text table stay text here;
who needs numbers asks the table.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medclip.errors import MedclipError, Reason, naming, refuse_missing
from medclip.files.recognise.sniff import Format, sniff_open
from medclip.files.tables.cells import shown_name
from medclip.files.tables.parquet_stream import most_unpacked, read_stream, too_large
from medclip.files.tables.table import Table, TextForm, cell_text, with_decimal_points

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW_BYTES = 16 * 2**20
"""Longest row of a text table; a longer one is nearly always a double quote that nothing closes."""
_HEADER_BYTES = 2**20
_LOOKED_AT = 6
"""Rows that decide between two delimiters."""
_SAVE = "Save it as CSV (UTF-8), TSV or Parquet."
_SAVE_UTF8 = 'Save it as "CSV UTF-8" or as Parquet, or convert it.'
_IMAGES = {Format.PNG, Format.JPEG, Format.TIFF, Format.SLIDE, Format.GIF, Format.BMP, Format.WEBP, Format.JPEG2000}
_IMAGES |= {Format.DICOM, Format.DICOMDIR, Format.NIFTI, Format.NRRD, Format.MP4, Format.AVI}
_FORMATS = dict.fromkeys(_IMAGES, "an image") | {
    Format.PDF: "a PDF document",
    Format.HTML: "a web page (HTML)",
    Format.XML: "an XML file",
    Format.XML_ECG: "an XML file",
    Format.JSON: "a JSON file",
    Format.HDF5: "an HDF5 file",
    Format.MATLAB: "a MATLAB file",
}
_MAGIC = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel file (.xls), or another Office document"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"FEA1", "a Feather file"),
    (b"ORC", "an ORC file"),
    (b"PARE", "an encrypted Parquet file"),
    (b"BZh", "a file packed with bzip2"),
    (b"\xfd7zXZ\0", "a file packed with xz"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x80\x04", "a Python pickle, which is never read"),
)


def read_table(source: Any, what: str = "the table", form: TextForm | None = None) -> Table:
    """Read a table.

    Args:
        source: Path of a CSV, TSV or Parquet file, whatever its suffix and whether packed with gzip; any data frame
            that narwhals knows (pandas, polars eager and lazy, pyarrow); or a `Table`, which is returned as it is.
        what: Name of the table, for messages about a data frame: "the table of labels".
        form: Form of the table's text, where the user can say so; a `Table` has been read already.

    Returns:
        The table, with at least one row. Names of columns have no blanks around them and are all different.

    Raises:
        MedclipError: MISSING_FILE, PERMISSION_DENIED; TOO_LARGE for one that unpacks to more than 512 MB and a
            hundred times its size; TABLE_INVALID for what is no table, a column that stands twice or
            holds cells under no name, or a row with more or fewer cells than the header; NOTHING_TO_DO for a table
            without rows; WRONG_USE for a folder and for an object that is no data frame.

    Example:
        >>> import pyarrow
        >>> read_table(pyarrow.table({" file ": ["a.png"], "age": [63.0]})).texts("age")
        ['63']
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        _refuse_no_file(path)
        try:
            with path.open("rb") as stream:
                return read_open_table(stream, path, form)
        except PermissionError as e:
            raise MedclipError(Reason.PERMISSION_DENIED, "the table may not be read.", where=path) from e
    return _with_rows(Table(_named(_of_frame(source, what), what), what, form=form))


def read_open_table(stream: BinaryIO, path: Path, form: TextForm | None = None) -> Table:
    """Read a table from a file that is open; arguments and errors as in `read_table`."""
    import pyarrow as pa

    try:
        with naming(path):
            return _with_rows(Table(_named(_of_stream(stream, path, form), path), str(path), path, form))
    except (pa.ArrowException, OSError) as e:
        raise _invalid("the table is damaged, or cut off.", path, "Copy or export it again.") from e


def _with_rows(table: Table) -> Table:
    if not table.num_rows:
        raise MedclipError(Reason.NOTHING_TO_DO, "the table has no rows.", where=table.where)
    return with_decimal_points(table) if table.form is not None and table.form.decimal == "comma" else table


def _invalid(message: str, where: object, hint: str = _SAVE) -> MedclipError:
    return MedclipError(Reason.TABLE_INVALID, message, where=where, hint=hint)


def _refuse_no_file(path: Path) -> None:
    if os.path.isdir(path):
        raise MedclipError(
            Reason.WRONG_USE, "this is a folder, and the table is a file.", where=path, hint="Name the file in it."
        )
    refuse_missing(path, "table")
    if not os.path.isfile(path):
        raise MedclipError(Reason.MISSING_FILE, "this is no file.", where=path, hint="Name the table itself.")


def _of_stream(stream: BinaryIO, path: Path, form: TextForm | None) -> pa.Table:
    start = stream.read(8)
    stream.seek(0)
    if start.startswith(b"\x1f\x8b"):
        unpacked = _unpacked(stream, path)
        if unpacked.startswith(b"\x1f\x8b"):
            raise _invalid("the table is packed with gzip twice.", path, "Unpack it once.")
        return _of_stream(io.BytesIO(unpacked), path, form)
    if start.startswith(b"PAR1"):
        return read_stream(stream)
    kind = next((name for magic, name in _MAGIC if start.startswith(magic)), None)
    if kind is None:
        sniffed = sniff_open(stream)
        stream.seek(0)
        kind = _kind_of_zip(stream) if sniffed is Format.ZIP else _FORMATS.get(sniffed)
    if kind is not None:
        raise _invalid(f"this is {kind}, and no table that medclip reads.", path)
    stream.seek(0)
    return _of_text(stream.read(), path, form)


def _unpacked(stream: BinaryIO, path: Path) -> bytes:
    """Unpack a gzip file, no further than a table may unpack."""
    packed_bytes = stream.seek(0, io.SEEK_END)
    most = most_unpacked(packed_bytes)
    stream.seek(0)
    try:
        with gzip.GzipFile(fileobj=stream) as file:
            body = file.read(most + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise _invalid("the gzip file is damaged, or cut off.", path, "Copy it again.") from e
    if len(body) > most:
        raise too_large(packed_bytes)
    return body


def _kind_of_zip(stream: BinaryIO) -> str:
    try:
        names = zipfile.ZipFile(stream).namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel file"
    if "content.xml" in names:
        return "an OpenDocument (LibreOffice) file"
    return "a NumPy .npz file" if names and all(n.endswith(".npy") for n in names) else "a zip archive"


def _of_text(body: bytes, path: Path, form: TextForm | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    body = _utf8(body, path, form)
    header, delimiter, start = _header(body, path, form)
    names = [str(place) for place in range(len(header))]
    if start == len(body):
        return pa.table([pa.array([], pa.string())] * len(header), names=header)
    with pa.BufferOutputStream() as copy:  # Arrow's own memory, and no function of ours in its threads: see read_stream
        copy.write(memoryview(body)[start:])
        rest = copy.getvalue()
    convert = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)

    def parse(skip: Callable[[Any], str] | None = None) -> pa.Table:
        return pacsv.read_csv(
            pa.BufferReader(rest),
            pacsv.ReadOptions(column_names=names, block_size=MAX_ROW_BYTES, use_threads=skip is None),
            pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert,
        )

    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = parse()
    except pa.ArrowInvalid as e:
        with contextlib.suppress(pa.ArrowInvalid):
            parse(skip)
        raise (_ragged(ragged, len(header), path) if ragged else _unreadable(body, str(e), path, form)) from e
    _refuse_open_quote(table, body, path)
    return table.rename_columns(header)


def _utf8(body: bytes, path: Path, form: TextForm | None) -> bytes:
    """Return text as UTF-8 without a byte order mark.

    The encoding that was named is that of files that are no UTF-8: tables of medclip beside it stay what they are.
    """
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            body = body.decode("utf-16").encode()
        except UnicodeError as e:
            raise _invalid("the table begins like UTF-16 text and is none.", path) from e
    body = body.removeprefix(codecs.BOM_UTF8)
    if form is not None and form.encoding != TextForm.encoding and not _is_utf8(body):
        try:
            body = body.decode(form.encoding).encode()
        except UnicodeError as e:
            raise _invalid(f"the table is neither UTF-8 nor {form.encoding}.", path, _SAVE_UTF8) from e
    if b"\0" in body:
        hint = f"{_SAVE} Or say what it is in: --encoding utf-16-le." if form is not None else _SAVE
        raise _invalid("the file holds NUL bytes, so it is no CSV or TSV in UTF-8.", path, hint)
    return body


def _is_utf8(body: bytes) -> bool:
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False


def _header(body: bytes, path: Path, form: TextForm | None) -> tuple[list[str], str, int]:
    """Read the names of the columns.

    Returns:
        The names, the delimiter, and the byte at which the rows begin.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(body[:_HEADER_BYTES], final=False)
    except UnicodeDecodeError as e:
        raise _not_utf8(body, e.start, path, form) from e
    blank = re.match(r"[\r\n]*", text)
    start = blank.end() if blank else 0
    stated = re.match(r"sep=([,;\t])\r?\n", text[start:])  # Excel's own line for the delimiter
    start += stated.end() if stated else 0
    delimiter = max(stated[1] if stated else ",;\t", key=lambda mark: _fit(text[start:], mark))  # or the first
    lines = io.StringIO(text[start:], newline="")
    try:
        names = next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error as e:
        raise _invalid("the table's first line is no header.", path, "Is a double quote missing?") from e
    if not any(name.strip() for name in names):
        raise _invalid("the table's first line names no columns.", path, "Write the names of the columns there.")
    return names, delimiter, len(text[: start + lines.tell()].encode())


def _fit(text: str, delimiter: str) -> tuple[bool, int]:
    """Rank a delimiter: it parts the header and the first rows into as many cells each, and it parts them at all."""
    widths: list[int] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            widths += [len(row)] if row else []
            if len(widths) == _LOOKED_AT:
                break
    except csv.Error:  # text behind a closing quote; or a cell too long for this module, which Arrow reads
        return False, widths[0] if widths else 0
    return bool(widths) and widths[0] > 1 and len(set(widths)) == 1, widths[0] if widths else 0


def _ragged(rows: Sequence[Any], expected: int, path: Path) -> MedclipError:
    first = rows[0]
    comma = first.actual_columns > expected and re.search(r"\d,\d", first.text)
    many = "more" if first.actual_columns > expected else "fewer"
    others = f" ({len(rows):,} rows in all)" if len(rows) > 1 else ""
    return _invalid(
        f"row {first.number} has {many} cells than there are columns: {first.actual_columns}, and the header "
        f"{expected}{others}.",
        path,
        "Put texts that hold the delimiter in double quotes."
        + (" Write decimals with a point, not with a comma." if comma else ""),
    )


def _unreadable(body: bytes, message: str, path: Path, form: TextForm | None) -> MedclipError:
    """Return why Arrow could not read a text."""
    if "straddling" in message or "block" in message:
        return _invalid(
            f"a row of the table is longer than {MAX_ROW_BYTES:,} bytes.",
            path,
            "Is a double quote missing? Else shorten the text.",
        )
    try:
        body.decode()
    except UnicodeDecodeError as e:
        return _not_utf8(body, e.start, path, form)
    return _invalid("the table is no CSV or TSV.", path)


def _not_utf8(body: bytes, at: int, path: Path, form: TextForm | None) -> MedclipError:
    line = len(re.findall(rb"\r\n|\n|\r", body[:at])) + 1
    option = " Or say what it is in: --encoding cp1252 (Western Windows) or latin-1." if form is not None else ""
    return _invalid(f"line {line:,} of the file is not UTF-8 text.", path, _SAVE_UTF8 + option)


def _refuse_open_quote(table: pa.Table, body: bytes, path: Path) -> None:
    """Refuse a text whose last cell runs to the end of the file: the rows in it would be lost without a word."""
    last = table.column(table.num_columns - 1)[-1].as_py() if table.num_rows else ""
    if "\n" in last and body.endswith(last.encode()):
        raise _invalid(
            f"a double quote in row {table.num_rows:,} is never closed, and holds the rest of the file.",
            path,
            "Close it, or write it twice where it is part of a text.",
        )


def _of_frame(frame: Any, what: str) -> pa.Table:
    import narwhals as nw
    import pyarrow as pa

    try:
        native = nw.from_native(frame)
        data = native.collect() if isinstance(native, nw.LazyFrame) else native
        names = [str(c) for c in data.columns]
    except nw.exceptions.DuplicateError as e:
        raise _invalid(
            f"two columns have the same name ({' '.join(str(e).split())}).", what, "Rename or remove one of them."
        ) from None
    except TypeError as e:
        raise MedclipError(
            Reason.WRONG_USE,
            f"a table is the path of a CSV, TSV or Parquet file or a data frame, not {type(frame).__name__}.",
            where=what,
        ) from e
    columns = []
    for column in data.iter_columns():
        try:
            columns.append(column.to_arrow())
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # cells of several types
            columns.append(pa.array([cell_text(v) for v in column], pa.string()))
    return pa.table(columns, names=names)


def _named(table: pa.Table, where: object) -> pa.Table:
    """Trim the names of the columns, refuse those that stand twice, and drop empty columns without a name."""
    import pyarrow as pa

    names = [name.strip() for name in table.column_names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise _invalid(
            f"the column {shown_name(twice[0])} stands more than once in the header.",
            where,
            "Rename or remove one of them.",
        )
    columns: dict[str, Any] = {}
    for place, name in enumerate(names):
        if name:
            columns[name] = table.column(place)
            continue
        cells = [text for text in Table(pa.table({"": table.column(place)}), "").coded("").values if text]
        is_index = not place and all(text.isdigit() for text in cells)  # as pandas and R save it
        if cells and not is_index:
            raise _invalid(
                f"the column {place + 1} has no name in the header, and cells that hold something.",
                where,
                "Name it, or remove it.",
            )
    return pa.table(columns, metadata=table.schema.metadata)

"""Read Parquet from an open Python file, and how much a packed table may unpack to.

A Parquet file of 10 kB can state a billion rows, or one long text a million times. So a table that could grow beyond
its limit is read with its texts as a dictionary, which takes no more than the file itself says in bytes, and it is
counted what they would take before they are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, BinaryIO

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import pyarrow as pa


_LEAST_LIMIT_BYTES = 512 * 2**20
_MOST_TIMES = 100
"""Tables of texts and numbers pack to a fifth or a twentieth; deflate does a thousandth at most, Parquet any."""


def most_unpacked(packed_bytes: int) -> int:
    """Return how many bytes a packed table may take in memory: 512 MB, or a hundred times what it takes on the disk."""
    return max(_LEAST_LIMIT_BYTES, _MOST_TIMES * packed_bytes)


def too_large(packed_bytes: int) -> MedclipError:
    """Return the refusal of a table that unpacks to more than `most_unpacked`."""
    most = most_unpacked(packed_bytes)
    return MedclipError(
        Reason.TOO_LARGE,
        f"the table takes {packed_bytes:,} bytes on the disk and more than {most:,} unpacked.",
        hint="If it is yours and is meant to be so, save it as CSV that is not packed.",
    )


def read_stream(stream: BinaryIO | BufferedIOBase) -> pa.Table:
    """Read a whole table, on the calling thread alone.

    A thread of Arrow that lets go of a Python file while Python shuts down aborts the process: after
    `pyarrow.parquet.read_table` of an open file 5 commands of 150 ended with signal 6.

    Raises:
        MedclipError: TOO_LARGE for more than `most_unpacked`.
        OSError: It cannot be read.
        pyarrow.ArrowInvalid: It is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(stream, pre_buffer=False)
    packed_bytes = stream.seek(0, 2)
    most = most_unpacked(packed_bytes)
    least_bytes, most_bytes, texts = _bounds(parquet.metadata)
    if least_bytes > most:
        raise too_large(packed_bytes)
    if most_bytes <= most:
        return parquet.read(use_threads=False)
    careful, groups, num_bytes = pq.ParquetFile(stream, pre_buffer=False, read_dictionary=texts), [], 0
    for i in range(parquet.num_row_groups):  # one by one: Arrow reads no dictionaries in lists across groups
        group = careful.read_row_group(i, use_threads=False)
        num_bytes += sum(_written_bytes(chunk) for column in group.columns for chunk in column.chunks)
        if num_bytes > most:
            raise too_large(packed_bytes)
        groups.append(group.cast(parquet.schema_arrow))
    return pa.concat_tables(groups)


def _bounds(footer: Any) -> tuple[int, int, list[str]]:
    """Return the fewest and the most bytes that a table can take, and the columns of texts; by the footer alone.

    A text is no longer than its column chunk, which holds it at least once.
    """
    least = most = 0
    texts: dict[str, None] = {}
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        for j in range(group.num_columns):
            chunk = group.column(j)
            values = max(0, chunk.num_values)
            if chunk.physical_type == "BYTE_ARRAY":
                texts[chunk.path_in_schema] = None
                longest = 4 + max(0, chunk.total_uncompressed_size)
                # Arrow reads no dictionary in a map, so that the worst is taken there.
                least += (longest if ".key_value." in chunk.path_in_schema else 4) * values
                most += longest * values
            else:
                width = {"BOOLEAN": 1, "INT32": 1, "FLOAT": 4}.get(chunk.physical_type, 8)  # INT32 also holds bytes
                least += width * values
                most += 8 * values
    return least, most, list(texts)


def _written_bytes(values: Any) -> int:
    """Return what an array takes once its dictionaries, at whatever depth, are written out."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(values.dictionary).cast("int64")  # pyright: ignore[reportAttributeAccessIssue]
        return pc.sum(lengths.take(values.indices)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    if pa.types.is_struct(values.type):
        return sum(map(_written_bytes, values.flatten()))
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _written_bytes(values.flatten())
    return values.nbytes


def iterate_stream(stream: BinaryIO | BufferedIOBase, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `rows` rows, read on the calling thread as `read_stream` does.

    Raises:
        OSError: It cannot be read.
        pyarrow.ArrowInvalid: It is no Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(stream, pre_buffer=False)
    missing = [c for c in columns if c not in parquet.schema_arrow.names]
    if missing:
        raise pa.ArrowInvalid(f"no column {missing[0]}")
    yield from parquet.iter_batches(rows, columns=list(columns), use_threads=False)

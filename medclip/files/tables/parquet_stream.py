"""Read Parquet from an open Python file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa


def read_stream(stream: BinaryIO | BufferedIOBase) -> pa.Table:
    """Read a whole table, on the calling thread alone.

    A thread of Arrow that lets go of a Python file while Python shuts down aborts the process: after
    `pyarrow.parquet.read_table` of an open file 5 commands of 150 ended with signal 6.

    Raises:
        OSError: It cannot be read.
        pyarrow.ArrowInvalid: It is no Parquet.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(stream, pre_buffer=False).read(use_threads=False)


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

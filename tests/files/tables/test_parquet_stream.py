from __future__ import annotations

import io
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.files.tables.parquet_stream import iterate_stream, read_stream

TABLE = pa.table({f"c{i}": [str(i)] * 5000 for i in range(20)})


class Watched(io.BytesIO):
    """A file that remembers which threads touched it."""

    def __init__(self) -> None:
        super().__init__()
        pq.write_table(TABLE, self, row_group_size=500)
        self.threads: set[int] = set()

    def read(self, *args):
        self.threads.add(threading.get_ident())
        return super().read(*args)

    def seek(self, *args):
        self.threads.add(threading.get_ident())
        return super().seek(*args)


def test_an_open_file_is_read_by_the_thread_that_asked_alone():
    stream = Watched()
    stream.threads.clear()
    assert read_stream(stream).equals(TABLE)
    assert stream.threads == {threading.get_ident()}


def test_an_open_file_is_read_in_batches_by_the_thread_that_asked_alone():
    stream = Watched()
    stream.threads.clear()
    batches = list(iterate_stream(stream, 700, ["c3", "c7"]))
    assert pa.Table.from_batches(batches).equals(TABLE.select(["c3", "c7"]))
    assert max(len(batch) for batch in batches) <= 700
    assert stream.threads == {threading.get_ident()}


def test_a_missing_column_is_named():
    with pytest.raises(pa.ArrowInvalid, match="no column c99"):
        next(iterate_stream(Watched(), 10, ["c1", "c99"]))


def test_arrows_own_reading_of_an_open_file_uses_other_threads():
    """If this fails, Arrow has changed and `read_stream` may be no longer needed."""
    stream = Watched()
    stream.threads.clear()
    pq.read_table(stream)
    assert stream.threads - {threading.get_ident()}

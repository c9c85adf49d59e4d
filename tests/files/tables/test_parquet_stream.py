from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.errors import MedclipError, Reason
from medclip.files.tables import parquet_stream
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


def _stored(values: Any, **how: Any) -> io.BytesIO:
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": values}), stream, **how)
    return stream


def _repeated(times: int, length: int) -> pa.DictionaryArray:
    """A text of some length many times; a Parquet file holds it once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), ["x" * length])


_BOMBS = {
    "a long text, a thousand times": lambda: _repeated(1000, 10**6),
    "in lists": lambda: pa.ListArray.from_arrays(pa.array(range(0, 1001, 2), pa.int32()), _repeated(1000, 10**6)),
    "in a structure": lambda: pa.StructArray.from_arrays([_repeated(1000, 10**6)], ["text"]),
    "in a map": lambda: pa.array([[("key", "x" * 10**6)]] * 1000, pa.map_(pa.string(), pa.string())),
    "one number, a hundred million times": lambda: np.zeros(10**8),
}


@pytest.mark.parametrize("what", _BOMBS)
def test_a_small_file_that_would_fill_the_memory_is_refused_before_it_does(what: str):
    stream = _stored(_BOMBS[what](), store_schema=False)
    size = len(stream.getvalue())
    assert size < 10**6
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(MedclipError, match=f"takes {size:,} bytes on the disk and more than 536,870,912") as caught:
        read_stream(stream)
    assert caught.value.reason is Reason.TOO_LARGE
    assert pa.default_memory_pool().max_memory() - before < 50 * 2**20, "a tenth of what is allowed, at most"


@pytest.mark.parametrize("stores_schema", [True, False])
@pytest.mark.parametrize("in_", ["text", "list", "structure"])
def test_a_table_that_could_be_large_and_is_not_is_read_as_arrow_reads_it(stores_schema: bool, in_: str, monkeypatch):
    texts = pa.array([f"text {i % 7}" if i % 5 else None for i in range(1000)])
    lists = pa.ListArray.from_arrays(pa.array(range(0, 1001, 2), pa.int32()), texts)
    values = {"text": texts, "list": lists, "structure": pa.StructArray.from_arrays([texts], ["text"])}[in_]
    stream = _stored(values, store_schema=stores_schema, row_group_size=300)
    monkeypatch.setattr(parquet_stream, "_LEAST_LIMIT_BYTES", 20_000)
    monkeypatch.setattr(parquet_stream, "_MOST_TIMES", 1)
    _, most, columns = parquet_stream._bounds(pq.ParquetFile(stream).metadata)
    assert most > parquet_stream.most_unpacked(len(stream.getvalue())), "the careful way is taken"
    assert len(columns) == 1
    assert read_stream(stream).equals(pq.read_table(stream))

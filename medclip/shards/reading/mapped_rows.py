"""The rows of a split as a memory-mapped file: all processes of a node share its pages and hold none of their own.

A table of 5 million samples takes 2 GB in memory, in each of the ranks and workers of a node. Here it is written once,
as an Arrow file of batches of 65,536 rows with few-valued columns as numbers, to `cache/rows` of MEDCLIP_HOME, under a
name that is made of the split and the indexes; whoever comes later opens it in less than a second. Columns that are
wanted as a whole (`Columns`: small numbers of every sample) are mapped, single rows read from their place. Like
the table it is made of, the file holds hashes of patients, and its owner alone may read it.

The newest 16 files stay, and older ones that a process has open. Where the folder cannot be written, the file is a
temporary one of this process.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError
from medclip.files.output import disk_errors, make_folder, new_file
from medclip.settings import Settings
from medclip.shards.folder import EDIT_PAIR, LICENSE, SAMPLE_COLUMNS, STRATUM

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Columns:
    """Shard, source, modality and stratum of N samples, each as a number and a list of names."""

    shard_N: NDArray[np.int32]
    """Number of the shard that each sample lies in; samples of a shard follow each other."""
    num_shards: int
    source_N: NDArray[np.integer]
    sources: tuple[str, ...]
    """Names that `source_N` points into; "" where the source is not named."""
    modality_N: NDArray[np.integer]
    modalities: tuple[str, ...]
    """Names that `modality_N` points into; "" where the modality is not known."""
    stratum_N: NDArray[np.integer] | None = None
    """None: all samples are of one stratum."""
    strata: tuple[str, ...] = ("",)
    """Names that `stratum_N` points into; "" where the table stated none."""
    pair_N: NDArray[np.integer] | None = None
    """Number of the edit pair that each sample is half of, 0 where of none; None: none is."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.shard_N)


def coded(values: Iterable[str | None]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Turn names into numbers and the sorted list that these point into.

    Example:
        >>> coded(["b", None, "b"])[1]
        ('', 'b')
    """
    named = [v or "" for v in values]
    names = tuple(sorted(set(named)))
    number = {name: i for i, name in enumerate(names)}
    return np.fromiter((number[v] for v in named), np.int32, len(named)), names


BATCH_ROWS = 1 << 16
_CODED = ("modality", "adapter", "source", LICENSE, STRATUM, EDIT_PAIR)
_PLAIN = ("key", "sha256", "patient")
_WIDTHS = {"shard": 4, "offset": 8, "size": 8}
_KEPT = 16
_NAMES = "names"


@dataclass(frozen=True)
class _Start:
    """Where parts of a column of one batch begin in the file."""

    valid: int | None
    """Bits that say which rows have a value; None where all have one."""
    values: int
    """Numbers, or where texts begin and end."""
    text: int = 0

    @classmethod
    def of(cls, buffers: Sequence[Any], address: int) -> _Start:
        valid, values, text = (None if b is None else b.address - address for b in (*buffers, None)[:3])
        return cls(valid, values or 0, text or 0)


class MappedRows:
    """Rows of a split by number. Safe in threads; travels to other processes as the name of its file.

    Args:
        path: The file.
        split: Split of the rows, which stands in no column.
        shards: Names of the shards that the column of numbers points into.
        holder: Object that keeps a temporary file in being.
    """

    def __init__(self, path: Path, split: str, shards: Sequence[str], holder: Any = None) -> None:
        self.path, self.split, self.shards, self._holder = path, split, tuple(shards), holder
        self._open()

    def _open(self) -> None:
        """Note where in the file each column of each batch begins; rows are then read from there, by their number.

        A row could be looked up in the mapping, too, but the system maps 64 KB around each place that is touched, and
        rows in random order would soon have the whole file in the memory of each process.
        """
        self._file = os.open(self.path, os.O_RDONLY)
        with suppress(ImportError, OSError):  # another system; a network drive without locks
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # it is in use: see _forget_old
        with self._batches() as (batches, names, address):
            self._names: dict[str, list[str | None]] = names
            self._starts = {
                name: [_Start.of(batch.column(name).buffers(), address) for batch in batches]
                for name in (*_PLAIN, *_CODED, *_WIDTHS)
            }
            self._size = sum(batch.num_rows for batch in batches)

    @contextmanager
    def _batches(self) -> Iterator[tuple[list[Any], dict[str, list[str | None]], int]]:
        """Map the file for a while: its batches, the names of numbers, and the address of its first byte."""
        import pyarrow as pa

        with pa.memory_map(str(self.path)) as mapped:
            file = pa.ipc.open_file(mapped)
            batches = [file.get_batch(i) for i in range(file.num_record_batches)]
            _, metadata = file.get_batch_with_custom_metadata(len(batches) - 1)
            mapped.seek(0)
            yield batches, json.loads(metadata[_NAMES.encode()]), mapped.read_buffer().address

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._size

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def place(self, i: int) -> tuple[int, int, int]:
        """Return number of the shard, offset and size of row i."""
        return self._number("shard", i), self._number("offset", i), self._number("size", i)

    def key(self, i: int) -> str:
        """Return the key of row i."""
        return str(self._text("key", i))

    def row(self, i: int) -> dict[str, Any]:
        """Return row i, as samples.parquet has it."""
        shard, offset, size = self.place(i)
        cells = {"split": self.split, "shard": self.shards[shard], "offset": offset, "size": size}
        cells |= {column: self._names[column][self._number(column, i)] for column in _CODED}
        cells |= {column: self._text(column, i) for column in _PLAIN}
        return {column: cells[column] for column in (*SAMPLE_COLUMNS, LICENSE)}

    def parts(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows as samples.parquet has them, thousands at a time."""
        with self._batches() as (batches, names, _):
            for batch in batches:
                rows = batch.to_pylist()
                for row in rows:
                    row["split"], row["shard"] = self.split, self.shards[row["shard"]]
                    row.update((column, names[column][row[column]]) for column in _CODED)
                    del row[STRATUM], row[EDIT_PAIR]  # for whoever draws samples, in `columns`
                yield rows

    def _number(self, column: str, i: int) -> int:
        batch, row = self._at(i)
        width = _WIDTHS.get(column, 4)
        return int.from_bytes(os.pread(self._file, width, self._starts[column][batch].values + width * row), "little")

    def _text(self, column: str, i: int) -> str | None:
        batch, row = self._at(i)
        start = self._starts[column][batch]
        if start.valid is not None and not os.pread(self._file, 1, start.valid + row // 8)[0] >> row % 8 & 1:
            return None
        first, last = struct.unpack("<2i", os.pread(self._file, 8, start.values + 4 * row))
        return os.pread(self._file, last - first, start.text + first).decode()

    def numbers_of(self, keys: Any) -> NDArray[np.int64]:
        """Return the number of the row of each of some keys (an Arrow column of M), [M]; -1 for one that no row has.

        Keys in the order of the rows name each its own, also where two folders hold an image under one key.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        with self._batches() as (batches, _, _):
            every = pa.concat_arrays([batch.column("key") for batch in batches])
            if keys.equals(pa.chunked_array([every])):
                return np.arange(len(every))
            place: Any = getattr(pc, "index_in")(keys, value_set=every)  # noqa: B009 (no type checker sees it)
            return place.fill_null(-1).to_numpy().astype(np.int64)

    def columns(self) -> Columns:
        """Return shard, source, modality and stratum of every row, each in as few bytes as it needs."""
        coded = (*self._sorted("source"), *self._sorted("modality"), *self._sorted(STRATUM))
        pair_N, pairs = self._sorted(EDIT_PAIR)
        # without names, or of one name "", nobody has a partner; else "" is among the names, or 0 is a pair
        pair_N = None if pairs in ((), ("",)) else pair_N.astype(np.int32) + (pairs[0] != "")
        return Columns(self._joined("shard"), len(self.shards), *coded, pair_N=pair_N)

    def _sorted(self, column: str) -> tuple[NDArray[np.integer], tuple[str, ...]]:
        number, names = coded(self._names[column])
        number = number.astype(np.min_scalar_type(max(1, len(names))))
        return number[self._joined(column)] if len(number) else self._joined(column), names

    def _joined(self, column: str) -> NDArray[np.int32]:
        with self._batches() as (batches, _, _):
            return np.concatenate([batch.column(column).to_numpy() for batch in batches])

    def _at(self, i: int) -> tuple[int, int]:
        return divmod(i % self._size if -self._size <= i < 0 else i, BATCH_ROWS)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "split": self.split, "shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _holder=None)
        self._open()


class SelectedRows:
    """Some rows of a split by number, as if there were no others.

    Args:
        rows: All rows of the split.
        number_M: Numbers of those that are kept, ascending.
    """

    def __init__(self, rows: MappedRows, number_M: NDArray[np.int64]) -> None:
        self._rows, self._number_M = rows, number_M.astype(np.int32)

    def __len__(self) -> int:
        """Return M."""
        return len(self._number_M)

    def place(self, i: int) -> tuple[int, int, int]:
        """Return number of the shard, offset and size of row i."""
        return self._rows.place(int(self._number_M[i]))

    def key(self, i: int) -> str:
        """Return the key of row i."""
        return self._rows.key(int(self._number_M[i]))

    def row(self, i: int) -> dict[str, Any]:
        """Return row i, as samples.parquet has it."""
        return self._rows.row(int(self._number_M[i]))

    def parts(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows as samples.parquet has them, thousands at a time."""
        start = 0
        for rows in self._rows.parts():
            first, last = np.searchsorted(self._number_M, [start, start + len(rows)])
            yield [rows[number - start] for number in self._number_M[first:last].tolist()]
            start += len(rows)

    def columns(self) -> Columns:
        """Return shard, source, modality and stratum of every row; names that no row has are left out."""
        every, kept = self._rows.columns(), self._number_M
        assert every.stratum_N is not None  # mapped rows number them always
        coded = (
            *_still_used(every.source_N[kept], every.sources),
            *_still_used(every.modality_N[kept], every.modalities),
            *_still_used(every.stratum_N[kept], every.strata),
        )
        pair_N = None if every.pair_N is None else every.pair_N[kept]
        return Columns(every.shard_N[kept], every.num_shards, *coded, pair_N=pair_N)


def _still_used(number_N: NDArray[np.integer], names: tuple[str, ...]) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    used, inverse_N = np.unique(number_N, return_inverse=True)
    return inverse_N.astype(number_N.dtype), tuple(names[i] for i in used)


def map_rows(identity: str, split: str, shards: Sequence[str], batches: Callable[[], Iterator[Any]]) -> MappedRows:
    """Map the rows of a split, from a file that is there or is written now. Of several processes one writes it.

    Args:
        identity: Hash of what the rows depend on.
        split: The split.
        shards: Names of the split's shards, in the order of their numbers.
        batches: Function that yields record batches with the columns of samples.parquet, `shard` as a number; called
            where there is no file yet.

    Raises:
        MedclipError: What `batches` raises; as `medclip.files.output.disk_errors` where not even a temporary file can
            be written.
    """
    path = Settings().home / "cache" / "rows" / f"{identity}.arrow"
    if (rows := _mapped(path, split, shards)) is not None:
        return rows
    try:
        with _alone(path.parent):
            if (rows := _mapped(path, split, shards)) is not None:
                return rows
            with new_file(path) as draft:
                _write(draft, batches())
            _forget_old(path.parent)
            return MappedRows(path, split, shards)
    except MedclipError as e:
        if e.where != str(path) and e.where != path:
            raise
    except OSError:
        pass  # the folder cannot be made or locked
    with disk_errors(Path(tempfile.gettempdir())):
        holder = tempfile.NamedTemporaryFile(prefix="medclip-rows-", suffix=".arrow")  # noqa: SIM115
        _write(Path(holder.name), batches())
        return MappedRows(Path(holder.name), split, shards, holder)


def _mapped(path: Path, split: str, shards: Sequence[str]) -> MappedRows | None:
    """Map a file that is there; None where there is none, or it is damaged."""
    try:
        rows = MappedRows(path, split, shards)
        os.utime(path)  # so that it is among the newest
        return rows
    except (OSError, ValueError, KeyError):
        return None


def _write(path: Path, batches: Iterator[Any]) -> None:
    """Write record batches of equal length, with few-valued columns as numbers and their names beside the last one."""
    import pyarrow as pa

    numbers: dict[str, dict[str | None, int]] = {column: {} for column in _CODED}
    types = {**dict.fromkeys(_PLAIN, pa.string()), **dict.fromkeys(("shard", *_CODED), pa.int32())}
    schema = pa.schema([*types.items(), ("offset", pa.int64()), ("size", pa.int64())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        waiting: list[Any] = []
        num_waiting = 0
        for batch in batches:
            columns = {name: batch.column(name) for name in (*_PLAIN, "shard", "offset", "size")}
            columns |= {name: _numbered(batch.column(name), numbers[name]) for name in _CODED}
            waiting.append(pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema))
            num_waiting += batch.num_rows
            while num_waiting >= BATCH_ROWS:
                table = pa.concat_tables(waiting)
                _write_batch(writer, table.slice(0, BATCH_ROWS))
                waiting, num_waiting = [table.slice(BATCH_ROWS)], num_waiting - BATCH_ROWS
        rest = pa.concat_tables(waiting) if waiting else schema.empty_table()
        _write_batch(writer, rest, {_NAMES: json.dumps({column: list(names) for column, names in numbers.items()})})
    pa.default_memory_pool().release_unused()


def _write_batch(writer: Any, table: Any, metadata: Mapping[str, str] | None = None) -> None:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema), metadata)


def _numbered(column: Any, numbers: dict[str | None, int]) -> Any:
    """Replace values by numbers, new ones by the next that are free."""
    import pyarrow as pa

    encoded = column.dictionary_encode(null_encoding="encode")
    positions = [numbers.setdefault(value, len(numbers)) for value in encoded.dictionary.to_pylist()]
    return pa.array(positions, pa.int32()).take(encoded.indices)


def _forget_old(folder: Path) -> None:
    """Keep the newest files, and those in use: a run of days opens its own again as it ends."""
    files = sorted(folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        if not _is_open(path):
            path.unlink(missing_ok=True)


def _is_open(path: Path) -> bool:
    """Return whether a process has a file of rows open, where the system can say so."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a network drive without locks
            return False
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes here, where the system can say so."""
    make_folder(folder)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        with suppress(ImportError, OSError):  # another system; a network drive without locks
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

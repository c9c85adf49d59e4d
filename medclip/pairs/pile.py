"""A pile of image-text pairs, of shards or of a table, as columns: what steps of a selection look at.

Rows are read once, in order; images, or ECG records in their place, stay where they are until a step asks for some.
Five million captions of 150 letters take 1.2 GB: columns of few values are numbers that point into a list.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.files.stores import Place, RemotePath, place_of
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import Table, TextForm
from medclip.imaging.volume.voxels import middle_image
from medclip.progress import Progress, Silent
from medclip.sample import Kind, Modality, modality_of_name
from medclip.settings import Settings
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader, no_split
from medclip.shards.stored_data import SIGNAL_FACTS, decode, decode_signal
from medclip.shards.writing.exam_groups import ReadJob, ReadResult, read_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.imaging.ecg.recording import Recording

_T = TypeVar("_T")

COLUMNS = ("key", "split", "patient", "modality", "source", "license", "text", "report")
FACTS = ("width", "height", "num_slices", "burned_in", "synthetic")
"""Columns that a pile of shards has behind them: pixels of the stored image, slices of a volume, whether the header
said that letters are burned into the image, null where nothing is known; and whether it is no image of a patient."""

ReadImages = Callable[[Sequence[int]], Iterable["NDArray[np.uint8] | MedclipError"]]
ReadRecordings = Callable[[Sequence[int]], Iterable["Recording | MedclipError"]]
_FEW_VALUED = ("split", "modality", "source", "license")
_LONG = ("text", "report")
"""Columns that may hold more than 2 GB together."""
_PATHS, _CAPTIONS = ("file", "path"), ("caption", "captions", "text")
_BATCH_ROWS = 1 << 16
_MAX_SIDE = 1024
"""Longest side of images that are read of a table's files."""
_TRIED = 8
"""Files of a table of ECGs that are opened to see whether they are records, or images of sheets."""


@dataclass(frozen=True, eq=False)
class Pile:
    """N image-text pairs."""

    table: pa.Table
    """N rows with the string columns of `COLUMNS`, and those of a table of the user's own behind them. `key` is unique;
    a cell is "" where nothing is known; captions of a pair stand in `text`, a line each."""
    place: Path
    """Shard folder, or table."""
    digest: str
    """Hash of all that the rows depend on."""
    read_images: ReadImages
    """Reads images by the numbers of rows: see `images`."""
    max_side: int | None = None
    """Longest side that stored images have: larger ones were made smaller. None where nothing was."""
    read_recordings: ReadRecordings | None = None
    """Reads ECG records by the numbers of rows, as shards store them; None for a pile that holds none."""

    @property
    def holds_records(self) -> bool:
        """Whether its texts stand beside ECG records, and not beside images."""
        return self.read_recordings is not None

    def recordings(self, rows: Sequence[int]) -> Iterator[Recording | MedclipError]:
        """Yield the ECG record of each of some rows; an error in the place of one that cannot be read."""
        if self.read_recordings is not None:
            yield from self.read_recordings(rows)

    def __len__(self) -> int:
        """Return N."""
        return self.table.num_rows

    def images(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8] | MedclipError]:
        """Yield the image of each of some rows, uint8 [H, W, 3]; an error in the place of one that cannot be read."""
        yield from self.read_images(rows)

    def cells(self, column: str, rows_M: NDArray[np.int64] | None = None) -> list[str]:
        """Return the cells of a column, of all rows or of some.

        Args:
            column: Name of a column.
            rows_M: int64 [M], numbers of rows.
        """
        import pyarrow as pa

        cells = self.table.column(column)
        if rows_M is None:
            return [cell for chunk in cells.chunks for cell in _as_list(chunk)]
        # Arrow's `take` copies all chunks into one: 700 MB for the captions of five million pairs.
        ends = np.cumsum([len(chunk) for chunk in cells.chunks])
        order = np.argsort(rows_M, kind="stable")
        firsts = np.searchsorted(rows_M[order], [0, *ends])
        gathered = [
            cell
            for chunk, end, first, last in zip(cells.chunks, ends, firsts[:-1], firsts[1:], strict=True)
            if last > first
            for cell in _as_list(chunk.take(pa.array(rows_M[order[first:last]] - (end - len(chunk)))))
        ]
        place_M = np.empty(len(order), np.int64)
        place_M[order] = np.arange(len(order))
        return gathered if (place_M[1:] > place_M[:-1]).all() else [gathered[place] for place in place_M.tolist()]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a column of some rows, read a slice at a time: as one list those of millions of captions take GB."""

    pile: Pile
    column: str
    rows_M: NDArray[np.int64]

    def __len__(self) -> int:
        """Return M."""
        return len(self.rows_M)

    def __getitem__(self, part: slice) -> list[str]:
        """Return the cells of a slice."""
        return self.pile.cells(self.column, self.rows_M[part])


def _as_list(chunk: Any) -> list[Any]:
    """Return the cells of an Arrow array; equal ones of a coded column are one object."""
    import pyarrow as pa

    if not pa.types.is_dictionary(chunk.type):
        return chunk.to_pylist()
    values = chunk.dictionary.to_pylist()
    return [values[code] for code in chunk.indices.to_numpy(zero_copy_only=False).tolist()]


def read_pile(
    place: Place | str,
    *,
    split: str | None = None,
    images: Path | None = None,
    form: TextForm | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Pile:
    """Read the pairs of a shard folder or of a table.

    Patients of shards are keyed hashes; those of a table are what it says, and stay in memory. A pair of shards whose
    record has no text of its own has the caption that the build drew of its labels. A sample whose record cannot be
    read is a pair without a text.

    Args:
        place: Folder of shards (also of others, see `medclip shards index`), here or in a store; or a table with the
            columns file (or path), caption, captions or text, and where known report, patient, modality, source,
            license, split.
        split: Name of the one split that is read; all where None.
        images: Folder that relative files of a table are relative to; the table's own where None.
        form: Form of a table's text, where the user can say so.
        settings: Limits of what is read.
        progress: Progress bar of the pairs.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID or WRONG_USE where the place, the split or a column is not there;
            WRONG_USE for a folder of images beside shards; and what `ShardReader` and `read_table` raise.
    """
    settings, progress = settings or Settings(), progress or Silent()
    where = place_of(place)
    if isinstance(where, RemotePath) or os.path.isdir(where):
        if images is not None:
            message = "shards hold their images: no folder of images goes with them."
            raise MedclipError(Reason.WRONG_USE, message, where=where, hint="Leave out --images.")
        return _shard_pile(where, split, progress)
    return _table_pile(where, split, images, form, settings)


def need_table(places: Iterable[Place | str], form: TextForm) -> None:
    """Refuse an encoding that would be of no table.

    Args:
        places: Shards and tables that are read.
        form: Form of a table's text, as the user says.

    Raises:
        MedclipError: WRONG_USE where an encoding is stated and all places are shards.
    """
    wheres = [place_of(place) for place in places]
    if form != TextForm() and all(isinstance(where, RemotePath) or os.path.isdir(where) for where in wheres):
        message = "shards are UTF-8, and no table is read whose encoding could be stated."
        raise MedclipError(Reason.WRONG_USE, message, where=wheres[0], hint="Leave out --encoding.")


def _shard_pile(folder: Place, split: str | None, progress: Progress) -> Pile:
    import pyarrow as pa

    index = read_index(folder)
    splits = [split] if split is not None else [name for name, number in index["counts"]["by_split"].items() if number]
    if not splits:
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no sample in these shards.", where=folder)
    readers = [ShardReader(folder, name) for name in splits]
    progress.stage("Pairs", sum(map(len, readers)))
    parts, waiting = [], []
    for reader in readers:
        for row in _rows_of_shards(reader):
            waiting.append(row)
            progress.step()
            if len(waiting) == _BATCH_ROWS:
                parts.append(_columns_of(waiting))
                waiting = []
    table = pa.concat_tables([*parts, _columns_of(waiting)]).unify_dictionaries()
    content = [index["tables"], [shard["sha256"] for shard in index["shards"]], index.get("foreign") is not None, split]
    max_side = (index.get("options") or {}).get("max_side")
    records = _of_shards(readers, _recording_of_shards) if readers[0].holds == "signals" else None
    images = _of_shards(readers, _image_of_shards)
    return Pile(table, Path(str(folder)), digest_of(content), images, max_side, records)


def _rows_of_shards(reader: ShardReader) -> Iterator[dict[str, Any]]:
    """Yield what is known of each pair, by column."""
    for i, row in enumerate(reader.provenance()):
        cells = {
            "key": reader.key(i),
            "split": reader.split,
            "patient": (row["patient"] if row["names_patient"] else "") or "",
            "modality": row["modality"] or "",
            "source": row["source"] or "",
            "license": row["license"] or "",
            "text": "",
            "report": "",
            **dict.fromkeys(FACTS),
        }
        raw = reader.raw(i)  # a shard that is gone or another one ends it
        try:
            parts = reader.unpack(i, raw)
            record, meta = reader.understand(i, parts)
        except MedclipError:
            yield cells
            continue
        texts = record.texts or (parts.get("txt", b"").decode("utf-8", "replace").strip(),)
        cells |= {"text": "\n".join(texts), "report": record.report or "", "burned_in": meta.get("burned_in")}
        cells["synthetic"] = bool(meta.get("synthetic"))
        try:
            if reader.holds == "images":
                cells["width"], cells["height"] = reader.size_px(parts)
            elif reader.holds == "volumes":
                voxels = reader.voxels(parts)
                cells["num_slices"] = voxels.values.shape[0] if voxels.kind is Kind.VOLUME else None
                cells["height"], cells["width"] = voxels.values.shape[1:3]
        except MedclipError:
            pass  # whoever opens the image says so
        yield cells


def _columns_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    types = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(_LONG, pa.large_string())
    types |= dict.fromkeys(FACTS, pa.int32()) | dict.fromkeys(("burned_in", "synthetic"), pa.bool_())
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    return pa.table({n: c.dictionary_encode() if n in _FEW_VALUED else c for n, c in columns.items()})


def _of_shards(
    readers: Sequence[ShardReader], read_one: Callable[[ShardReader, int], _T]
) -> Callable[[Sequence[int]], Iterator[_T | MedclipError]]:
    ends = np.cumsum([len(reader) for reader in readers])

    def read(rows: Sequence[int]) -> Iterator[_T | MedclipError]:
        for row in rows:
            number = int(np.searchsorted(ends, row, side="right"))
            reader = readers[number]
            try:
                yield read_one(reader, int(row) - (int(ends[number]) - len(reader)))
            except MedclipError as e:
                yield e

    return read


def _image_of_shards(reader: ShardReader, i: int) -> NDArray[np.uint8]:
    parts = reader.members(i)
    if reader.holds == "signals":
        raise MedclipError(Reason.NO_PIXELS, f"sample {reader.key(i)} is an ECG and has no image.")
    if reader.holds == "volumes":
        return middle_image(reader.voxels(parts))
    return np.asarray(reader.images(parts)[0].convert("RGB"))


def _recording_of_shards(reader: ShardReader, i: int) -> Recording:
    return reader.recording(reader.members(i))


def _table_pile(path: Path, split: str | None, images: Path | None, form: TextForm | None, settings: Settings) -> Pile:
    import pyarrow as pa

    read = read_table(path, form=form).with_names((*COLUMNS, *_PATHS, *_CAPTIONS))
    file = next((name for name in _PATHS if name in read.names), None)
    if file is None:
        read.need(_PATHS[0], "the path of each image")
    captions = [name for name in _CAPTIONS if name in read.names]
    if not captions and "report" not in read.names:
        read.need("caption", "the text of each image")
    pa.default_memory_pool().release_unused()  # what unpacking took
    columns = {"key": _keys(read, str(file))}
    columns["split"] = _coded_column(read, "split")
    patients = [_texts(read, "patient")] if "patient" in read.names else []
    columns["patient"] = _joined(patients, read.num_rows).cast(pa.string())
    for name in ("modality", "source", "license"):
        columns[name] = _coded_column(read, name)
    columns["text"] = _joined([_texts(read, name) for name in captions], read.num_rows)
    columns["report"] = _joined([_texts(read, "report")] if "report" in read.names else [], read.num_rows)
    others = {name: read.arrow.column(name) for name in read.names if name not in (*COLUMNS, *_CAPTIONS)}
    table = pa.table({**columns, **others})
    if split is not None:
        splits = sorted({str(name) for name in _coded_column(read, "split").dictionary.to_pylist()})
        if split not in splits:
            raise no_split(split, path, [{"counts": {"by_split": splits}}])
        table = table.filter(_compute().equal(table.column("split").cast(pa.string()), split))
    with path.open("rb") as stream:
        content = [hashlib.file_digest(stream, "sha256").hexdigest(), split]
    if form is not None and form != TextForm():
        content.append(form.encoding)
    folder = images or path.parent
    records = _recordings_of_table(table, str(file), folder, settings)
    return Pile(
        table,
        path,
        digest_of(content),
        _images_of_table(table, str(file), folder, settings),
        read_recordings=records if _are_records(table, records) else None,
    )


def _coded_column(read: Table, name: str) -> Any:
    """Return a column as numbers that point into its texts; modalities and splits by their usual names."""
    import pyarrow as pa

    if name not in read.names:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(read.num_rows, np.int32)), pa.array([""], pa.string()))
    coded = read.coded(name)
    if name == "modality":
        coded = coded.mapped(lambda text: str(modality_of_name(text) or text))
    if name == "split":
        coded = coded.mapped(str.lower)
    return pa.DictionaryArray.from_arrays(pa.array(coded.codes_N), pa.array(coded.values, pa.string()))


def _keys(read: Table, file: str) -> Any:
    """Return what names each row: its key where the table has such, else its file, else the number of the row."""
    import pyarrow as pa

    for name in ("key", file):
        if name in read.names:
            cells = _texts(read, name).cast(pa.string())
            if _are_distinct(cells):
                return cells
    return pa.array([str(row) for row in range(read.num_rows)], pa.string())


def _are_distinct(cells: Any) -> bool:
    """Return whether no cell is empty, or there twice; a set of five million texts would take half a gigabyte."""
    parts = (batch.column(0).to_pylist() for batch in _batches(cells))
    hash_N = np.concatenate([np.fromiter(map(hash, part), np.int64, len(part)) for part in parts])
    is_blank = bool(_compute().any(_compute().equal(cells, "")).as_py())
    hash_N.sort()
    are_distinct = bool((hash_N[1:] != hash_N[:-1]).all())  # two texts of one hash are compared themselves
    return not is_blank and (are_distinct or len(_compute().unique(cells)) == len(cells))


def _batches(column: Any) -> Any:
    import pyarrow as pa

    return pa.table([column], ["cells"]).to_batches(_BATCH_ROWS)


def _texts(read: Table, name: str) -> Any:
    """Return a column of texts as Arrow has it; a list of strings as lines."""
    import pyarrow as pa

    column = read.arrow.column(name)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = _compute().binary_join(column.cast(pa.large_list(pa.string())), "\n")
    elif not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = pa.chunked_array([pa.array(read.texts(name), pa.large_string())])
    column = column.cast(pa.large_string()).fill_null("")
    return pa.chunked_array(
        [_trimmed(batch.column(0)) for batch in pa.table([column], ["texts"]).to_batches(_BATCH_ROWS)]
    )


def _trimmed(texts: Any) -> Any:
    """Return texts without blanks around them; those that have none stay in the memory where they are."""
    trimmed = _compute().utf8_trim_whitespace(texts)
    return texts if trimmed.equals(texts) else trimmed


def _joined(columns: Sequence[Any], num_rows: int) -> Any:
    """Return several columns of texts as one, a line each; empty ones add nothing."""
    import pyarrow as pa

    if not columns:
        return pa.array([""] * num_rows, pa.large_string())
    if len(columns) == 1:
        return columns[0]
    null = pa.scalar(None, pa.large_string())
    without = [_compute().if_else(_compute().equal(column, ""), null, column) for column in columns]
    newline = pa.scalar("\n", pa.large_string())
    return _compute().binary_join_element_wise(*without, newline, null_handling="skip")


def _images_of_table(table: pa.Table, file: str, folder: Path, settings: Settings) -> ReadImages:
    def read(rows: Sequence[int]) -> Iterator[NDArray[np.uint8] | MedclipError]:
        rows_M = np.asarray(rows, np.int64)
        files = table.column(file).take(rows_M).to_pylist()
        modalities = map(modality_of_name, table.column("modality").take(rows_M).to_pylist())
        jobs = [
            ReadJob(folder / (name or ""), modality, _MAX_SIDE)
            for name, modality in zip(files, modalities, strict=True)
        ]
        yield from map(_image_of_result, read_rows(jobs, settings))

    return read


def _recordings_of_table(table: pa.Table, file: str, folder: Path, settings: Settings) -> ReadRecordings:
    def read(rows: Sequence[int]) -> Iterator[Recording | MedclipError]:
        files = table.column(file).take(np.asarray(rows, np.int64)).to_pylist()
        jobs = [ReadJob(folder / (name or ""), Modality.ECG, _MAX_SIDE, stores="signals") for name in files]
        yield from map(_recording_of_result, read_rows(jobs, settings))

    return read


def _are_records(table: pa.Table, read: ReadRecordings) -> bool:
    """Return whether every row is of an ECG, and one of the first files is a record: others are images of sheets."""
    if set(_compute().unique(table.column("modality")).to_pylist()) != {str(Modality.ECG)}:
        return False
    first = read(range(min(_TRIED, table.num_rows)))
    return any(not isinstance(one, MedclipError) for one in first)


def _recording_of_result(result: ReadResult) -> Recording | MedclipError:
    if result.problem is not None:
        return MedclipError(result.problem.reason, result.problem.message)
    (stored,) = result.views
    assert stored.facts is not None
    return decode_signal(stored.image, stored.facts[SIGNAL_FACTS])


def _image_of_result(result: ReadResult) -> NDArray[np.uint8] | MedclipError:
    if result.problem is not None:
        return MedclipError(result.problem.reason, result.problem.message)
    view = result.views[len(result.views) // 2]
    return np.asarray(decode(view.image).convert("RGB"))


def _compute() -> Any:
    """Return Arrow's functions, which no type checker sees."""
    import pyarrow.compute

    return pyarrow.compute

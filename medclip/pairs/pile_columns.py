"""Columns of a pile of image-text pairs: of the samples of shards, or of the user's own table.

Five million captions of 150 letters take 1.2 GB: columns of few values are numbers that point into a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError
from medclip.files.tables.table import Table
from medclip.progress import Progress
from medclip.sample import Kind, modality_of_name
from medclip.shards.reading.samples import ShardReader

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("key", "split", "patient", "modality", "source", "license", "text", "report")
FACTS = ("width", "height", "num_slices", "burned_in", "synthetic")
"""Columns that a pile of shards has behind them: pixels of the stored image, slices of a volume, whether the header
said that letters are burned into the image, null where nothing is known; and whether it is no image of a patient."""
FILES, TEXTS = ("file", "path"), ("caption", "captions", "text")
"""Columns of a table that name the image, the first that is there; and that hold its captions, all of them."""
_FEW_VALUED = ("split", "modality", "source", "license")
_LONG = ("text", "report")
"""Columns that may hold more than 2 GB together."""
_BATCH_ROWS = 1 << 16


def columns_of_shards(readers: Sequence[ShardReader], progress: Progress) -> pa.Table:
    """Read what is known of each sample: `COLUMNS` and `FACTS`."""
    import pyarrow as pa

    parts, waiting = [], []
    for reader in readers:
        for row in _rows_of_shards(reader):
            waiting.append(row)
            progress.step()
            if len(waiting) == _BATCH_ROWS:
                parts.append(_columns_of(waiting))
                waiting = []
    return pa.concat_tables([*parts, _columns_of(waiting)]).unify_dictionaries()


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
        texts = record.texts
        if not (texts or record.report):  # what the build drew of labels says less than a report
            texts = (parts.get("txt", b"").decode("utf-8", "replace").strip(),)
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


def columns_of_table(read: Table, file: str) -> pa.Table:
    """Return `COLUMNS` of a table whose images are named in a column, and what else it has, under its names.

    Raises:
        MedclipError: TABLE_INVALID for a table without texts.
    """
    import pyarrow as pa

    captions = [name for name in TEXTS if name in read.names]
    if not captions and "report" not in read.names:
        read.need(TEXTS[0], "the text of each image")
    pa.default_memory_pool().release_unused()  # what unpacking took
    columns = {"key": _keys(read, file), "split": _coded_column(read, "split")}
    patients = [_texts(read, "patient")] if "patient" in read.names else []
    columns["patient"] = _joined(patients, read.num_rows).cast(pa.string())
    for name in ("modality", "source", "license"):
        columns[name] = _coded_column(read, name)
    columns["text"] = _joined([_texts(read, name) for name in captions], read.num_rows)
    columns["report"] = _joined([_texts(read, "report")] if "report" in read.names else [], read.num_rows)
    others = {name: read.arrow.column(name) for name in read.names if name not in (*COLUMNS, *TEXTS)}
    return pa.table({**columns, **others})


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
    compute, (joined, *others) = _compute(), columns
    newline, nothing = (pa.scalar(text, pa.large_string()) for text in ("\n", ""))
    for column in others:  # Arrow's own way to skip nulls loses a row in which all are null
        are_both = compute.and_(compute.not_equal(joined, ""), compute.not_equal(column, ""))
        joined = compute.binary_join_element_wise(joined, compute.if_else(are_both, newline, nothing), column, nothing)
    return joined


def _compute() -> Any:
    """Return Arrow's functions, which no type checker sees."""
    import pyarrow.compute

    return pyarrow.compute

"""The shard folder as a whole: its index and its two tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_folder, in_use, write_file
from medclip.files.stores import Place, RemotePath, is_url, place_of, read_whole
from medclip.files.tables.parquet_stream import iterate_stream
from medclip.files.tables.write import parquet_bytes
from medclip.shards.reading.shard_cache import ShardCache

FORMAT = "medclip-shards"
FORMAT_VERSION = 1
INDEX = "index.json"
SAMPLES, REJECTS = "samples.parquet", "rejects.parquet"
SAMPLE_COLUMNS = ("key", "split", "shard", "offset", "size", "sha256", "patient", "modality", "adapter", "source")
LICENSE = "license"
"""A column of samples.parquet that folders of earlier versions lack."""
NUM_VIEWS = "num_views"
"""Another one: images in a sample, 1 but for mammograms that are grouped."""
STRATUM = "stratum"
"""A third one, there where the table that shards are built from has it: what training draws samples by, such as the
finding."""
SYNTHETIC = "synthetic"
"""A fourth one, there where some samples were made by `medclip pairs synthesize`: how; null for images of patients."""
HELD_OUT = ("val", "valid", "validation", "dev", "test", "holdout")
"""Names of splits that figures of patients are measured on."""
EDIT_PAIR = "edit_pair"
"""A fifth one, there where samples are halves of pairs that differ by one edit: the first pair of a sample."""
GROUP = "group"
"""Among the options of the index, where samples are examinations or breasts of several views."""
Stored = Literal["images", "volumes", "signals"]
"""What samples hold. Other than images it stands among the options of the index, as a key of its own."""
STORED_WORDS: Mapping[Stored, str] = {"images": "images", "volumes": "volumes or loops", "signals": "ECGs"}
REJECT_COLUMNS = ("row", "sha256", "reason", "message", "modality", "adapter", "source")
_INTEGERS = ("offset", "size", "row", NUM_VIEWS)
_BATCH_ROWS = 1 << 16


def read_index(folder: Place | str) -> dict[str, Any]:
    """Read index.json, of a folder here or in a store.

    Raises:
        MedclipError: MISSING_FILE when the folder holds no shards, TABLE_INVALID when it is of another version
            or lacks something.
    """
    folder = place_of(folder)
    path = folder / INDEX
    content = _index_bytes(folder)
    try:
        index = json.loads(content.decode("utf-8"))
        ours = index["format"] == FORMAT and index["version"] == FORMAT_VERSION
    except (ValueError, KeyError, TypeError, RecursionError):
        ours = False
        index = {}
    if not ours:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"this index is not {FORMAT} version {FORMAT_VERSION}.",
            where=path,
            hint="Build again.",
        )
    faults = list(_faults(index))
    if faults:
        raise MedclipError(
            Reason.TABLE_INVALID, f"this index is damaged: {'; '.join(faults[:3])}.", where=path, hint="Build again."
        )
    return index


def _index_bytes(folder: Place) -> bytes:
    absent = MedclipError(
        Reason.MISSING_FILE,
        f"there are no shards here (no {INDEX}).",
        where=folder,
        hint="`medclip shards build` and `medclip shards index` make them.",
    )
    if isinstance(folder, RemotePath):
        try:
            return read_whole(folder / INDEX)
        except MedclipError as e:
            raise (absent if e.reason is Reason.MISSING_FILE else e) from None
    path = folder / INDEX
    if os.path.isfile(path):  # Path.is_file raises for a name that is too long
        return path.read_bytes()
    if not os.path.exists(folder):
        raise MedclipError(
            Reason.MISSING_FILE, "there is no such file or folder.", where=folder, hint="Check the path."
        )
    raise absent


def _faults(index: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an index lacks that every reader counts on."""
    for name, kind in (("tables", dict), ("counts", dict), ("shards", list), ("preprocessing", dict)):
        if not isinstance(index.get(name), kind):
            yield f"{name!r} is missing or of another form"
    counts = index.get("counts")
    if isinstance(counts, dict):
        for name in ("by_split", "by_modality", "by_reason"):
            if not isinstance(counts.get(name), dict):
                yield f"'counts.{name}' is missing or of another form"
    shards = index.get("shards")
    for number, shard in enumerate(shards if isinstance(shards, list) else (), 1):
        if not isinstance(shard, dict) or not all(isinstance(shard.get(k), str) for k in ("name", "sha256")):
            yield f"entry {number} of 'shards' has no name and hash"
        elif shard["name"] in ("", ".", "..") or {"/", "\\", "\0"} & set(shard["name"]):
            yield f"entry {number} of 'shards' is called like a place elsewhere"
        elif not isinstance(shard.get("samples"), int):
            yield f"entry {number} of 'shards' has no number of samples"
    foreign = index.get("foreign")
    if foreign is not None and not (isinstance(foreign, dict) and {"source", "license", "base"} <= foreign.keys()):
        yield "'foreign' is of another form"


def claim_shards(out: Path) -> None:
    """Refuse a folder that new shards, which appear whole, cannot go to: it must be new or empty.

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    if claim_folder(out, "shards", marks=(INDEX,), in_one_step=True):
        raise in_use(out, "this folder holds shards already", "Name another folder, or remove this one first.")


def shard_folder(folder: Place, index: Mapping[str, Any]) -> Place:
    """Return the folder that the tars lie in: `folder` itself, or where an index of foreign tars says."""
    base = str(index["foreign"]["base"]) if "foreign" in index else "."
    return place_of(base) if is_url(base) else folder / base


def refuse_tars_in_two_splits(folders: Sequence[Place], indexes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a tar that stands in two splits, of one folder or of several, whatever it is called.

    Raises:
        MedclipError: PATIENT_OVERLAP.
    """
    places: dict[str, tuple[str, str]] = {}
    for folder, index in zip(folders, indexes, strict=True):
        for shard in index["shards"]:
            name, split = str(shard["name"]), str(shard.get("split"))
            first, side = places.setdefault(shard["sha256"], (name, split))
            if side != split and shard["samples"]:
                raise MedclipError(
                    Reason.PATIENT_OVERLAP,
                    f"the tar {name} of the split {split!r} is {first} of the split {side!r}, byte for byte.",
                    where=folder,
                    hint="Leave it out of one of them: what is measured on images that were trained on is too good.",
                )


def check_samples(folder: Place, index: Mapping[str, Any], *, cache: ShardCache | None = None) -> None:
    """Compare samples.parquet with the hash in the index; that of a store is compared when it comes.

    Raises:
        MedclipError: TABLE_INVALID when it was changed since the build or cannot be read.
    """
    path = folder / SAMPLES
    try:
        with open_table(folder, index, SAMPLES, cache) as file:
            if isinstance(path, Path) and hashlib.file_digest(file, "sha256").hexdigest() != index["tables"].get(
                SAMPLES
            ):
                raise _changed_table(path)
    except OSError as e:
        raise _unreadable(path, e) from e


def sample_batches(folder: Place, index: Mapping[str, Any], *, cache: ShardCache | None = None) -> Iterator[Any]:
    """Yield samples.parquet as Arrow record batches, thousands of rows at a time.

    Args:
        folder: The shard folder.
        index: Index of the folder.
        cache: Cache that a table of a store is kept in, so that it is fetched once.

    Raises:
        MedclipError: TABLE_INVALID when it cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / SAMPLES
    try:
        with open_table(folder, index, SAMPLES, cache) as file:
            names = pq.read_schema(file).names
            lacking = [name for name in (LICENSE, STRATUM, SYNTHETIC, EDIT_PAIR) if name not in names]
            columns = [
                name for name in (*SAMPLE_COLUMNS, LICENSE, STRATUM, SYNTHETIC, EDIT_PAIR) if name not in lacking
            ]
            for batch in iterate_stream(file, _BATCH_ROWS, columns):
                for name in lacking:
                    batch = batch.append_column(name, pa.nulls(len(batch), pa.string()))
                yield batch
    except (OSError, pa.ArrowException) as e:
        raise _unreadable(path, e) from e


def refuse_held_out(folder: Place, split: str, synthetic: int) -> None:
    """Refuse synthetic samples in a split that figures of patients are measured on.

    Raises:
        MedclipError: WRONG_USE.
    """
    if synthetic and split.lower() in HELD_OUT:
        raise MedclipError(
            Reason.WRONG_USE,
            f"{synthetic} of the samples of the split {split!r} are synthetic: what is measured on them is no figure "
            "of patients.",
            where=folder,
            hint="Build these shards again without them.",
        )


def _unreadable(path: Place, error: Exception) -> MedclipError:
    kind = type(error).__name__
    return MedclipError(Reason.TABLE_INVALID, f"the table of samples cannot be read ({kind}).", where=path)


def open_table(folder: Place, index: Mapping[str, Any], name: str, cache: ShardCache | None = None) -> BufferedIOBase:
    """Open one of the two tables; that of a store is fetched once and kept under its hash.

    Raises:
        OSError: A file here cannot be opened.
        MedclipError: TABLE_INVALID where it is not what the index says.
    """
    path = folder / name
    if not isinstance(path, RemotePath):
        return path.open("rb")
    try:
        return (cache or ShardCache.at()).open_now(path, str(index["tables"].get(name)))
    except MedclipError as e:
        raise (_changed_table(path) if e.reason is Reason.CORRUPT else e) from None


def _changed_table(path: Place) -> MedclipError:
    return MedclipError(
        Reason.TABLE_INVALID,
        "the table of samples was changed since it was written (its sha256 is not that of the index).",
        where=path,
        hint="Copy the folder again, or build or index it again.",
    )


def write_index(
    folder: Path,
    samples: Any,
    rejects: Sequence[Mapping[str, Any]],
    *,
    shards: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Any],
    preprocessing: Mapping[str, str],
    options: Mapping[str, Any],
    columns: Sequence[str],
    foreign: Mapping[str, Any] | None = None,
) -> None:
    """Write samples.parquet, rejects.parquet and, last, index.json.

    `samples` is a list of rows or an Arrow table from `arrow_table`; `foreign` is for tars that others wrote.
    """
    import pyarrow as pa

    hashes = {}
    sometimes = () if isinstance(samples, pa.Table) else (STRATUM, SYNTHETIC, EDIT_PAIR)
    more = [name for name in sometimes if any(row.get(name) for row in samples)]
    for name, header, rows in (
        (SAMPLES, (*SAMPLE_COLUMNS, LICENSE, NUM_VIEWS, *more), samples),
        (REJECTS, REJECT_COLUMNS, rejects),
    ):
        table = rows if isinstance(rows, pa.Table) else arrow_table(rows, header)
        content = parquet_bytes(table, compression="snappy")
        write_file(folder / name, content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    index = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "options": dict(options),
        "columns": list(columns),
        "shards": list(shards),
        "tables": hashes,
        "counts": dict(counts),
        "preprocessing": dict(preprocessing),
        **({"foreign": dict(foreign)} if foreign is not None else {}),
    }
    write_file(folder / INDEX, json.dumps(index, indent=2) + "\n")


def arrow_table(rows: Sequence[Mapping[str, Any]], header: Sequence[str]) -> Any:
    """Make an Arrow table with the columns of `header` from rows."""
    import pyarrow as pa

    schema = pa.schema([(c, pa.int64() if c in _INTEGERS else pa.string()) for c in header])
    return pa.Table.from_pylist(list(rows), schema=schema)


def counts_of(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    """Count the rows by the values of a column, in their order."""
    return dict(sorted(Counter(str(row[column]) for row in rows).items()))

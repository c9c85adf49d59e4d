"""Images and ECG records of a pile of pairs, read of shards or of a table's files when a step asks for some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.volume.voxels import middle_image
from medclip.sample import Modality, modality_of_name
from medclip.settings import Settings
from medclip.shards.reading.samples import ShardReader
from medclip.shards.stored_data import SIGNAL_FACTS, decode, decode_signal
from medclip.shards.writing.exam_groups import ReadJob, ReadResult, read_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.imaging.ecg.recording import Recording

_T = TypeVar("_T")

ReadImages = Callable[[Sequence[int]], Iterable["NDArray[np.uint8] | MedclipError"]]
ReadRecordings = Callable[[Sequence[int]], Iterable["Recording | MedclipError"]]
_MAX_SIDE = 1024
"""Longest side of images that are read of a table's files."""
_TRIED = 8
"""Files of a table's ECGs that are opened to see whether they are records, or images of sheets."""


def of_shards(
    readers: Sequence[ShardReader], max_side: int | None
) -> tuple[ReadImages, int | None, ReadRecordings | None]:
    """Return what reads the images of shards, the longest side that they have, and what reads their ECG records."""
    records = _by_number(readers, _recording_of_shards) if readers[0].holds == "signals" else None
    return _by_number(readers, _image_of_shards), max_side, records


def _by_number(
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


def of_table(
    table: pa.Table, file: str, folder: Path, settings: Settings
) -> tuple[ReadImages, None, ReadRecordings | None, NDArray[np.bool_] | None]:
    """Return what reads the images of a table, no longest side, what reads its ECG records, and which rows have one.

    Rows of ECGs are records where one of the first files is; others are images of sheets.
    """
    import pyarrow.compute as pc

    images, records = (
        _images_of_table(table, file, folder, settings),
        _recordings_of_table(table, file, folder, settings),
    )
    is_ecg = pc.equal(table.column("modality").cast("string"), str(Modality.ECG))  # pyright: ignore[reportAttributeAccessIssue]
    is_ecg_N = is_ecg.to_numpy()
    first = records(np.flatnonzero(is_ecg_N)[:_TRIED].tolist())
    if all(isinstance(one, MedclipError) for one in first):
        return images, None, None, None
    return images, None, records, is_ecg_N


def _images_of_table(table: pa.Table, file: str, folder: Path, settings: Settings) -> ReadImages:
    def read(rows: Sequence[int]) -> Iterator[NDArray[np.uint8] | MedclipError]:
        rows_M = np.asarray(rows, np.int64)
        files = table.column(file).take(rows_M).to_pylist()
        modalities = map(modality_of_name, table.column("modality").take(rows_M).to_pylist())
        named = ((name, modality) for name, modality in zip(files, modalities, strict=True) if name)
        jobs = [ReadJob(folder / name, modality, _MAX_SIDE) for name, modality in named]
        yield from _in_places(files, map(_image_of_result, read_rows(jobs, settings)))

    return read


def _recordings_of_table(table: pa.Table, file: str, folder: Path, settings: Settings) -> ReadRecordings:
    def read(rows: Sequence[int]) -> Iterator[Recording | MedclipError]:
        files = table.column(file).take(np.asarray(rows, np.int64)).to_pylist()
        jobs = [ReadJob(folder / name, Modality.ECG, _MAX_SIDE, stores="signals") for name in files if name]
        yield from _in_places(files, map(_recording_of_result, read_rows(jobs, settings)))

    return read


def _in_places(files: Sequence[str | None], results: Iterator[_T | MedclipError]) -> Iterator[_T | MedclipError]:
    """Yield the result of each row, and an error for one that names no file."""
    for name in files:
        yield next(results) if name else MedclipError(Reason.MISSING_FILE, "the row names no file.")


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

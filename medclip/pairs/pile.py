"""A pile of image-text pairs, of shards or of a table, as columns: what steps of a selection look at.

Rows are read once, in order (`pile_columns`); images and ECG records stay where they are until a step asks for some
(`pile_images`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.files.output import digest_of
from medclip.files.stores import Place, RemotePath, place_of
from medclip.files.tables.read_table import read_table
from medclip.files.tables.table import TextForm
from medclip.pairs.pile_columns import COLUMNS, FILES, TEXTS, columns_of_shards, columns_of_table
from medclip.pairs.pile_images import ReadImages, ReadRecordings, of_shards, of_table
from medclip.progress import Progress, Silent
from medclip.settings import Settings
from medclip.shards.folder import read_index
from medclip.shards.reading.samples import ShardReader, no_split

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from medclip.imaging.ecg.recording import Recording


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
    record_rows_N: NDArray[np.bool_] | None = None
    """Rows that hold an ECG record and no image; None for all of a pile that reads records."""

    def is_record(self, rows_M: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return whether rows, or all of them, hold an ECG record and no image; bool [M]."""
        if self.record_rows_N is None:
            return np.full(len(self) if rows_M is None else len(rows_M), self.read_recordings is not None)
        return self.record_rows_N if rows_M is None else self.record_rows_N[rows_M]

    def __len__(self) -> int:
        """Return N."""
        return self.table.num_rows

    def looks(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8] | Recording | MedclipError]:
        """Yield the image, uint8 [H, W, 3], or the ECG record of each of some rows; an error in the place of one that
        cannot be read.
        """
        are_records = self.is_record(np.asarray(rows, np.int64)).tolist()
        of_kinds = list(zip(rows, are_records, strict=True))
        images = iter(self.images([row for row, is_record in of_kinds if not is_record]))
        records = iter(self.recordings([row for row, is_record in of_kinds if is_record]))
        for is_record in are_records:
            yield next(records) if is_record else next(images)

    def recordings(self, rows: Sequence[int]) -> Iterator[Recording | MedclipError]:
        """Yield the ECG record of each of some rows; an error in the place of one that cannot be read."""
        if self.read_recordings is not None:
            yield from self.read_recordings(rows)

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

    def words(self, rows_M: NDArray[np.int64] | None = None, *, report_as_line: bool = False) -> list[str]:
        """Return the words of each pair, of all rows or of some: its captions, or its report where there are none.

        Args:
            rows_M: int64 [M], numbers of rows.
            report_as_line: Whether the lines of a report become one, as captions are a line each.
        """
        texts = self.cells("text", rows_M)
        if "" not in texts:
            return texts
        reports = self.cells("report", rows_M)
        if report_as_line:
            reports = [" ".join(report.split()) for report in reports]
        return [text or report for text, report in zip(texts, reports, strict=True)]


@dataclass(frozen=True, eq=False)
class Words:
    """Words of some rows, read a slice at a time: as one list those of millions of captions take GB."""

    pile: Pile
    rows_M: NDArray[np.int64]

    def __len__(self) -> int:
        """Return M."""
        return len(self.rows_M)

    def __getitem__(self, part: slice) -> list[str]:
        """Return the words of a slice."""
        return self.pile.words(self.rows_M[part])


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
    record has neither texts nor a report has the caption that the build drew of its labels. A sample whose record
    cannot be read is a pair without a text.

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
    index = read_index(folder)
    splits = [split] if split is not None else [name for name, number in index["counts"]["by_split"].items() if number]
    if not splits:
        raise MedclipError(Reason.NOTHING_TO_DO, "there is no sample in these shards.", where=folder)
    readers = [ShardReader(folder, name) for name in splits]
    progress.stage("Pairs", sum(map(len, readers)))
    table = columns_of_shards(readers, progress)
    content = [index["tables"], [shard["sha256"] for shard in index["shards"]], index.get("foreign") is not None, split]
    max_side = (index.get("options") or {}).get("max_side")
    return Pile(table, Path(str(folder)), digest_of(content), *of_shards(readers, max_side))


def _table_pile(path: Path, split: str | None, images: Path | None, form: TextForm | None, settings: Settings) -> Pile:
    import pyarrow.compute as pc

    read = read_table(path, form=form).with_names((*COLUMNS, *FILES, *TEXTS))
    file = next((name for name in FILES if name in read.names), None)
    if file is None:
        file = read.need(FILES[0], "the path of each image")
    table = columns_of_table(read, file)
    if split is not None:
        names = table.column("split").cast("string")
        if split not in (splits := sorted(names.unique().to_pylist())):
            raise no_split(split, path, [{"counts": {"by_split": splits}}])
        table = table.filter(pc.equal(names, split))  # pyright: ignore[reportAttributeAccessIssue]
    with path.open("rb") as stream:
        content = [hashlib.file_digest(stream, "sha256").hexdigest(), split]
    if form is not None and form != TextForm():
        content.append(form.encoding)
    return Pile(table, path, digest_of(content), *of_table(table, file, images or path.parent, settings))

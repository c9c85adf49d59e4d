"""Read a folder of embeddings: what is known of its files, units and studies, and vectors in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import LEVELS, EmbeddingPack, Level, from_dict
from medclip.embeddings.write_embeddings import FAILED_UNITS, FORMAT, NOTE, TABLES, THUMBNAILS
from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.pseudonyms import keyed_hash
from medclip.models.packs.manifest import file_sha256
from medclip.result import Result
from medclip.wording import number

if TYPE_CHECKING:
    import pyarrow as pa

FILES, RUN = "files.parquet", "run.json"
BLOCK_ROWS = 8192
_LARGE = ("vector", "look")
"""Columns that are read by methods of their own."""
_HASHED_BYTES = 64 << 20
"""Tables up to this are hashed when a folder is opened. Of larger ones the size is compared, and each page that is
read with its own checksum."""


def is_embeddings(path: str | Path) -> bool:
    """Whether a path is a folder of embeddings, complete or not; looks for one file, and imports nothing heavy."""
    return os.path.isfile(os.path.join(path, NOTE))


def open_embeddings(folder: str | Path | Embeddings) -> Embeddings:
    """Open a folder that `medclip embed` wrote.

    Args:
        folder: Folder that was given as `out`; what is open already is returned as it is.

    Raises:
        MedclipError: MISSING_FILE for a folder that is none, or is half written; OUTPUT_IN_USE for the format of
            another version; CHANGED where a table is not the one that was written.

    Example:
        >>> open_embeddings("/no/such/folder")
        Traceback (most recent call last):
        medclip.errors.MedclipError: /no/such/folder: there are no embeddings here. Make them with medclip embed.
    """
    if isinstance(folder, Embeddings):
        return folder
    folder = Path(folder)
    if not is_embeddings(folder):
        raise MedclipError(
            Reason.MISSING_FILE, "there are no embeddings here.", where=folder, hint="Make them with medclip embed."
        )
    note = _read_json(folder / NOTE)
    if note.get("format") != FORMAT:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"these embeddings have format {note.get('format')}, this medclip reads {FORMAT}.",
            where=folder,
            hint="Embed the files again, or use the version of medclip that wrote them.",
        )
    if not note.get("complete") or not os.path.isfile(folder / RUN):
        raise MedclipError(
            Reason.MISSING_FILE,
            "these embeddings are not complete: the run that writes them was stopped, or goes on.",
            where=folder,
            hint="Run the same medclip embed again; it goes on where it was stopped.",
        )
    try:
        views, units, studies = (int(note[f"num_{level}"]) for level in LEVELS)
        pack = from_dict(note["pack"])
        dim, dtype, sizes, hashes = int(note["dim"]), str(note["dtype"]), note["size_bytes"], note["sha256"]
    except (KeyError, TypeError, ValueError) as e:
        raise _unreadable(folder / NOTE) from e
    for name in TABLES:
        _check(folder / name, sizes.get(name), hashes.get(name))
    return Embeddings(folder, pack, dim, dtype, views, units, studies)


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(Result):
    """A folder of embeddings.

    Tables are Arrow tables without vectors, in the order of files; row i of `.units` is row i of `.vectors("units")`.
    """

    folder: Path
    pack: EmbeddingPack
    dim: int
    """D, the length of a vector."""
    dtype: str
    """How vectors are stored: float32 or float16. They are read as float32."""
    num_views: int
    num_units: int
    num_studies: int
    already_finished: bool = False
    """The folder held these very embeddings, complete; nothing was computed or rewritten."""
    path_key: bytes | None = None
    """Identity key that paths are hashed with, once it is known (`embeddings_reader.open_for`)."""
    shard: str | None = None
    """Which shard of a run it is, as "2/8": it has counts and no vectors until `medclip.runs.merge` puts the shards
    together."""
    own_counts: Mapping[str, int] | None = None
    """Of a shard and of a dry run, which have no tables: what `counts` returns."""
    published: str | None = None
    """URL of the folder in an object store that has copies of the tables; `folder` is then the work folder."""
    planned: Mapping[str, Any] | None = None
    """Of a dry run, which wrote nothing: as `medclip.ScoreRun.planned`."""
    _files: pa.Table | None = None
    """Of a dry run."""
    _keep: object = None
    """Keeps a temporary folder alive."""

    @property
    def hashes_paths(self) -> bool:
        """Whether keyed hashes stand in the place of paths."""
        return bool(self.run.get("identity", {}).get("hash_paths"))

    @property
    def counts(self) -> dict[str, int]:
        """files, embedded, skipped, failed, studies."""
        return dict(self.run["counts"] if self.own_counts is None else self.own_counts)

    @property
    def exit_code(self) -> int:
        """0 when every file was embedded or skipped, 3 when some failed."""
        return 3 if self.counts["failed"] else 0

    @property
    def digest(self) -> str:
        """Hash of embeddings.json, which holds the hash of every table."""
        return file_sha256(self.folder / NOTE)

    def check_pack(self, digest: str, *, image_tower: str = "", preprocessing: str = "") -> None:
        """Refuse a pack whose vectors these are not.

        Args:
            digest: sha256 of the pack's manifest (`medclip.models.packs.manifest.pack_digest`).
            image_tower: Hash of its image tower; a pack that was adapted without changing the tower has its base's.
            preprocessing: Digest of its preprocessing.

        Raises:
            MedclipError: WRONG_USE.
        """
        if self.pack.answers_for(digest, image_tower=image_tower, preprocessing=preprocessing):
            return
        raise MedclipError(
            Reason.WRONG_USE,
            f"these embeddings are of another pack: {self.pack.name} {self.pack.version}.",
            where=self.folder,
            hint="Name that pack with --model, or embed the files anew with this one.",
        )

    def check_key(self, key: bytes) -> None:
        """Refuse an identity key that is not the one of these embeddings.

        Raises:
            MedclipError: WRONG_USE.
        """
        if keyed_hash("run", "identity", key) != self.run["identity"]["key"]:
            raise MedclipError(
                Reason.WRONG_USE,
                "these embeddings were made with another identity key, so that patients, studies and hashed paths "
                "have other hashes.",
                where=self.folder,
                hint="Name that key with --key-file.",
            )

    @cached_property
    def run(self) -> Mapping[str, Any]:
        """What run.json says: version, model, options, input, counts."""
        return _read_json(self.folder / RUN)

    @property
    def files(self) -> pa.Table:
        """One row for each input path, as of a scoring run: status, reason, study, modality, headers and more."""
        return self._table(FILES) if self._files is None else self._files

    @property
    def views(self) -> pa.Table:
        """One row for each image that the model saw: row (of its unit), number, study, patient, modality."""
        return self._table("views.parquet")

    @property
    def units(self) -> pa.Table:
        """One row for each unit: row of its first file, study, patient, modality, kind, sha256, headers and more."""
        return self._table("units.parquet")

    @property
    def studies(self) -> pa.Table:
        """One row for each study: row of its first file, study, patient, modality, num_units, num_views."""
        return self._table("studies.parquet")

    @property
    def failed_units(self) -> pa.Table:
        """The units that failed after their modality was known."""
        return self._table(FAILED_UNITS)

    def columns(
        self, table: Level | Literal["files"], names: Sequence[str], rows: Sequence[int] | None = None
    ) -> pa.Table:
        """Return some columns of a table, perhaps of some rows alone: far less to read than the table.

        Args:
            table: A level, or files.
            names: Names of the columns.
            rows: Numbers of files, as the column `row` has them; all where None.

        Raises:
            MedclipError: CHANGED for a damaged table.
        """
        import pyarrow.parquet as pq

        path = self.folder / f"{table}.parquet"
        with _damaged(path):
            chosen = None if rows is None else [("row", "in", list(rows))]
            checked = path.name != FILES
            return pq.read_table(path, columns=list(names), filters=chosen, page_checksum_verification=checked)

    def vectors(self, level: Level = "units") -> NDArray[np.float32]:
        """Return all vectors of a level.

        Args:
            level: views (the model's own features), units or studies (normalised means).

        Returns:
            float32 [N, D] of unit norm, in the order of the level's table.

        Raises:
            MedclipError: WRONG_USE for another level; CHANGED for a damaged table.
        """
        vectors = np.empty((self._num(level), self.dim), np.float32)
        start = 0
        for block in self.blocks(level):
            vectors[start : start + len(block)] = block
            start += len(block)
        return vectors

    def blocks(self, level: Level = "units", rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of a level, some at a time: memory is bounded however many there are.

        Args:
            level: Level, as `vectors` takes it.
            rows: Vectors of a block, at most.

        Yields:
            float32 [n, D].
        """
        import pyarrow.parquet as pq

        self._num(level)
        path = self.folder / f"{level}.parquet"
        with _damaged(path), pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            for batch in file.iter_batches(rows, columns=["vector"]):
                flat = batch.column(0).flatten().to_numpy(zero_copy_only=False)
                yield flat.reshape(-1, self.dim).astype(np.float32, copy=False)

    def take(self, level: Level, places: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return some vectors of a level; of its table only the parts that hold them are read, one at a time.

        Args:
            level: Level, as `vectors` takes it.
            places: int [N], rows of the level's table in any order.

        Returns:
            float32 [N, D].
        """
        import pyarrow.parquet as pq

        self._num(level)
        path = self.folder / f"{level}.parquet"
        vectors, start = np.empty((len(places), self.dim), np.float32), 0
        with _damaged(path), pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                chosen = np.flatnonzero((places >= start) & (places < stop))
                if len(chosen):
                    column = file.read_row_group(group, columns=["vector"]).column(0).combine_chunks()
                    flat = column.flatten().to_numpy(zero_copy_only=False)  # pyright: ignore
                    vectors[chosen] = flat.reshape(-1, self.dim)[places[chosen] - start]
                start = stop
        return vectors

    def file_blocks(self, rows: int = BLOCK_ROWS) -> Iterator[pa.Table]:
        """Yield `files`, some rows at a time.

        Args:
            rows: Highest number of rows.

        Raises:
            MedclipError: CHANGED for a damaged table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / FILES
        with _damaged(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                yield pa.Table.from_batches([batch])

    def thumbnail(self, row: int) -> bytes:
        """Return the small image of the unit whose first file has this row.

        Returns:
            JPEG bytes; empty where none is kept, or text is burned into the image.
        """
        import pyarrow.parquet as pq

        path = self.folder / THUMBNAILS
        with _damaged(path):
            table = pq.read_table(path, filters=[("row", "=", row)], page_checksum_verification=True)
        return table.column("thumbnail")[0].as_py() if table.num_rows else b""

    def thumbnails(self) -> Iterator[tuple[int, bytes]]:
        """Yield row and JPEG bytes of all small images."""
        import pyarrow.parquet as pq

        path = self.folder / THUMBNAILS
        with _damaged(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(1024):
                yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    def looks(self) -> Iterator[tuple[int, bytes]]:
        """Yield row and `medclip.imaging.perceptual_hash.Look`, as bytes, of all units."""
        import pyarrow.parquet as pq

        path = self.folder / "units.parquet"
        with _damaged(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(1024, columns=["row", "look"]):
                yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    def burned_in_rows(self) -> list[int]:
        """Return the rows of units that no small image is shown of, since text is burned in."""
        units = self.columns("units", ["row", "burned_in"])
        return units.filter(units.column("burned_in")).column("row").to_pylist()

    def _refuse_without(self) -> None:
        if self.own_counts is not None:
            what = "a dry run writes no vectors" if self.planned is not None else "a shard has counts and no vectors"
            hint = (
                "Run it without the dry run." if self.planned is not None else "Put all together: medclip runs merge."
            )
            raise MedclipError(Reason.MISSING_FILE, f"{what}.", where=self.folder, hint=hint)

    def _num(self, level: str) -> int:
        self._refuse_without()
        if level not in LEVELS:
            raise MedclipError(
                Reason.WRONG_USE, f"there are no vectors of {level!r}.", hint=did_you_mean(level, LEVELS, "Levels are")
            )
        return getattr(self, f"num_{level}")

    def _table(self, name: str) -> pa.Table:
        import pyarrow.parquet as pq

        self._refuse_without()
        path = self.folder / name
        with _damaged(path):
            names = [column for column in pq.read_schema(path).names if column not in _LARGE]
            return pq.read_table(path, columns=names, page_checksum_verification=name != FILES)

    def _facts(self) -> dict[str, object]:
        units, studies = number(self.num_units), number(self.num_studies)
        return {
            "views": f"{number(self.num_views)} of {units} units in {studies} studies",
            "vectors": f"{self.dim} numbers each, {self.dtype}",
            "pack": f"{self.pack.name} {self.pack.version}",
            "folder": self.folder,
            **({} if self.published is None else {"published": self.published}),
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [] if self.own_counts is not None else self.units.slice(0, most).to_pylist()


def _check(path: Path, size: Any, sha256: Any) -> None:
    """Refuse a table that is not the one that was written."""
    if not path.is_file():
        raise MedclipError(
            Reason.MISSING_FILE,
            f"{path.name} is missing beside these embeddings.",
            where=path.parent,
            hint="Run the same medclip embed again.",
        )
    num_bytes = path.stat().st_size
    if num_bytes != size or (num_bytes <= _HASHED_BYTES and file_sha256(path) != sha256):
        raise _changed(path)


def _changed(path: Path) -> MedclipError:
    return MedclipError(
        Reason.CHANGED,
        "this table is not the one that medclip embed wrote.",
        where=path,
        hint="Run the same medclip embed again; it writes the tables from its ledger.",
    )


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged or missing file into one sentence."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as e:
        raise _changed(path) from e


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise _unreadable(path) from e
    if not isinstance(values, dict):
        raise _unreadable(path)
    return values


def _unreadable(path: Path) -> MedclipError:
    return MedclipError(
        Reason.CORRUPT, f"{path.name} is not what medclip embed wrote.", where=path, hint="Embed the files again."
    )

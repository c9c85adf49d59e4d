"""Write a folder of embeddings: tables of vectors in the order of files; equal units, equal bytes.

| file | content |
|---|---|
| views.parquet | one row for each image that the model saw: row of its unit, number in it, study, vector ... |
| units.parquet | one row for each unit: what is known of it, its image's hashes, and the normalised mean of its views |
| studies.parquet | one row for each study: row of its first file, and the normalised mean of all its views |
| failed_units.parquet | units that failed after their modality was known, without vectors |
| thumbnails.parquet | small images by row, those that have no text burned in |
| embeddings.json | format, pack, size and hash of each table; `complete` only once all of them are there |

It is personal data: names of files, hashes of patients, and vectors that people may be known again by. What is written
is its owner's alone, as everything that medclip writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import FACTS, EmbeddedUnit, EmbeddingPack
from medclip.files.output import new_file, write_file
from medclip.models.packs.manifest import file_sha256
from medclip.models.prototypes.class_vectors import mean_vector, normalised

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = "embeddings.json"
"""By what a folder of embeddings is known, from its first moment on."""
FORMAT = 1
"""Raised when columns change."""
VIEWS, UNITS, STUDIES = "views.parquet", "units.parquet", "studies.parquet"
FAILED_UNITS, THUMBNAILS = "failed_units.parquet", "thumbnails.parquet"
TABLES = (VIEWS, UNITS, STUDIES, FAILED_UNITS, THUMBNAILS)
_GROUP_BYTES = 16 << 20
"""Bytes of vectors in one row group: what is held in memory while they are written or read in blocks."""
_BYTES_OF = {"float32": 4, "float16": 2}


def begin_embeddings(folder: Path) -> None:
    """Mark a folder as one that will hold embeddings; until they are complete it says so."""
    _write_note(folder, {"complete": False})


def write_embeddings(
    folder: Path,
    units: Iterable[EmbeddedUnit],
    pack: EmbeddingPack,
    *,
    dim: int,
    dtype: str = "float32",
    by_study: Iterable[EmbeddedUnit] | None = None,
    failed: Iterable[EmbeddedUnit] = (),
    thumbnails: Iterable[tuple[int, bytes]] = (),
) -> None:
    """Write all tables of a folder, each whole or not at all, and embeddings.json last.

    Args:
        folder: The folder; files.parquet, run.json and the ledger are its run's business.
        units: Units by row.
        pack: Pack that computed the vectors.
        dim: D, the length of a vector; stated, since there may be no vector.
        dtype: float32 or float16: how vectors are stored.
        by_study: The same units, those of a study side by side and studies by their first row; None sorts `units`.
        failed: Units without vectors, by row.
        thumbnails: Row of a unit's first file, and JPEG bytes; by row.
    """
    begin_embeddings(folder)
    if by_study is None:
        units = list(units)
        first = {unit.study: unit.row for unit in reversed(units)}
        by_study = sorted(units, key=lambda unit: (first[unit.study], unit.row))
    counts = _write_views_and_units(folder, units, dim, dtype)
    counts["num_studies"] = _write_studies(folder, by_study, dim, dtype)
    facts = ((tuple(getattr(unit, name) for name in FACTS), None) for unit in failed)
    _write(folder / FAILED_UNITS, _unit_columns(), facts, dim, None)
    images = [("row", "int64"), ("thumbnail", "binary")]
    _write(folder / THUMBNAILS, images, ((values, None) for values in thumbnails), dim, None)
    hashes = {name: file_sha256(folder / name) for name in TABLES}
    sizes = {name: (folder / name).stat().st_size for name in TABLES}
    facts_of = {"dim": dim, "dtype": dtype, **counts, "pack": pack.to_dict(), "sha256": hashes, "size_bytes": sizes}
    _write_note(folder, {"complete": True, **facts_of})


def remove_thumbnails(folder: Path) -> None:
    """Write an empty table in the place of the small images of a complete folder; all else stays as it is."""
    import pyarrow.parquet as pq

    note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    with new_file(folder / THUMBNAILS) as draft:
        pq.write_table(pq.read_schema(folder / THUMBNAILS).empty_table(), draft)
    note["sha256"][THUMBNAILS] = file_sha256(folder / THUMBNAILS)
    note["size_bytes"][THUMBNAILS] = (folder / THUMBNAILS).stat().st_size
    write_file(folder / NOTE, json.dumps(note, indent=1, sort_keys=True) + "\n")


def _write_note(folder: Path, values: dict[str, Any]) -> None:
    write_file(folder / NOTE, json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True) + "\n")


_Columns = Sequence[tuple[str, str]]
_Rows = Iterable[tuple[tuple[Any, ...], NDArray[np.float32] | None]]
"""The values of a row, and its vector."""

_OF_ALL = [("study", "string"), ("patient", "string"), ("modality", "string")]
_TYPES = {"look": "binary", "burned_in": "bool", "stranger": "bool"}
_NUMBERS = {"row", "instead_of", "num_views"}


def _unit_columns() -> list[tuple[str, str]]:
    return [(name, "int64" if name in _NUMBERS else _TYPES.get(name, "string")) for name in FACTS]


def _write_views_and_units(folder: Path, units: Iterable[EmbeddedUnit], dim: int, dtype: str) -> dict[str, int]:
    import pyarrow.parquet as pq

    counts = {"num_units": 0, "num_views": 0}
    views = _Group([("row", "int64"), ("number", "int64"), *_OF_ALL], dim, dtype)
    means = _Group([*_unit_columns(), ("num_views", "int64")], dim, dtype)
    with (
        new_file(folder / VIEWS) as first,
        new_file(folder / UNITS) as second,
        pq.ParquetWriter(first, **views.format) as to_views,
        pq.ParquetWriter(second, **means.format) as to_units,
    ):
        for unit in units:
            of_all = (unit.study, unit.patient, unit.modality)
            for number, feature in enumerate(unit.features):
                views.add((unit.row, number, *of_all), feature)
            facts = tuple(getattr(unit, name) for name in FACTS)
            means.add((*facts, len(unit.features)), mean_vector(unit.features))
            counts["num_units"] += 1
            counts["num_views"] += len(unit.features)
            for group, writer in ((views, to_views), (means, to_units)):
                if group.is_full:
                    writer.write_table(group.take())
        to_views.write_table(views.take())
        to_units.write_table(means.take())
    return counts


def _write_studies(folder: Path, by_study: Iterable[EmbeddedUnit], dim: int, dtype: str) -> int:
    num_studies = 0

    def rows() -> Iterator[tuple[tuple[Any, ...], NDArray[np.float32]]]:
        nonlocal num_studies
        for study, members in groupby(by_study, key=lambda unit: unit.study):
            total = np.zeros(dim, np.float64)
            first, num_units, num_views = None, 0, 0
            for unit in members:
                first = first or unit
                total += unit.features.sum(axis=0, dtype=np.float64)
                num_units += 1
                num_views += len(unit.features)
            assert first is not None
            num_studies += 1
            yield (first.row, study, first.patient, first.modality, num_units, num_views), normalised(total)

    columns = [("row", "int64"), *_OF_ALL, ("num_units", "int64"), ("num_views", "int64")]
    _write(folder / STUDIES, columns, rows(), dim, dtype)
    return num_studies


def _write(path: Path, columns: _Columns, rows: _Rows, dim: int, dtype: str | None) -> None:
    import pyarrow.parquet as pq

    group = _Group(columns, dim, dtype)
    with new_file(path) as draft, pq.ParquetWriter(draft, **group.format) as writer:
        for values, vector in rows:
            group.add(values, vector)
            if group.is_full:
                writer.write_table(group.take())
        writer.write_table(group.take())


class _Group:
    """Rows that become one row group of a Parquet file. Vectors are stored plainly: they do not get smaller."""

    def __init__(self, columns: _Columns, dim: int, dtype: str | None) -> None:
        import pyarrow as pa

        self._dim, self._dtype = dim, dtype
        fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns]
        if dtype is not None:
            fields.append(pa.field("vector", pa.list_(pa.type_for_alias(dtype), dim)))
        self._schema = pa.schema(fields)
        self._names = [name for name, _ in columns]
        self._rows_per_group = max(1024, _GROUP_BYTES // (dim * _BYTES_OF[dtype])) if dtype else 20_000
        self._values: list[tuple[Any, ...]] = []
        self._vectors: list[NDArray[np.float32]] = []

    @property
    def format(self) -> dict[str, Any]:
        """How the file is written: arguments of a ParquetWriter."""
        texts = [name for name in self._names if str(self._schema.field(name).type) == "string"]
        return {
            "schema": self._schema,
            "compression": {**dict.fromkeys(self._names, "zstd"), "vector.list.element": "none"},
            "use_dictionary": texts,
            "write_statistics": ["row"],
            "write_page_checksum": True,
            "version": "2.6",
        }

    def add(self, values: tuple[Any, ...], vector: NDArray[np.float32] | None) -> None:
        """Take one row."""
        self._values.append(values)
        if vector is not None:
            self._vectors.append(vector)

    @property
    def is_full(self) -> bool:
        """Whether it is time to write."""
        return len(self._values) >= self._rows_per_group

    def take(self) -> pa.Table:
        """Return the rows, and begin anew."""
        import pyarrow as pa

        columns: list[Any] = [
            pa.array([values[place] for values in self._values], self._schema.field(name).type)
            for place, name in enumerate(self._names)
        ]
        if self._dtype is not None:
            flat = np.array(self._vectors, self._dtype).ravel()
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), self._dim))
        self._values, self._vectors = [], []
        return pa.table(columns, schema=self._schema)

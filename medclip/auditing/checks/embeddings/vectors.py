"""One vector for each row of a cohort, read from a file or made from the images; and what is said of its groups.

Exact counts of groups that are shown would give away those of groups that are not, by subtraction; so counts in notes
are rounded, and values have four digits.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.tables.parquet_stream import most_unpacked, too_large
from medclip.files.tables.read_table import read_open_table
from medclip.statistics.cohort import CONFLICT, MISSING, Attribute
from medclip.statistics.estimate import Estimate
from medclip.statistics.resampling.resampled import interval_of, share
from medclip.statistics.resampling.standard_errors import effective_patients
from medclip.statistics.resampling.sums import ratios
from medclip.wording import by_reason, count, number

if TYPE_CHECKING:
    import pyarrow as pa

    from medclip.embeddings.open_embeddings import Embeddings as StoredEmbeddings
    from medclip.files.tables.table import Table
    from medclip.models.inputs.preprocess import Images
    from medclip.models.model import Model
    from medclip.sample import Modality
    from medclip.settings import Settings

Also = Callable[["Images"], Any]
"""Called with the views of one image as the model takes them, while they are at hand."""
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One unit vector for each row; NaN where there is none."""

    vectors_ND: NDArray[np.float32]
    hashes: tuple[str, ...] = ()
    """sha256 of each row's file, "" where it could not be read; none at all where vectors came from a file."""
    also: tuple[Any, ...] = ()
    """What the function `also` gave for each row; None where the image could not be read."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """Why rows have no vector, and how many: reasons of `medclip.errors`, or "not in the file"."""

    @property
    def there_N(self) -> NDArray[np.bool_]:
        """Which rows have a vector."""
        return ~np.asarray(np.isnan(self.vectors_ND).any(axis=1))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what is missing, without names."""
        if not self.problems:
            return ()
        lacking = f"{number(sum(self.problems.values()))} of {count(len(self.vectors_ND), 'row')}"
        why = by_reason(self.problems)
        return (f"Without an embedding, and left out of what is said of embeddings: {lacking} ({why}).",)


def unit_vectors(values_ND: NDArray[Any], where: object = None) -> NDArray[np.float32]:
    """Scale rows to length 1; a row that is not finite, or has no direction, becomes NaN.

    Args:
        values_ND: Any numbers, [N, D].
        where: Source of the values, for errors.

    Returns:
        float32 [N, D].

    Raises:
        MedclipError: TABLE_INVALID where the array has another shape than [N, D], or holds no real numbers.
    """
    array = np.asarray(values_ND)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"embeddings are numbers of shape [rows, dimensions]; these are {array.dtype} {list(array.shape)}.",
            where=where,
        )
    values = array.astype(np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    values[bad] = 0
    largest = np.abs(values).max(axis=1, initial=0)  # squares of huge or tiny values would not fit
    values /= np.where(largest > 0, largest, 1)[:, None]
    norms = np.linalg.norm(values, axis=1)
    values[norms == 0] = np.nan
    return (values / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32)


def read_embeddings(path: str | Path, keys: Sequence[str], *, key: str | None = None) -> Embeddings:
    """Read the vectors of rows from a file.

    Args:
        path: A CSV, TSV or Parquet file, whatever its suffix, with a column of keys and one numeric column for each
            dimension, or (Parquet) one column of lists; or a NumPy .npz file with the arrays `keys` (text [M]) and
            `vectors` (numbers [M, D]). Nothing pickled is read.
        keys: The key of each row, as in the cohort.
        key: Name of the table's column of keys; found where it is called `key` or is the only one of text.

    Returns:
        One vector for each key, in their order; rows of the file that no key asks for are passed over.

    Raises:
        MedclipError: MISSING_FILE; TABLE_INVALID for another form, repeated keys, lists of unequal length, or a file in
            which none of the keys is found.
    """
    file = Path(path)
    if not os.path.isfile(file):
        raise MedclipError(Reason.MISSING_FILE, "there is no such file of embeddings.", where=file)
    with file.open("rb") as stream:
        is_npz = stream.read(4) == _ZIP
        stream.seek(0)
        names, values = _read_npz(stream, file) if is_npz else _of_table(read_open_table(stream, file), key)
    if len(names) != len(values):
        raise MedclipError(Reason.TABLE_INVALID, f"{len(names)} keys, but {len(values)} vectors.", where=file)
    row_of = {name: i for i, name in enumerate(names)}
    if len(row_of) != len(names):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{len(names) - len(row_of)} keys of the embeddings are there more than once.",
            where=file,
            hint="Give one vector for each key.",
        )
    vectors = unit_vectors(values, file)
    rows = np.array([row_of.get(str(k), -1) for k in keys], np.int64)
    if len(rows) and (rows < 0).all():
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"none of the {len(rows)} rows of the audit is among the {len(names)} keys of the embeddings.",
            where=file,
            hint="Keys are compared as text; name the right column of keys.",
        )
    matrix = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
    matrix[rows >= 0] = vectors[rows[rows >= 0]]
    empty = int(np.isnan(matrix[rows >= 0]).any(axis=1).sum())
    return Embeddings(matrix, problems=_counts({"not in the file": int((rows < 0).sum()), Reason.NON_FINITE: empty}))


def embed_images(
    model: Model,
    paths: Sequence[str | Path | None],
    modality: Modality,
    settings: Settings,
    *,
    also: Also | None = None,
    step: Callable[[int], None] | None = None,
    stored: StoredEmbeddings | None = None,
) -> Embeddings:
    """Encode image files as scoring does: through the modality's adapter, each view encoded, mean of the views.

    Args:
        model: Model, from `medclip.models.load`.
        paths: File of each row, or the folder of one series; None where a row has none.
        modality: Modality whose adapter reads the files.
        settings: Limits and number of reading processes.
        also: Function that makes something else of the pixels, such as a perceptual hash; nobody needs to read the
            files again.
        step: Function called with the number of images read since the last call.
        stored: Embeddings of the images, below whose folder the paths are: nothing is read, and `also` is not called.

    Returns:
        One vector for each path, of the mean of its views. What cannot be read is NaN and counted, and never stops the
        others; a file that several rows name is read once.
    """
    from medclip.adaptation.data.table import LabelledUnit
    from medclip.embeddings.embeddings_reader import open_reader

    files = list(dict.fromkeys(Path(p) for p in paths if p is not None))
    units = [LabelledUnit(i + 1, file, "", modality, None, 0) for i, file in enumerate(files)]
    vectors = np.full((len(files), model.dim), np.nan, np.float32)
    hashes, others, reasons = [""] * len(files), [None] * len(files), [""] * len(files)
    with open_reader(model, settings, stored) as reader:
        for start in range(0, len(units), reader.at_once):
            part = reader.read(units[start : start + reader.at_once], step or _ignore, keep_pixels=also is not None)
            for i, unit in enumerate(part, start):
                hashes[i] = unit.sha256
                if unit.problem is not None:
                    reasons[i] = str(unit.problem.reason)
                    continue
                vectors[i] = unit_vectors(unit.features.mean(axis=0, dtype=np.float64)[None])[0]
                others[i] = also(unit.pixels) if also is not None and len(unit.pixels) else None
    row_of = {file: i for i, file in enumerate(files)}
    rows = [-1 if p is None else row_of[Path(p)] for p in paths]
    matrix = np.full((len(rows), model.dim), np.nan, np.float32)
    for n, i in enumerate(rows):
        matrix[n] = vectors[i] if i >= 0 else np.nan
    why = Counter(reasons[i] if i >= 0 else str(Reason.MISSING_FILE) for i in rows)
    return Embeddings(
        matrix,
        tuple(hashes[i] if i >= 0 else "" for i in rows),
        tuple(others[i] if i >= 0 else None for i in rows) if also is not None else (),
        _counts({reason: count for reason, count in why.items() if reason}),
    )


def _read_npz(stream: BinaryIO, file: Path) -> tuple[list[str], NDArray[Any]]:
    packed_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        with np.load(stream, allow_pickle=False) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > most_unpacked(packed_bytes):
                raise too_large(packed_bytes).at(file)
            keys, vectors = arrays["keys"], arrays["vectors"]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise MedclipError(
            Reason.TABLE_INVALID,
            "the .npz lacks `keys` (text) or `vectors` (numbers), is damaged, or holds pickled objects.",
            where=file,
            hint="Save it with numpy.savez(file, keys=np.array([...], dtype=str), vectors=...).",
        ) from error
    return [str(k) for k in keys.ravel()], vectors


def _of_table(table: Table, key: str | None) -> tuple[list[str], NDArray[Any]]:
    import pyarrow as pa

    name = table.need(key or _key_column(table))
    kinds = {n: table.arrow.schema.field(n).type for n in table.names if n != name}
    lists = [
        n
        for n, t in kinds.items()
        if pa.types.is_list(t) or pa.types.is_fixed_size_list(t) or pa.types.is_large_list(t)
    ]
    numbers = [n for n, t in kinds.items() if pa.types.is_floating(t) or pa.types.is_integer(t)]
    if not lists and not numbers:  # a text file, in which numbers are texts
        numbers = [n for n in kinds if table.is_numeric(n)]
    if len(lists) > 1 or not (lists or numbers):
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"{len(lists)} list columns and {len(numbers)} numeric ones; one list, or one number for each dimension.",
            where=table.where,
        )
    if lists:
        return table.texts(name), _of_lists(table.arrow.column(lists[0]), table.where)
    return table.texts(name), np.column_stack([table.numbers(n) for n in numbers])


def _key_column(table: Table) -> str:
    import pyarrow as pa

    if "key" in table.names:
        return "key"
    texts = [f.name for f in table.arrow.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if len(texts) > 1:
        texts = [n for n in texts if not table.is_numeric(n)]
    if len(texts) == 1:
        return texts[0]
    raise MedclipError(
        Reason.TABLE_INVALID,
        f"{len(texts)} columns of text could hold the keys.",
        where=table.where,
        hint="Name the column of keys, or call it `key`.",
    )


def _of_lists(column: pa.ChunkedArray, file: str) -> NDArray[np.float64]:
    """Return lists as rows; a blank list is a row of NaN."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column)  # type: ignore[attr-defined]
    sizes = {n for n in lengths.unique().to_pylist() if n is not None}
    if len(sizes) != 1:
        raise MedclipError(Reason.TABLE_INVALID, f"the vectors have {len(sizes)} different lengths.", where=file)
    present = np.flatnonzero(~np.asarray(column.is_null()))
    rows = np.full((len(column), sizes.pop()), np.nan)
    flat = pc.list_flatten(column.drop_null()).cast("float64")  # type: ignore[attr-defined]
    rows[present] = flat.to_numpy().reshape(len(present), -1)
    return rows


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(reason): count for reason, count in counts.items() if count}


def _ignore(_: int) -> None:
    """Take no notice of progress."""


FEWEST_PATIENTS = 10
"""Of a group, unless asked otherwise; smaller ones are left out, and named."""
What = Literal["probe", "reident", "drift", "centroid"]


def row(
    what: What,
    attribute: str,
    name: str,
    measured: Estimate | float = math.nan,
    *,
    p: float = math.nan,
    note: str = "",
) -> dict[str, Any]:
    """Make one row, without the model's name, with the interval where there is one. Values keep four digits."""
    estimate = measured if isinstance(measured, Estimate) else Estimate(measured)
    return {
        "what": what,
        "attribute": attribute,
        "name": name,
        "value": _four_digits(estimate.value),
        "low": _four_digits(estimate.low),
        "high": _four_digits(estimate.high),
        "p": float(p),
        "note": note,
    }


def about(count: int) -> str:
    """Write a count to the nearest ten, or to two digits from a thousand.

    Example:
        >>> about(727), about(12_345)
        ('about 730', 'about 12,000')
    """
    step = 10 if count < 1000 else 10 ** (len(str(count)) - 2)
    return f"about {step * round(count / step):,}"


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def estimated_mean(
    values_N: NDArray[np.floating], patients_N: NDArray[np.integer], weights_PB: NDArray[np.integer]
) -> Estimate:
    """Average values between 0 and 1, with the interval of a rate; patients without values may be drawn.

    Values between the two, such as precisions, vary less than right and wrong do: the floor of a rate is taken only
    where no patient differs.
    """
    if not len(values_N):
        return Estimate(math.nan)
    (value,), (drawn_B,) = ratios(patients_N, weights_PB, np.asarray(values_N)[None], np.ones((1, len(values_N))))
    figure = share(float(value), drawn_B, cases=len(values_N), patients=effective_patients(patients_N))
    if figure.bootstrap > 0 and not np.isin(values_N, (0, 1)).all():
        figure = replace(figure, lift=0.0)
    return interval_of(figure)


def whole_patients(patients_N: NDArray[np.integer], most: int, seed: int) -> NDArray[np.int64]:
    """Draw whole patients until another would make more than `most` rows; all rows where they fit.

    Returns:
        Rows in their order, int64.
    """
    if len(patients_N) <= most:
        return np.arange(len(patients_N))
    _, codes_N = np.unique(patients_N, return_inverse=True)
    counts_P = np.bincount(codes_N)
    order = np.random.default_rng(seed).permutation(len(counts_P))
    taken = order[np.cumsum(counts_P[order]) <= most]
    return np.flatnonzero(np.isin(codes_N, taken))


@dataclass(frozen=True, eq=False)
class Grouped:
    """The rows of the groups that are large enough, with their vectors."""

    vectors_nD: NDArray[np.float32]
    patients_n: NDArray[np.int64]
    """Numbered anew, 0 to P - 1."""
    codes_n: NDArray[np.int64]
    """Group of each row: index into `groups`."""
    groups: tuple[str, ...]
    note: str
    """Which groups were left out, and how many rows were drawn; "" where there is nothing to say."""


def grouped(
    vectors_ND: NDArray[np.floating],
    patients_N: NDArray[np.integer],
    attribute: Attribute,
    *,
    most: int,
    seed: int,
    fewest: int,
) -> Grouped:
    """Take the groups with enough patients who have embeddings; rows that state nothing or two things are left out."""
    there_N = ~np.isnan(vectors_ND).any(axis=1)
    taken, left_out = [], []
    for g, name in enumerate(attribute.groups):
        rows_N = there_N & (attribute.codes_N == g)
        if name not in (MISSING, CONFLICT) and len(np.unique(patients_N[rows_N])) >= fewest:
            taken.append(g)
        elif (attribute.codes_N == g).any():
            left_out.append(name)
    rows = np.flatnonzero(there_N & np.isin(attribute.codes_N, taken))
    drawn = rows[whole_patients(patients_N[rows], most, seed)]
    notes = []
    if left_out:
        notes.append(f"Left out (fewer than {fewest} patients, or not stated): {', '.join(left_out)}.")
    if len(drawn) < len(rows):
        notes.append(f"Drawn by patient: {about(len(drawn))} of {about(len(rows))} rows.")
    _, patients_n = np.unique(patients_N[drawn], return_inverse=True)
    codes_n = np.searchsorted(np.array(taken, np.int64), attribute.codes_N[drawn])
    names = tuple(attribute.groups[g] for g in taken)
    return Grouped(np.asarray(vectors_ND[drawn], np.float32), patients_n, codes_n, names, " ".join(notes))

"""What is ranked in a folder, ready to be searched: its vectors mapped, its columns in memory.

It is kept as long as the embeddings are open, so that the second question of a notebook costs no more than its search.

Of very many an approximate index can be made: vectors are parted into lists by k-means, and a question is compared with
those of the lists nearest to it alone, in eight bits a value; the best are then scored exactly. How many lists are
looked at is chosen when the index is made: so many that 95 % of the ten best that the exact search finds are found for
vectors of the folder itself.

faiss holds the whole index in memory while it is made (D bytes a vector); afterwards it is mapped.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import Level
from medclip.embeddings.open_embeddings import Embeddings
from medclip.embeddings.write_embeddings import NOTE
from medclip.errors import MedclipError, Reason
from medclip.files.output import new_file, write_file
from medclip.files.temporary_folder import TemporaryFolder
from medclip.progress import Progress
from medclip.retrieval.hits import Ranked
from medclip.retrieval.top_rows import TopRows, VectorFile, exact_scores, open_vector_file, write_vector_file
from medclip.retrieval.top_rows import top_rows as exact_top_rows
from medclip.wording import count, number, percent

if TYPE_CHECKING:
    import pyarrow as pa


FOLDER = "search"
"""In a folder of embeddings: what searches made of it. It may be deleted at any time."""
_OPEN: WeakKeyDictionary[Embeddings, dict[Level, Searchable]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Searchable:
    """The vectors of a level and what is known of each."""

    level: Ranked
    vectors: VectorFile
    table: pa.Table
    """One row for each vector: row (of the unit's or study's first file), study, patient, modality; number of views.
    Of patches row (of the slide), top_um, left_um and coverage."""
    digest: str
    """Of the table that the vectors are in."""

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[N]: the file of each vector."""
        return self.table.column("row").to_numpy()

    def with_values(self, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """Return which vectors have one of these values in a column of texts; bool [N]."""
        import pyarrow as pa
        from pyarrow import compute as pc

        held = pc.is_in(self.table.column(column), value_set=pa.array(values, pa.string()))  # pyright: ignore
        return held.to_numpy(zero_copy_only=False).astype(bool)


def open_searchable(embeddings: Embeddings, level: Level, progress: Progress) -> Searchable:
    """Open a level for search; its raw file of vectors is written where there is none that fits.

    Where nothing can be written into the folder, the file is a temporary one, and goes with the process.

    Raises:
        MedclipError: NOTHING_TO_DO for embeddings without a vector; CHANGED for a damaged table; NON_FINITE.
    """
    held = _OPEN.setdefault(embeddings, {})
    if level not in held:
        held[level] = _open(embeddings, level, progress)
    return held[level]


def _open(embeddings: Embeddings, level: Level, progress: Progress) -> Searchable:
    shape = (getattr(embeddings, f"num_{level}"), embeddings.dim)
    if shape[0] == 0:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no file of these embeddings could be read, so that there is nothing to search in.",
            where=embeddings.folder,
            hint="The column `message` of files.parquet says why.",
        )
    note = json.loads((embeddings.folder / NOTE).read_text(encoding="utf-8"))
    digest = str(note["sha256"][f"{level}.parquet"])
    vectors = open_vectors(embeddings.folder, level, digest, shape, lambda: embeddings.blocks(level), progress)
    names = ["row", "study", "patient", "modality", *(["number"] if level == "views" else [])]
    return Searchable(level, vectors, embeddings.columns(level, names), digest)


def open_vectors(
    folder: Path,
    level: Ranked,
    digest: str,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[NDArray[np.floating]]],
    progress: Progress,
) -> VectorFile:
    """Map the raw file of vectors of a folder; it is written where there is none that fits.

    Args:
        folder: Folder of embeddings or slides; files go into its folder `search`, or a temporary one.
        level: Level that the vectors are of.
        digest: Digest of what the vectors are taken from.
        shape: Number of vectors N and their length D.
        blocks: Function that yields the vectors, float [B, D] each.
        progress: Progress bar of vectors that are prepared.
    """
    path = folder / FOLDER / f"{level}-{digest[:16]}.npy"
    return open_vector_file(path, shape) or _write(path, level, shape, blocks, progress)


def _write(
    path: Path,
    level: Ranked,
    shape: tuple[int, int],
    blocks: Callable[[], Iterator[NDArray[np.floating]]],
    progress: Progress,
) -> VectorFile:
    def counted_blocks() -> Iterator[NDArray[np.floating]]:
        progress.stage("Preparing vectors", shape[0])
        for block in blocks():
            yield block
            progress.step(len(block))

    try:
        write_vector_file(path, shape, counted_blocks())
    except MedclipError as error:
        if error.reason not in (Reason.PERMISSION_DENIED, Reason.WRONG_USE, Reason.DISK_FULL):
            raise
        progress.note("Nothing can be written into this folder; the next search prepares its vectors again.")
        with TemporaryFolder("search") as elsewhere:
            write_vector_file(Path(elsewhere, path.name), shape, counted_blocks())
            vectors = open_vector_file(Path(elsewhere, path.name), shape)
    else:
        vectors = open_vector_file(path, shape)
        for stale in path.parent.glob(f"{level}-*"):
            if not stale.name.startswith(path.stem):
                with suppress(OSError):
                    stale.unlink()
    assert vectors is not None
    return vectors


Index = Literal["exact", "faiss"]
"""What vectors are compared through: themselves, or the approximate index beside them."""
_GOAL, _ASKED, _BEST = 0.95, 200, 10
"""Recall that is wanted, of how many questions, among how many best."""
_TRAINED_ON = 64
"""Vectors for each list that k-means sees; faiss asks for 39 at least."""
_RESCORED = 4
"""Times as many as are asked for are scored exactly."""
_SAMPLED = 20_000
"""Vectors that the spread of all scores is estimated from."""
_OPEN_INDEXES: WeakKeyDictionary[Searchable, ApproximateIndex] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """An index of faiss and what was measured of it."""

    index: Any
    num_probed: int
    """Lists that a question is compared with."""
    recall: float
    """Share of the ten best that were found for vectors of the folder."""
    num_asked: int

    @property
    def note(self) -> str:
        """What must be known of its answers."""
        return (
            f"The search was approximate: asked with {count(self.num_asked, 'vector')} of this folder, the index found "
            f"{percent(self.recall)} of the {_BEST} best that the exact search finds. Words lie elsewhere among the "
            "vectors and may find fewer."
        )

    def top_rows(
        self, vectors: VectorFile, queries_QD: NDArray[np.floating], k: int, *, wanted: NDArray[np.bool_] | None = None
    ) -> TopRows:
        """Find rows with large dot products; arguments and values are those of `medclip.retrieval.top_rows.top_rows`.

        Means and standard deviations are those of 20,000 vectors; K' may be smaller where little is wanted.
        """
        import faiss  # pyright: ignore[reportMissingImports]

        rows = np.arange(vectors.num_rows) if wanted is None else np.flatnonzero(wanted)
        queries = np.ascontiguousarray(queries_QD, np.float32)
        options: dict[str, Any] = {"nprobe": self.num_probed}
        if wanted is not None:
            bits = np.packbits(wanted, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)  # pyright: ignore[reportCallIssue] (SWIG's own signature)
        num = min(max(_RESCORED * k, 100), len(rows))
        chosen = faiss.SearchParametersIVF(**options)
        _, labels = self.index.search(queries, num, params=chosen)
        answers = [_best(vectors, query, label[label >= 0], k) for query, label in zip(queries, labels, strict=True)]
        fewest = min(len(of_query) for of_query, _ in answers)
        if not fewest:  # the lists that were looked at hold nothing that is wanted
            return exact_top_rows(vectors, queries, k, wanted=wanted)
        sample = vectors.rows(rows[np.linspace(0, len(rows) - 1, min(_SAMPLED, len(rows))).astype(np.int64)])
        scores_QS = queries.astype(np.float64) @ sample.T.astype(np.float64)
        return TopRows(
            np.stack([of_query[:fewest] for of_query, _ in answers]),
            np.stack([scores[:fewest] for _, scores in answers]),
            scores_QS.mean(axis=1),
            scores_QS.std(axis=1),
            len(rows),
        )


def check_faiss() -> None:
    """Refuse to go on without faiss.

    Raises:
        MedclipError: MISSING_CODEC, with the line that installs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of types that SWIG makes
            import faiss  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "an approximate search needs faiss.",
            hint="Run: pip install 'medclip-imaging[search]'",
        ) from e


def open_index(folder: Path, searched: Searchable, progress: Progress) -> ApproximateIndex:
    """Open the index of a level; it is made where there is none that fits, and kept where it can be written."""
    import faiss  # pyright: ignore[reportMissingImports]

    if searched in _OPEN_INDEXES:
        return _OPEN_INDEXES[searched]
    path = folder / FOLDER / f"{searched.level}-{searched.digest[:16]}.faiss"
    note = path.with_name(f"{path.name}.json")
    index: ApproximateIndex | None = None
    with suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # none there, or cut short
        facts = json.loads(note.read_text(encoding="utf-8"))
        held = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        if (held.ntotal, held.d) == (searched.vectors.num_rows, searched.vectors.dim):
            index = ApproximateIndex(held, facts["num_probed"], facts["recall"], facts["num_asked"])
    if index is None:
        index = _make(searched.vectors, progress)
        with suppress(MedclipError):  # a folder that may not be written to
            _write_index(index, path, note)
    _OPEN_INDEXES[searched] = index
    return index


def _write_index(index: ApproximateIndex, path: Path, note: Path) -> None:
    import faiss  # pyright: ignore[reportMissingImports]

    with new_file(path) as draft:
        faiss.write_index(index.index, str(draft))
    facts = {"num_probed": index.num_probed, "recall": index.recall, "num_asked": index.num_asked}
    write_file(note, json.dumps(facts))


def _make(vectors: VectorFile, progress: Progress) -> ApproximateIndex:
    """Train an index, fill it, and look at as many lists as it takes to find what the exact search finds."""
    import faiss  # pyright: ignore[reportMissingImports]

    num_lists = max(1, min(int(np.sqrt(vectors.num_rows)), vectors.num_rows // 39))
    progress.stage(f"Indexing {number(vectors.num_rows)} vectors", vectors.num_rows)
    quantizer = faiss.IndexFlatIP(vectors.dim)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, vectors.dim, num_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    rng = np.random.default_rng(0)
    num_trained = min(_TRAINED_ON * num_lists, vectors.num_rows)
    index.cp.min_points_per_centroid = 1  # else faiss itself prints a warning of a folder of a few images
    index.train(vectors.rows(np.sort(rng.choice(vectors.num_rows, num_trained, replace=False))))
    for _, block in vectors.blocks():
        index.add(np.ascontiguousarray(block))
        progress.step(len(block))
    sampled = np.sort(rng.choice(vectors.num_rows, min(_ASKED, vectors.num_rows), replace=False))
    queries = vectors.rows(sampled)
    exact = exact_top_rows(vectors, queries, _BEST).rows
    num_probed = 1
    while True:
        tried = ApproximateIndex(index, num_probed, 0.0, len(sampled))
        answers = tried.top_rows(vectors, queries, _BEST).rows
        share = np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(answers, exact, strict=True)])
        if share >= _GOAL or num_probed >= num_lists:
            return ApproximateIndex(index, num_probed, float(share), len(sampled))
        num_probed = min(2 * num_probed, num_lists)


def _best(
    vectors: VectorFile, query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    scores = exact_scores(vectors.rows(rows), query[None])
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]

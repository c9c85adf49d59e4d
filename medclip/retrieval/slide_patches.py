"""Search the patches of a folder of slides: as in embeddings, with places on slides in the place of studies.

The first search writes the vectors of all slides once more, as one file that can be mapped; places stay in memory, 24
bytes for each patch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason, printable, refuse_missing
from medclip.models.packs.manifest import file_sha256
from medclip.progress import Progress, Silent
from medclip.retrieval.folder_search import rank_vectors
from medclip.retrieval.hits import PatchHit, SearchResult, weak_ranks
from medclip.retrieval.question import (
    Example,
    Load,
    Question,
    QuestionVectors,
    Search,
    encode_words,
    mean_vector,
    slides_where,
)
from medclip.retrieval.searchable import Searchable, open_index, open_vectors
from medclip.sample import Modality
from medclip.slides.slide_features import SlideFeatures, level0_coords
from medclip.slides.slide_store import DONE, SlideRow, SlideStore

_PLACE = re.compile(r"(?P<slide>.+)@(?P<top>\d+(\.\d*)?),(?P<left>\d+(\.\d*)?)")
"""A patch as an example: KEY@TOP,LEFT in µm."""
_OPEN: WeakKeyDictionary[SlideStore, SearchablePatches] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class SearchablePatches(Searchable):
    """The patches of all slides of a store, in the order of its rows; `rows` are those of slides.parquet, from 1."""

    slides: dict[int, SlideFeatures]
    """By row: sizes and scales, without vectors, and without places, which are in `table`."""

    def of_slides(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Return which patches lie on slides; bool [N]."""
        return np.isin(self.rows, list(rows))


@dataclass(frozen=True)
class _Known:
    """An example that is in the store: a slide, or one patch of it."""

    row: int
    place: int | None = None
    """Which of all patches; None for a slide."""


def run_patch_search(
    store: SlideStore,
    question: Question,
    load: Load,
    search: Search,
    *,
    images: Path | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Rank the patches of a store of slides by a question.

    Args:
        store: Store of slides.
        question: Question that is asked.
        load: Function that loads the model, called where it is needed.
        search: Vectors that are looked at, and how; the modality of examples is pathology where it names none.
        images: Folder of the slides, for small images of the hits.
        progress: Progress bar of vectors that are prepared.

    Raises:
        MedclipError: NOTHING_TO_DO where nothing is left to look at; WRONG_USE for a patch that there is none of; what
            reading store and examples raises.
    """
    progress = progress or Silent()
    passing = slides_where(store, search.conditions) if search.conditions else None
    searched = open_patches(store, progress)
    question_vectors, examples = _vectors(store, searched, question, load, search, progress)
    wanted = np.ones(len(searched.rows), bool)
    if passing is not None:
        wanted = searched.of_slides([row for row in searched.slides if passing[row - 1]])
    _leave_out(store, searched, wanted, examples, search)
    if not wanted.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no patch is left to look at: conditions, the example or its patient leave all out.",
            where=store.folder,
            hint="Search with --include-example, or with other conditions.",
        )
    index = None if search.index == "exact" else open_index(store.folder, searched, progress)
    ranked = rank_vectors(searched.vectors, question_vectors, wanted, search.num_hits, index)
    places = searched.table.take(ranked.places_K).to_pylist()
    hits = []
    for n, place in enumerate(places):
        row, features = store.rows[place["row"] - 1], searched.slides[place["row"]]
        corner = np.array([[place["top_um"], place["left_um"]]])
        x, y = level0_coords(corner, features.slide_mpp_um or features.effective_mpp_um)[0].tolist()
        hits.append(
            PatchHit(
                rank=n + 1,
                row=place["row"],
                file=_name(place["row"], row, search.report_paths),
                study=row.study or "",
                patient=row.patient,
                modality=str(Modality.PATHOLOGY),
                **ranked.facts(n),  # pyright: ignore[reportArgumentType] (of floats alone)
                view=None,
                laterality=None,
                body_part=None,
                num_images=1,
                slide=row.key,
                top_um=place["top_um"],
                left_um=place["left_um"],
                x_px=x,
                y_px=y,
                coverage=round(place["coverage"], 6),
            )
        )
    doubt = weak_ranks(hits[0].z, ranked.num_searched)
    notes = (*question_vectors.notes, _unlike_colours(store, examples), "" if index is None else index.note, doubt)
    return SearchResult(
        hits=tuple(hits),
        level="patches",
        words=question.words,
        without=question.without,
        like=tuple(
            _example_name(store, searched, example, one, search.report_paths)
            for example, one in zip(question.like, examples, strict=True)
        ),
        where=tuple(map(str, search.conditions)),
        num_searched=ranked.num_searched,
        num_left_out=len(wanted) - ranked.num_searched,
        mean=ranked.mean,
        sd=ranked.sd,
        engine=search.index,
        notes=tuple(note for note in notes if note),
        embeddings=store,
        images=images,
        settings=search.settings,
    )


def _unlike_colours(store: SlideStore, examples: Sequence[_Known | None]) -> str:
    if "stain" not in store.run or None not in examples:
        return ""
    return (
        f"The colours of these slides were made alike ({store.run['stain']}) before they were embedded, and those of "
        "the example were not."
    )


def open_patches(store: SlideStore, progress: Progress) -> SearchablePatches:
    """Open the patches of a store for search; see `medclip.retrieval.searchable.open_searchable`.

    Raises:
        MedclipError: NOTHING_TO_DO for a store without a vector; CORRUPT, CHANGED and MISSING_FILE for files of
            vectors that are damaged, of another model or gone.
    """
    if store not in _OPEN:
        _OPEN[store] = _open(store, progress)
    return _OPEN[store]


def _open(store: SlideStore, progress: Progress) -> SearchablePatches:
    import pyarrow as pa

    slides: dict[int, SlideFeatures] = {}
    columns: dict[str, list[NDArray]] = {"row": [], "top_um": [], "left_um": [], "coverage": []}
    none_2, none = np.zeros((0, 2)), np.zeros(0, np.float32)
    for number, row in enumerate(store.rows, start=1):
        if row.status != DONE:
            continue
        features = store.read(row.key, vectors=False)
        columns["row"].append(np.full(len(features), number, np.int32))
        columns["top_um"].append(features.corners_um_N2[:, 0])
        columns["left_um"].append(features.corners_um_N2[:, 1])
        columns["coverage"].append(features.coverage_N)
        slides[number] = replace(
            features, features_ND=features.features_ND[:0], corners_um_N2=none_2, coverage_N=none, quality={}
        )
    num = sum(map(len, columns["row"]))
    if not num:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            "no slide of this store has vectors, so that there is nothing to search in.",
            where=store.folder,
            hint="The columns `reason` and `message` of slides.parquet say why.",
        )

    def blocks() -> Iterator[NDArray[np.floating]]:
        for row in slides:
            yield from store.blocks(store.rows[row - 1].key)

    dim = len(next(blocks())[0])
    digest = store.digest
    vectors = open_vectors(store.folder, "patches", digest, (num, dim), blocks, progress)
    table = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
    return SearchablePatches("patches", vectors, table, digest, slides)


def _vectors(
    store: SlideStore,
    searched: SearchablePatches,
    question: Question,
    load: Load,
    search: Search,
    progress: Progress,
) -> tuple[QuestionVectors, tuple[_Known | None, ...]]:
    """Encode the words of a question, and look its examples up or read them."""
    question_vectors = QuestionVectors(None, None, None, None)
    if question.words or question.without:
        question_vectors = encode_words(load(), question)
    examples = tuple(_known(store, searched, example) for example in question.like)
    if examples:
        parts = [_mean_of(searched, one) for one in examples if one is not None]
        strange = [Path(str(example)) for example, one in zip(question.like, examples, strict=True) if one is None]
        modality = search.modality or str(Modality.PATHOLOGY)
        question_vectors = replace(
            question_vectors, like=mean_vector(parts, strange, load, modality, search.settings, progress)
        )
    return question_vectors, examples


def _mean_of(searched: SearchablePatches, one: _Known) -> NDArray[np.float32]:
    """Return the vector of a patch, or the mean of a slide's brought to unit norm; float32 [1, D]."""
    if one.place is not None:
        return searched.vectors.rows(np.array([one.place]))
    places = np.flatnonzero(searched.rows == one.row)
    mean = np.zeros(searched.vectors.dim)
    for start in range(0, len(places), 8192):
        mean += searched.vectors.rows(places[start : start + 8192]).sum(axis=0, dtype=np.float64)
    return (mean / np.linalg.norm(mean)).astype(np.float32)[None]


def _known(store: SlideStore, searched: SearchablePatches, example: Example) -> _Known | None:
    """Return what an example is in the store; None for a file from elsewhere.

    Raises:
        MedclipError: MISSING_FILE for a file that is not there; WRONG_USE for a slide or patch that there is none of.
    """
    text = str(example)
    if isinstance(example, int) or (text.isdecimal() and not Path(text).exists()):
        return _Known(_row_of(store, searched, text))
    if (read := _PLACE.fullmatch(text)) is not None and not Path(text).exists():
        row = _row_of(store, searched, read["slide"])
        return _Known(row, _patch_at(store, searched, row, float(read["top"]), float(read["left"])))
    path = Path(example)
    if not path.exists() and any(text in (row.key, row.file) for row in store.rows):
        return _Known(_row_of(store, searched, text))
    refuse_missing(path)
    hashes = {row.sha256: number for number, row in enumerate(store.rows, start=1) if number in searched.slides}
    number = hashes.get(file_sha256(path)) if path.is_file() else None
    return None if number is None else _Known(number)


def _row_of(store: SlideStore, searched: SearchablePatches, name: str) -> int:
    """Return the row of a slide by its number, key or file."""
    for number, row in enumerate(store.rows, start=1):
        if number in searched.slides and name in (str(number), row.key, row.file):
            return number
    raise MedclipError(
        Reason.WRONG_USE,
        f"this store has no vectors of a slide {printable(name)!r}.",
        where=store.folder,
        hint="Name it by its key, or by its row in slides.parquet, from 1.",
    )


def _patch_at(store: SlideStore, searched: SearchablePatches, row: int, top_um: float, left_um: float) -> int:
    """Return the patch of a slide whose corner is nearest to a place, at most half a patch away."""
    places = np.flatnonzero(searched.rows == row)
    corners = [searched.table.column(name).to_numpy()[places] for name in ("top_um", "left_um")]
    away = np.maximum(abs(corners[0] - top_um), abs(corners[1] - left_um))
    features, nearest = searched.slides[row], int(away.argmin())
    if away[nearest] > features.size_px * max(features.effective_mpp_um) / 2:
        raise MedclipError(
            Reason.WRONG_USE,
            f"slide {store.rows[row - 1].key} has no patch at {top_um:g},{left_um:g} µm.",
            where=store.folder,
            hint="A patch is named by its slide and corner, KEY@TOP,LEFT in µm, as hits have them.",
        )
    return int(places[nearest])


def _leave_out(
    store: SlideStore,
    searched: SearchablePatches,
    wanted: NDArray[np.bool_],
    examples: Sequence[_Known | None],
    search: Search,
) -> None:
    """Leave out the examples themselves, or what is of their patients; changes `wanted`."""
    for one in examples:
        if one is None:
            continue
        if search.other_patients:
            patient = store.rows[one.row - 1].patient
            same = [n for n in searched.slides if patient is not None and store.rows[n - 1].patient == patient]
            wanted &= ~searched.of_slides([*same, one.row])
        elif not search.include_example:
            wanted &= ~searched.of_slides([one.row]) if one.place is None else np.arange(len(wanted)) != one.place


def _name(number: int, row: SlideRow, report_paths: bool) -> str:
    return printable(row.file) if report_paths else f"slide {number}"


def _example_name(
    store: SlideStore, searched: SearchablePatches, example: Example, one: _Known | None, report_paths: bool
) -> str:
    if one is None:
        return printable(str(example)) if report_paths else "an image from elsewhere"
    name = _name(one.row, store.rows[one.row - 1], report_paths)
    if one.place is None:
        return name
    place = searched.table.slice(one.place, 1).to_pylist()[0]
    return f"{name} at {place['top_um']:.10g},{place['left_um']:.10g} µm"

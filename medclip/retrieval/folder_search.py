"""Search a folder of embeddings: a question becomes one vector, and all vectors of a level are compared with it.

Words alone: score = cos(f, w) - cos(f, n), where w is the normalised mean of the phrasings and n that of what is not
looked for. An example alone: score = cos(f, e). Both: the mean of the two, each as standard deviations above its mean
over all that is looked at, since cosines between images lie higher and spread otherwise than those between images and
words. In each case the score is linear in f, so that one pass over the vectors finds the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.embedded_unit import Level
from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import MedclipError, Reason, printable
from medclip.progress import Progress, Silent
from medclip.retrieval.hits import (
    IMAGES_OF_A_STUDY,
    NOUNS,
    Hit,
    SearchResult,
    finite,
    weak_ranks,
)
from medclip.retrieval.question import Load, Question, QuestionVectors, Search, encode_words, example_vector, rows_where
from medclip.retrieval.searchable import ApproximateIndex, Searchable, open_index, open_searchable
from medclip.retrieval.top_rows import TopRows, VectorFile, exact_scores, top_rows

_ROUNDING = 1e-6
"""Scores that spread less are equal but for the rounding of float32."""


@dataclass(frozen=True, eq=False)
class RankedVectors:
    """The best vectors, and what their scores are made of; K of them."""

    places_K: NDArray[np.int64]
    """Which vectors, the best first."""
    scores_K: NDArray[np.float64]
    words_K: list[float | None]
    """Cosine with the mean of the phrasings."""
    spread_K: list[float | None]
    """Standard deviation of the cosine over the phrasings."""
    without_K: list[float | None]
    like_K: list[float | None]
    mean: float
    """Of the scores of all that was looked at."""
    sd: float
    num_searched: int

    def facts(self, n: int) -> dict[str, float | None]:
        """Return the fields of `Hit` that are made of scores, of the n-th best from 0."""
        score = float(self.scores_K[n])
        return {
            "score": round(score, 6),
            "z": finite((score - self.mean) / self.sd) if self.sd > _ROUNDING else None,
            "words": self.words_K[n],
            "spread": self.spread_K[n],
            "without": self.without_K[n],
            "like": self.like_K[n],
        }


def rank_vectors(
    vectors: VectorFile,
    question_vectors: QuestionVectors,
    wanted: NDArray[np.bool_],
    top: int,
    index: ApproximateIndex | None,
) -> RankedVectors:
    """Find the vectors that fit a question best.

    Args:
        vectors: File of N vectors.
        question_vectors: The question.
        wanted: Whether each vector is looked at, bool [N]; at least one.
        top: Most hits, K.
        index: Index for an approximate search; an exact one where None.
    """
    find = partial(top_rows, vectors) if index is None else partial(index.top_rows, vectors)
    query, offset = _query(find, question_vectors, wanted)
    best = find(query[None], top, wanted=wanted)
    rows = vectors.rows(best.rows[0])
    spread: list[float | None] = [None] * len(rows)
    if question_vectors.phrasings is not None and len(question_vectors.phrasings) > 1:
        each = rows.astype(np.float64) @ question_vectors.phrasings.astype(np.float64).T
        spread = [finite(value) for value in each.std(axis=1, ddof=1)]
    words, without, like = (
        _cosines(rows, vector) for vector in (question_vectors.words, question_vectors.without, question_vectors.like)
    )
    mean, sd = float(best.mean[0]) - offset, float(best.sd[0])
    return RankedVectors(best.rows[0], best.scores[0] - offset, words, spread, without, like, mean, sd, best.num_rows)


def _query(
    find: Callable[..., TopRows], question_vectors: QuestionVectors, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """Return the vector whose dot product with f, less the second value, is the score of f."""
    text, like = question_vectors.text, question_vectors.like
    if text is None or like is None:
        query = text if like is None else like
        assert query is not None
        return query, 0.0
    each = find(np.stack([text, like]), 1, wanted=wanted)
    sd = np.where(each.sd > 0, each.sd, 1.0)
    query = 0.5 * (text.astype(np.float64) / sd[0] + like.astype(np.float64) / sd[1])
    return query.astype(np.float32), float(0.5 * (each.mean[0] / sd[0] + each.mean[1] / sd[1]))


def _cosines(vectors: NDArray[np.float32], query: NDArray[np.float32] | None) -> list[float | None]:
    if query is None:
        return [None] * len(vectors)
    return [finite(value) for value in exact_scores(vectors, query[None])]


ELSEWHERE = "an image from elsewhere"
"""What an example is called that is not in the folder."""


def run_search(
    embeddings: Embeddings,
    question: Question,
    load: Load,
    search: Search,
    *,
    level: Level = "studies",
    progress: Progress | None = None,
) -> SearchResult:
    """Rank the views, units or studies of a folder by a question.

    Args:
        embeddings: Folder of embeddings.
        question: Question that is asked.
        load: Function that loads the model, called where it is needed.
        search: Vectors that are looked at, and how.
        level: Level that is ranked.
        progress: Progress bar of vectors that are prepared.

    Raises:
        MedclipError: NOTHING_TO_DO where nothing is left to look at; what reading an example raises.
    """
    progress = progress or Silent()
    passing = rows_where(embeddings, search.conditions) if search.conditions else None
    question_vectors = _vectors(embeddings, question, load, search, progress)
    searched = open_searchable(embeddings, level, progress)
    wanted = _wanted(embeddings, searched, passing)
    _leave_out(embeddings, searched, wanted, question_vectors, search)
    if not wanted.any():
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"nothing but the example and what is left out with it is in this folder: no {NOUNS[level]} is left.",
            where=embeddings.folder,
            hint="Search with --include-example, or in a larger folder.",
        )
    index = None if search.index == "exact" else open_index(embeddings.folder, searched, progress)
    ranked = rank_vectors(searched.vectors, question_vectors, wanted, search.num_hits, index)
    hits, units_of = _hits(embeddings, searched, ranked)
    rows = [*(hit.row for hit in hits), *(row for row in question_vectors.like_rows if row is not None)]
    names = _names(embeddings, rows, search.report_paths)
    hits = tuple(replace(hit, file=names[hit.row]) for hit in hits)
    notes = (
        *question_vectors.notes,
        "" if index is None else index.note,
        weak_ranks(hits[0].z, ranked.num_searched),
    )
    return SearchResult(
        hits=hits,
        level=level,
        words=question.words,
        without=question.without,
        like=tuple(
            names[row] if row is not None else printable(str(example)) if search.report_paths else ELSEWHERE
            for example, row in zip(question.like, question_vectors.like_rows, strict=True)
        ),
        where=tuple(map(str, search.conditions)),
        num_searched=ranked.num_searched,
        num_left_out=searched.vectors.num_rows - ranked.num_searched,
        mean=ranked.mean,
        sd=ranked.sd,
        engine=search.index,
        notes=tuple(note for note in notes if note),
        units_of=units_of,
        embeddings=embeddings,
    )


def _vectors(
    embeddings: Embeddings,
    question: Question,
    load: Load,
    search: Search,
    progress: Progress,
) -> QuestionVectors:
    """Encode the words of a question, and look its examples up or read them."""
    question_vectors = QuestionVectors(None, None, None, None)
    if question.words or question.without:
        question_vectors = encode_words(load(), question)
    if not question.like:
        return question_vectors
    like, rows = example_vector(
        embeddings, question.like, load, modality=search.modality, settings=search.settings, progress=progress
    )
    return replace(question_vectors, like=like, like_rows=rows)


def _wanted(embeddings: Embeddings, searched: Searchable, passing: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Return which vectors belong to units that pass; bool [N]."""
    if passing is None:
        return np.ones(searched.vectors.num_rows, bool)
    if searched.level != "studies":
        return np.isin(searched.rows, passing)
    units = embeddings.columns("units", ["row", "study"])
    studies = units.filter(np.isin(units.column("row").to_numpy(), passing)).column("study").unique()
    return searched.with_values("study", studies.to_pylist())


def _leave_out(
    embeddings: Embeddings,
    searched: Searchable,
    wanted: NDArray[np.bool_],
    question_vectors: QuestionVectors,
    search: Search,
) -> None:
    """Leave out the examples themselves, and what is of their patients; changes `wanted`."""
    rows = [row for row in question_vectors.like_rows if row is not None]
    if not rows:
        return
    of_example = embeddings.columns("units", ["row", "study", "patient"], rows)
    same = np.isin(searched.rows, rows)
    if searched.level == "studies":
        same = searched.with_values("study", of_example.column("study").to_pylist())
    if search.other_patients:
        patients = [patient for patient in of_example.column("patient").to_pylist() if patient is not None]
        wanted &= ~searched.with_values("patient", patients)
        wanted &= ~same  # where no patient is known
    elif not search.include_example:
        wanted &= ~same


def _hits(
    embeddings: Embeddings, searched: Searchable, ranked: RankedVectors
) -> tuple[tuple[Hit, ...], dict[str, tuple[int, ...]]]:
    facts = searched.table.take(ranked.places_K).to_pylist()
    units_of = _units_of_studies(embeddings, searched, facts)
    unit_rows = sorted({row for units in units_of.values() for row in units} | {fact["row"] for fact in facts})
    columns = ["row", "view", "laterality", "body_part"]
    of_unit = {unit["row"]: unit for unit in embeddings.columns("units", columns, unit_rows).to_pylist()}
    hits = []
    for n, fact in enumerate(facts):
        unit, num_units = of_unit[fact["row"]], len(units_of.get(fact["study"], (0,)))
        hits.append(
            Hit(
                rank=n + 1,
                row=fact["row"],
                file="",
                study=fact["study"],
                patient=fact["patient"],
                modality=fact["modality"],
                **ranked.facts(n),  # pyright: ignore[reportArgumentType] (of floats alone)
                view=unit["view"] if num_units == 1 else None,
                laterality=unit["laterality"] if num_units == 1 else None,
                body_part=unit["body_part"] or None,
                num_images=num_units,
                image=fact["number"] + 1 if "number" in fact else None,
            )
        )
    return tuple(hits), {study: rows[:IMAGES_OF_A_STUDY] for study, rows in units_of.items()}


def _units_of_studies(
    embeddings: Embeddings, searched: Searchable, facts: Sequence[dict[str, Any]]
) -> dict[str, tuple[int, ...]]:
    """Return the rows of the units of each study among the hits."""
    if searched.level != "studies":
        return {}
    import pyarrow as pa
    from pyarrow import compute as pc

    units = embeddings.columns("units", ["row", "study"])
    studies = pa.array([fact["study"] for fact in facts], pa.string())
    chosen = units.filter(pc.is_in(units.column("study"), value_set=studies))  # pyright: ignore
    rows: dict[str, list[int]] = {}
    for row, study in zip(*(column.to_pylist() for column in chosen.columns), strict=True):
        rows.setdefault(study, []).append(row)
    return {study: tuple(of_study) for study, of_study in rows.items()}


def _names(embeddings: Embeddings, rows: Sequence[int], report_paths: bool) -> dict[int, str]:
    """Return what files are called: "file 12 (DICOM)", or their paths."""
    files = embeddings.columns("files", ["row", "path", "format"], sorted(set(rows))).to_pylist()
    return {
        file["row"]: printable(file["path"]) if report_paths else f"file {file['row']} ({_format(file['format'])})"
        for file in files
    }


def _format(name: str | None) -> str:
    """Write the format of a file as the report of a scoring run does: DICOM, PNG."""
    return (name or "not opened").replace("_", " ").upper()

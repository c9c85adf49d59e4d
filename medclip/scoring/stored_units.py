"""Questions put to stored vectors: the rows of files and scores that a run over the files themselves would have made.

What a question decides while files are read is decided here of what is kept: whether any task is about a modality and a
body part, whether a stranger may be asked, which studies are split. The rest was decided when the files were embedded.

Files and studies are worked through some at a time. What is held of a unit meanwhile are numbers, its study and its
patient (some 200 bytes), and of vectors 64 MiB at a time, however many there are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import Problem, Status
from medclip.files.grouping.studies import COPY
from medclip.models.devices import torch_threads
from medclip.runs.rows import NAMED_FILES, ExamRow, ScoreRow, note_of
from medclip.runs.units.chunk import split_keys
from medclip.sample import Kind, Modality
from medclip.scoring.exam_scores import ExamFeatures, ExamImage, exam_features
from medclip.scoring.study_scores import StudyFacts, StudyScores

if TYPE_CHECKING:
    import pyarrow as pa


_DECIDED = ("unit", "copy_of", "study", "modality", "status", "reason", "message", "path", "preprocessing")
"""Columns that a question may change, and those that tell which rows, and what of them."""
_CHANGED = ("status", "reason", "message", "study", "copy_of")
_TOGETHER = 256
"""Studies that are scored at once: with 80 wordings of 14 classes their spreads take 2 MB."""
_VECTOR_BYTES = 64 << 20
"""Vectors of studies that are held at once; those of one study are, however many it has."""
_FILES_AT_ONCE = 8192
_OF_A_READING = ("adapter", "preprocessing", "decoder", "laterality", "view", "steps", "headers")
"""Columns that only a scored file has."""

_OF_A_UNIT = ("kind", "unit", "modality", "modality_source", "modality_probability")
"""Columns that a copy does not have."""


@dataclass(frozen=True)
class _Alike:
    """What a question makes of all units of one modality, body part and kind, strangers or not."""

    modality: Modality
    problem: Problem | None
    fits: tuple[bool, ...]
    """Of each task, whether it is asked."""
    remark: str | None
    """What they are not asked although they are scored, and why."""
    kind: Kind
    stranger: bool


class StoredUnits:
    """The units of a folder of embeddings, as a question finds them.

    Args:
        embeddings: The folder.
        scores: The questions, and the model that understands them.
        key: Key of the identity hashes: studies that are split get their keys by it.
        name_of: Function from a path to what stands in its place; the path itself where None.
        names_files: Whether scores name the files of their study. The ledger does not need it.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        scores: StudyScores,
        key: bytes,
        *,
        name_of: Callable[[str], str] | None = None,
        names_files: bool = True,
    ) -> None:
        self._embeddings, self._scores, self._key, self._name_of = embeddings, scores, key, name_of
        table = _units(embeddings, with_views=scores.exams is not None)
        self._row: NDArray[np.int64] = table.column("row").to_numpy()
        self._first_view: NDArray[np.int64] = table.column("first_view").to_numpy()
        self._num_views: NDArray[np.int64] = table.column("num_views").to_numpy()
        self._patient = table.column("patient").combine_chunks()
        grouped = table.column("grouped").combine_chunks().dictionary_encode()
        self._grouped, grouped_U = grouped.dictionary, grouped.indices.to_numpy()
        self._alike, self._alike_U = self._decide(table)
        has_problem = np.array([alike.problem is not None for alike in self._alike], bool)[self._alike_U]
        self._wanted: NDArray[np.bool_] = (self._num_views > 0) & ~has_problem
        self._copies = _copies(table, has_problem)
        self._group_into_studies(grouped_U)
        self._way = np.full(len(self._row), -1, np.int32)
        self._ways: dict[str, int] = {}
        self._num_failed = Counter[tuple[str, str | None]]()
        self._names: dict[str, list[tuple[str, str | None]]] | None = {} if names_files else None
        self._path_of: dict[int, str] = {}
        self._views = None if scores.exams is None else table.select(["laterality", "view", "headers"])

    @property
    def num_studies(self) -> int:
        """Studies that have an answer."""
        return len(self._study_group)

    def _decide(self, table: pa.Table) -> tuple[list[_Alike], NDArray[np.intp]]:
        """Pass over what no task is about, as a run does before it computes; units alike are decided once."""
        columns = (table.column(name).combine_chunks() for name in ("modality", "body_part", "kind"))
        modality, body_part, kinds = (column.dictionary_encode() for column in columns)
        codes = [column.indices.to_numpy() for column in (modality, body_part, kinds)]
        codes_U4 = np.stack([*codes, table.column("stranger").to_numpy(zero_copy_only=False)], axis=1)
        distinct, alike_U = np.unique(codes_U4, axis=0, return_inverse=True)
        alike = []
        for m, b, k, is_stranger in distinct.tolist():
            named, part = Modality(modality.dictionary[m].as_py()), body_part.dictionary[b].as_py()
            kind = Kind(kinds.dictionary[k].as_py())
            problem = self._scores.refuse(named, part, kind)
            if problem is None and is_stranger:
                problem = self._scores.refuse_stranger(named)
            fits = tuple(
                self._scores.fits(question, named, part, kind, stranger=bool(is_stranger))
                for question in self._scores.tasks
            )
            remark = None if problem else self._scores.withheld(named, part, kind, bool(is_stranger))
            alike.append(_Alike(named, problem, fits, remark, kind, bool(is_stranger)))
        return alike, alike_U.reshape(-1)

    def _group_into_studies(self, grouped_U: NDArray[np.int32]) -> None:
        """Number the studies that answer something by their first units; one of several modalities is several."""
        units = np.flatnonzero(self._wanted)
        modalities = list(dict.fromkeys(alike.modality for alike in self._alike))
        number_of = np.array([modalities.index(alike.modality) for alike in self._alike], np.int64)
        pair_U = grouped_U[units].astype(np.int64) * len(modalities) + number_of[self._alike_U[units]]
        pairs, first, pair_of = np.unique(pair_U, return_index=True, return_inverse=True)
        order = np.argsort(first)
        study_of_pair = np.empty(len(pairs), np.int64)
        study_of_pair[order] = np.arange(len(pairs))
        self._study_group, modality_S = np.divmod(pairs[order], len(modalities))
        self._study_modality = [modalities[number] for number in modality_S.tolist()]
        study_U = study_of_pair[pair_of.reshape(-1)]
        self._study_units = units[np.argsort(study_U, kind="stable")]
        self._bounds = np.concatenate([[0], np.cumsum(np.bincount(study_U, minlength=len(pairs)))])
        self._split = self._split_studies()

    def _split_studies(self) -> dict[tuple[str, str | None], str]:
        """Return the keys of studies that are split, by the study before and the modality."""
        groups, counts = np.unique(self._study_group, return_counts=True)
        modalities_of: dict[int, list[Modality]] = {group: [] for group in groups[counts > 1].tolist()}
        if modalities_of:
            for group, modality in zip(self._study_group.tolist(), self._study_modality, strict=True):
                if group in modalities_of:
                    modalities_of[group].append(modality)
        return {
            (grouped, modality): key
            for group, modalities in modalities_of.items()
            for grouped in (self._grouped[group].as_py(),)
            for modality, key in split_keys(grouped, modalities, self._key).items()
        }

    def is_scored(self, row: int) -> bool:
        """Whether the unit of a first file answers something."""
        place = int(np.searchsorted(self._row, row))
        return place < len(self._row) and self._row[place] == row and bool(self._wanted[place])

    def files(self) -> Iterator[pa.Table]:
        """Yield files.parquet as a run over the files would have written it, some rows at a time."""
        grouped_of = self._grouped_of()
        for table in self._embeddings.file_blocks(_FILES_AT_ONCE):
            yield self._decided(table, grouped_of)

    def _decided(self, table: pa.Table, grouped_of: dict[str, str]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        read = _DECIDED if self._names is None else (*_DECIDED, "headers")
        columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in read}
        if self._name_of is not None:
            columns["path"] = [self._name_of(path) for path in columns["path"]]
        is_unread, is_copy = [False] * table.num_rows, [False] * table.num_rows
        for n, (number, place, copy_of, study, name, reason) in enumerate(
            zip(
                columns["unit"],
                self._places(table.column("unit")),
                *(columns[c] for c in _DECIDED[1:4]),
                columns["reason"],
                strict=True,
            )
        ):
            problem = None if place is None else self._alike[self._alike_U[place]].problem
            if number in self._copies or copy_of in self._copies:  # what counted for a broken file is not wanted
                columns["copy_of"][n] = self._copies[number] if number in self._copies else self._copies[copy_of]
            if number in self._copies:
                problem, is_copy[n] = COPY, True
            if problem is not None:
                is_unread[n] = True
                columns["status"][n], columns["reason"][n] = str(problem.status), str(problem.reason)
                columns["message"][n] = problem.message
            elif reason is None:
                columns["status"][n] = str(Status.SCORED)
                columns["message"][n] = None if place is None else self._alike[self._alike_U[place]].remark
            if study is not None:
                grouped = grouped_of.get(study) or study
                modality = None if is_copy[n] else name
                columns["study"][n] = self._split.get((grouped, modality), grouped)
                self._remember(columns, n, place, grouped)
        for name in (*_CHANGED, "path"):
            column = table.schema.get_field_index(name)
            table = table.set_column(column, name, pa.array(columns[name], table.schema.field(name).type))
        for names, is_blank in ((_OF_A_READING, is_unread), (_OF_A_UNIT, is_copy)):
            for name in names if any(is_blank) else ():
                number, column = table.schema.get_field_index(name), table.column(name)
                blank = pa.scalar(None, column.type)
                table = table.set_column(number, name, pc.if_else(pa.array(is_blank), blank, column))  # pyright: ignore
        return table

    def _places(self, units: pa.ChunkedArray) -> list[int | None]:
        """Return the place of the unit of each of some files; None where there is none."""
        if not len(self._row):
            return [None] * len(units)
        row_N = units.fill_null(-1).to_numpy()
        place_N = np.minimum(np.searchsorted(self._row, row_N), len(self._row) - 1)
        is_there = self._row[place_N] == row_N
        return [
            place if is_present else None for place, is_present in zip(place_N.tolist(), is_there.tolist(), strict=True)
        ]

    def _remember(self, columns: dict[str, list[Any]], n: int, place: int | None, grouped: str) -> None:
        """Remember of a file what its study's scores say of it."""
        if columns["reason"][n] is None:
            if place is not None:
                self._way[place] = self._ways.setdefault(columns["preprocessing"][n] or "", len(self._ways))
            if self._names is not None:
                headers = columns["headers"][n] if columns["modality"][n] == Modality.ECG else None
                self._names.setdefault(columns["study"][n], []).append((columns["path"][n], headers))
                if place is not None and self._scores.asks_views(Modality(columns["modality"][n])):
                    self._path_of[int(self._row[place])] = columns["path"][n]
        elif columns["status"][n] == Status.FAILED:
            self._num_failed[grouped, columns["modality"][n]] += 1

    def _grouped_of(self) -> dict[str, str]:
        """Return the study before it was split, by the key that it has in the folder."""
        import pyarrow.compute as pc

        table = self._embeddings.columns("units", ["study", "grouped"])
        table = table.filter(pc.not_equal(table.column("study"), table.column("grouped")))  # pyright: ignore
        return dict(zip(table.column("study").to_pylist(), table.column("grouped").to_pylist(), strict=True))

    def scores(self, step: Callable[[int], None]) -> Iterator[ScoreRow | ExamRow]:
        """Yield the scores once `files` was read to its end, studies in the order of their first files.

        Args:
            step: Function called with the number of studies whose scores were yielded since the last call.
        """
        if not self.num_studies:
            return
        views_of_study = np.add.reduceat(self._num_views[self._study_units], self._bounds[:-1])
        most = max(1, _VECTOR_BYTES // (4 * self._embeddings.dim))
        block_of_study = (np.cumsum(views_of_study) - views_of_study) // most
        edges = [0, *(np.flatnonzero(np.diff(block_of_study)) + 1).tolist(), self.num_studies]
        with torch_threads(1):  # as in a run: the last bits of a sentence's vector depend on the number
            for start, stop in pairwise(edges):
                yield from self._answers(range(start, stop))
                step(stop - start)

    def _answers(self, studies: range) -> Iterator[ScoreRow | ExamRow]:
        """Yield the scores of some studies, whose vectors are read for them."""
        bounds = self._bounds[studies.start : studies.stop + 1]
        units = self._study_units[bounds[0] : bounds[-1]]
        num_views = self._num_views[units]
        start_of = np.cumsum(num_views) - num_views
        places_V = np.arange(num_views.sum()) + np.repeat(self._first_view[units] - start_of, num_views)
        vectors_VD = self._embeddings.take("views", places_V)
        answers: list[list[ScoreRow | ExamRow]] = [[] for _ in studies]
        alike_of, bounds = self._alike_U[units].tolist(), (bounds - bounds[0]).tolist()
        vectors_of = [vectors_VD[start : start + num] for start, num in zip(start_of, num_views, strict=True)]
        exams: dict[tuple[int, ...], ExamFeatures] = {}
        for t, question in enumerate(self._scores.tasks):
            together: dict[tuple[Modality, int], list[tuple[int, int, NDArray[np.intp]]]] = {}
            for n, (low, high) in enumerate(pairwise(bounds)):
                fitting = [unit for unit in range(low, high) if self._alike[alike_of[unit]].fits[t]]
                if fitting and self._scores.asks_views(self._study_modality[studies[n]]):
                    places = tuple(units[fitting].tolist())
                    exam = exams[places] = exams.get(places) or self._exam(places, [vectors_of[u] for u in fitting])
                    facts = self._facts(studies[n], places[0], 0)
                    answers[n] += map(self._with_file, self._scores.examine(question, facts, exam))
                elif fitting:
                    ranges = [np.arange(start_of[unit], start_of[unit] + num_views[unit]) for unit in fitting]
                    views = ranges[0] if len(ranges) == 1 else np.concatenate(ranges)
                    group = together.setdefault((self._study_modality[studies[n]], len(views)), [])
                    group.append((n, int(units[fitting[0]]), views))
            for (modality, num_images), group in together.items():
                for start in range(0, len(group), _TOGETHER):
                    some = group[start : start + _TOGETHER]
                    features_SVD = vectors_VD[np.stack([views for *_, views in some])]
                    scored = self._scores.scorer.studies(features_SVD, question, modality)
                    spreads = self._scores.scorer.spreads(features_SVD, question, modality)
                    for place, (n, first, _) in enumerate(some):
                        facts = self._facts(studies[n], first, num_images)
                        answers[n] += self._scores.rows_of(question, facts, place, *scored, spreads)
        for rows in answers:
            yield from rows

    def _exam(self, places: Sequence[int], features: Sequence[NDArray[np.float32]]) -> ExamFeatures:
        """Return the images of an examination, by the places of their units, with their vectors."""
        assert self._views is not None
        views = self._views.take(list(places)).to_pylist()
        rows = [int(self._row[place]) for place in places]
        triples = zip(rows, views, features, strict=True)
        images = [ExamImage(row, **values, features_VD=vectors) for row, values, vectors in triples]
        return exam_features(self._scores.model, images)

    def _with_file(self, row: ScoreRow | ExamRow) -> ScoreRow | ExamRow:
        """Name the file of an image's row; the ledger does that for itself."""
        if isinstance(row, ScoreRow) or row.row is None:
            return row
        return replace(row, file=self._path_of.get(row.row))

    def _facts(self, study: int, first_unit: int, num_images: int) -> StudyFacts:
        """Return what stands in the rows of a study.

        Args:
            study: Number of the study.
            first_unit: Place of the first unit that a task is about.
            num_images: Number of images that the task is about; 0 for an examination.
        """
        grouped: str = self._grouped[int(self._study_group[study])].as_py()  # pyright: ignore[reportAssignmentType]
        modality = self._study_modality[study]
        key = self._split.get((grouped, modality), grouped)
        patient = self._patient[int(self._study_units[self._bounds[study]])].as_py()
        way = list(self._ways)[self._way[first_unit]]
        num_failed = self._num_failed[grouped, None] + self._num_failed[grouped, modality]
        files = [] if self._names is None else sorted(self._names[key], key=lambda file: file[0])
        text = json.dumps([path for path, _ in files[:NAMED_FILES]], ensure_ascii=False)
        note = note_of(headers for _, headers in files)
        alike = self._alike[self._alike_U[first_unit]]
        return StudyFacts(
            key, patient, modality, way, num_images, num_failed, text, len(files), note, alike.kind, alike.stranger
        )


def _units(embeddings: Embeddings, *, with_views: bool) -> pa.Table:
    """Return the units that have vectors, and those that failed late, in the order of files."""
    import pyarrow as pa

    names = ["row", "grouped", "patient", "modality", "body_part", "kind", "stranger", "instead_of"]
    names += ["laterality", "view", "headers"] if with_views else []
    table = embeddings.columns("units", [*names, "num_views"])
    num_views = table.column("num_views").to_numpy()
    table = table.append_column("first_view", pa.array(np.cumsum(num_views) - num_views, pa.int64()))
    failed = embeddings.failed_units.select(names)
    for name in ("num_views", "first_view"):
        failed = failed.append_column(name, pa.array(np.zeros(failed.num_rows, np.int64)))
    return (pa.concat_tables([table, failed]).sort_by("row") if failed.num_rows else table).combine_chunks()


def _copies(table: pa.Table, has_problem: NDArray[np.bool_]) -> dict[int, int]:
    """Return the copies in the place of broken files that are not wanted: their rows, and those of the files."""
    import pyarrow as pa

    copies = table.select(["row", "instead_of"]).filter(pa.array(has_problem)).drop_null()
    return dict(zip(copies.column(0).to_pylist(), copies.column(1).to_pylist(), strict=True))

"""Questions put to stored vectors: the rows of files and scores that a run over the files themselves would have made.

What a question decides while files are read is decided here of what is kept: whether any task is about a modality and a
body part, whether a stranger may be asked, which studies are split. The rest was decided when the files were embedded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import Problem, Status
from medclip.files.grouping.studies import COPY
from medclip.runs.chunk import split_keys
from medclip.runs.ledger import NAMED_FILES
from medclip.runs.rows import FileRow, ScoreRow
from medclip.sample import Modality
from medclip.scoring.study_scores import StudyScores

_OF_A_READING = ("adapter", "preprocessing", "decoder", "laterality", "view", "steps", "headers")
"""Columns that only a scored file has."""

_OF_A_UNIT = ("kind", "unit", "modality", "modality_source", "modality_probability")
"""Columns that a copy does not have."""


@dataclass(eq=False)
class _Unit:
    """A unit as far as a question may decide it anew."""

    row: int
    grouped: str
    patient: str | None
    modality: Modality
    body_part: str
    stranger: bool
    instead_of: int | None
    first_view: int = 0
    num_views: int = 0
    """0 for a unit that failed after its modality was known."""
    problem: Problem | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether its vectors answer something."""
        return self.num_views > 0 and self.problem is None


class StoredUnits:
    """The units of a folder of embeddings, as a question finds them.

    Args:
        embeddings: The folder.
        scores: The questions, and the model that understands them.
        key: Key of the identity hashes: studies that are split get their keys by it.
    """

    def __init__(self, embeddings: Embeddings, scores: StudyScores, key: bytes) -> None:
        self._embeddings, self._scores, self._key = embeddings, scores, key
        self._units = list(_units(embeddings))
        self._decide()
        self._keys = self._split()

    def _decide(self) -> None:
        """Pass over what no task is about, as a run does before it computes."""
        refuse, answers = self._scores.refuse, {}
        for unit in self._units:
            asked = (unit.modality, unit.body_part)
            if asked not in answers:
                answers[asked] = refuse(*asked)
            unit.problem = answers[asked]
            if unit.problem is None and unit.stranger:
                unit.problem = self._scores.refuse_stranger(unit.modality)

    def _split(self) -> dict[tuple[str, Modality], str]:
        """Return the key of each study and modality that answers something."""
        modalities_of: dict[str, list[Modality]] = {}
        for unit in self._units:
            if unit.is_wanted:
                modalities_of.setdefault(unit.grouped, []).append(unit.modality)
        return {
            (grouped, modality): key
            for grouped, modalities in modalities_of.items()
            for modality, key in split_keys(grouped, modalities, self._key).items()
        }

    def files(self) -> list[FileRow]:
        """Return the rows of files.parquet, in its order."""
        rows = [FileRow(**values) for values in self._embeddings.files.to_pylist()]
        units = {unit.row: unit for unit in self._units}
        grouped_of = self._grouped()
        refused_copies = {unit.row: unit.instead_of for unit in self._units
                          if unit.instead_of is not None and unit.problem is not None}  # fmt: skip
        return [self._file(row, units.get(row.unit or 0), grouped_of, refused_copies) for row in rows]

    def _file(
        self, row: FileRow, unit: _Unit | None, grouped_of: Mapping[str, str], refused_copies: Mapping[int, int]
    ) -> FileRow:
        problem = None if unit is None else unit.problem
        # What counted in the place of a broken file may not be wanted.
        broken = refused_copies.get(row.unit or 0, refused_copies.get(row.copy_of or 0))
        if broken is not None:
            row = replace(row, copy_of=broken)
        if row.unit in refused_copies:
            problem = COPY
            row = replace(row, **dict.fromkeys(_OF_A_UNIT))
        if problem is not None:
            values = {"status": str(problem.status), "reason": str(problem.reason), "message": problem.message}
            row = replace(row, **values, **dict.fromkeys(_OF_A_READING))
        elif row.reason is None:
            row = replace(row, status=str(Status.SCORED))
        if row.study is None:
            return row
        grouped = grouped_of.get(row.study, row.study)
        modality = None if row.modality is None else Modality(row.modality)
        return replace(row, study=self._keys.get((grouped, modality), grouped) if modality else grouped)

    def _grouped(self) -> dict[str, str]:
        """Return the study before it was split, by the key that it has in the folder."""
        units = self._embeddings.units
        studies = zip(units.column("study").to_pylist(), units.column("grouped").to_pylist(), strict=True)
        return {study: grouped for study, grouped in studies if study != grouped}

    def rows(self, files: Sequence[FileRow]) -> Iterator[ScoreRow]:
        """Yield the scores, studies in the order of their first files.

        Args:
            files: What `files` returned.
        """
        preprocessing, failed, names = {}, Counter[tuple[str, str | None]](), {}
        grouped_of = {key: grouped for (grouped, _), key in self._keys.items()}
        for file in files:
            if file.reason is None:
                preprocessing[file.unit] = file.preprocessing or ""
                names.setdefault(file.study, []).append(file.path)
            elif file.status == Status.FAILED and file.study is not None:
                failed[grouped_of.get(file.study, file.study), file.modality] += 1
        vectors = self._embeddings.vectors("views")
        of_study: dict[str, list[_Unit]] = {}
        for unit in self._units:
            if unit.is_wanted:
                of_study.setdefault(self._keys[unit.grouped, unit.modality], []).append(unit)
        for study, units in of_study.items():
            named = sorted(names[study])
            text = json.dumps(named[:NAMED_FILES], ensure_ascii=False)
            first = units[0]
            num_failed = failed[first.grouped, None] + failed[first.grouped, first.modality]
            for asked in self._scores.tasks:
                fitting = [u for u in units if self._scores.fits(asked, u.modality, u.body_part, u.stranger)]
                if fitting:
                    features, way = _views(vectors, fitting), preprocessing[fitting[0].row]
                    for row in self._scores.answer(
                        asked, features, first.modality, study, first.patient, way, num_failed
                    ):
                        yield replace(row, files=text, num_files=len(named))


def _views(vectors_ND: NDArray[np.float32], units: Sequence[_Unit]) -> NDArray[np.float32]:
    return np.concatenate([vectors_ND[unit.first_view : unit.first_view + unit.num_views] for unit in units])


def _units(embeddings: Embeddings) -> Iterator[_Unit]:
    """Yield the units that have vectors, and those that failed late, in the order of files."""
    names = ["row", "grouped", "patient", "modality", "body_part", "stranger", "instead_of"]
    units = embeddings.units
    first_view, ordered = 0, []
    columns = [units.column(name).to_pylist() for name in names]
    modalities = {name: Modality(name) for name in set(columns[3])}
    for *values, num_views in zip(*columns, units.column("num_views").to_pylist(), strict=True):
        row, grouped, patient, modality, body_part, stranger, instead_of = values
        unit = _Unit(row, grouped, patient, modalities[modality], body_part, stranger, instead_of)
        unit.first_view, unit.num_views = first_view, num_views
        ordered.append(unit)
        first_view += num_views
    failed = embeddings.failed_units
    for values in zip(*(failed.column(name).to_pylist() for name in names), strict=True):
        row, grouped, patient, modality, *others = values
        ordered.append(_Unit(row, grouped, patient, Modality(modality), *others))
    yield from sorted(ordered, key=lambda unit: unit.row)

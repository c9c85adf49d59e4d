"""Questions put to stored vectors: the rows of files and scores that a run over the files themselves would have made.

What a question decides while files are read is decided here of what is kept: whether any task is about a modality and a
body part, whether a stranger may be asked, which studies are split. The rest was decided when the files were embedded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.embeddings.open_embeddings import Embeddings
from medclip.errors import Problem, Status
from medclip.files.grouping.studies import COPY
from medclip.models.devices import torch_threads
from medclip.runs.chunk import split_keys
from medclip.runs.ledger import NAMED_FILES
from medclip.runs.rows import ScoreRow
from medclip.sample import Modality
from medclip.scoring.study_scores import StudyFacts, StudyScores

if TYPE_CHECKING:
    import pyarrow as pa

_DECIDED = ("unit", "copy_of", "study", "modality", "status", "reason", "message")
"""Columns that a question may change, and those that tell which rows."""
_TOGETHER = 256
"""Studies that are scored at once: with 80 wordings of 14 classes their spreads take 2 MB."""
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
        self._table = embeddings.units
        self._units = list(_units(embeddings, self._table))
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

    def _split(self) -> dict[tuple[str, str | None], str]:
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

    def files(self) -> pa.Table:
        """Return files.parquet as a run over the files would have written it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._embeddings.files
        columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in _DECIDED}
        units = {unit.row: unit for unit in self._units if unit.problem is not None}
        copies = {row: unit.instead_of for row, unit in units.items() if unit.instead_of is not None}
        grouped_of = self._grouped()
        is_unread, is_copy = [False] * table.num_rows, [False] * table.num_rows
        for n, (number, copy_of, study, name, reason) in enumerate(
            zip(*(columns[name] for name in ("unit", "copy_of", "study", "modality", "reason")), strict=True)
        ):
            problem = None if number not in units else units[number].problem
            if number in copies or copy_of in copies:  # what counted in the place of a broken file is not wanted
                columns["copy_of"][n] = copies[number] if number in copies else copies[copy_of]
            if number in copies:
                problem, is_copy[n] = COPY, True
            if problem is not None:
                is_unread[n] = True
                columns["status"][n], columns["reason"][n] = str(problem.status), str(problem.reason)
                columns["message"][n] = problem.message
            elif reason is None:
                columns["status"][n] = str(Status.SCORED)
            if study is not None:
                grouped = grouped_of.get(study) or study
                modality = None if is_copy[n] else name
                columns["study"][n] = self._keys.get((grouped, modality), grouped)
        for name in ("status", "reason", "message", "study", "copy_of"):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pa.array(columns[name], table.schema.field(name).type))
        for names, is_blank in ((_OF_A_READING, is_unread), (_OF_A_UNIT, is_copy)):
            for name in names if any(is_blank) else ():
                place, column = table.schema.get_field_index(name), table.column(name)
                blank = pa.scalar(None, column.type)
                table = table.set_column(place, name, pc.if_else(pa.array(is_blank), blank, column))  # pyright: ignore
        return table

    def _grouped(self) -> dict[str, str]:
        """Return the study before it was split, by the key that it has in the folder."""
        studies = zip(*(self._table.column(name).to_pylist() for name in ("study", "grouped")), strict=True)
        return {study: grouped for study, grouped in studies if study != grouped}

    def scores(self, files: pa.Table) -> list[ScoreRow]:
        """Return the scores, studies in the order of their first files.

        Args:
            files: What `files` returned; its paths may be hashed.
        """
        of_study: dict[str, list[_Unit]] = {}
        for unit in self._units:
            if unit.is_wanted:
                of_study.setdefault(self._keys[unit.grouped, unit.modality], []).append(unit)
        facts_of = self._facts(files, of_study)
        with torch_threads(1):  # as in a run: the last bits of a sentence's vector depend on the number
            return self._answers(of_study, facts_of)

    def _answers(
        self, of_study: Mapping[str, Sequence[_Unit]], facts_of: Callable[[str, int, int], StudyFacts]
    ) -> list[ScoreRow]:
        vectors = self._embeddings.vectors("views")
        answers: dict[str, list[ScoreRow]] = {study: [] for study in of_study}
        for asked in self._scores.tasks:
            alike: dict[tuple[Modality, int], list[tuple[str, list[_Unit]]]] = {}
            for study, units in of_study.items():
                fitting = [u for u in units if self._scores.fits(asked, u.modality, u.body_part, u.stranger)]
                if fitting:
                    num_views = sum(unit.num_views for unit in fitting)
                    alike.setdefault((fitting[0].modality, num_views), []).append((study, fitting))
            for (modality, num_views), studies in alike.items():
                for start in range(0, len(studies), _TOGETHER):
                    some = studies[start : start + _TOGETHER]
                    features = np.stack([_views(vectors, units) for _, units in some])
                    scored = self._scores.scorer.studies(features, asked, modality)
                    spreads = self._scores.scorer.spreads(features, asked, modality)
                    for place, (study, units) in enumerate(some):
                        facts = facts_of(study, units[0].row, num_views)
                        answers[study] += self._scores.rows_of(asked, facts, place, *scored, spreads)
        return [row for study in answers.values() for row in study]

    def _facts(self, files: pa.Table, of_study: Mapping[str, Sequence[_Unit]]) -> Callable[[str, int, int], StudyFacts]:
        """Return what makes the facts of a study, by its key, its first unit and its number of images."""
        ways: dict[int, str] = {}
        names: dict[str, list[str]] = {}
        failed = Counter[tuple[str, str | None]]()
        grouped_of = {key: grouped for (grouped, _), key in self._keys.items()}
        columns = ("unit", "reason", "status", "study", "modality", "path", "preprocessing")
        values: list[list[Any]] = [files.column(name).to_pylist() for name in columns]
        for unit, reason, status, study, modality, path, way in zip(*values, strict=True):
            if reason is None:
                ways[unit] = way or ""
                names.setdefault(study, []).append(path)
            elif status == Status.FAILED and study is not None:
                failed[grouped_of.get(study) or study, modality] += 1

        def facts(study: str, first_row: int, num_images: int) -> StudyFacts:
            unit, named = of_study[study][0], sorted(names[study])
            num_failed = failed[unit.grouped, None] + failed[unit.grouped, unit.modality]
            text = json.dumps(named[:NAMED_FILES], ensure_ascii=False)
            return StudyFacts(
                study, unit.patient, unit.modality, ways[first_row], num_images, num_failed, text, len(named)
            )

        return facts


def _views(vectors_ND: NDArray[np.float32], units: Sequence[_Unit]) -> NDArray[np.float32]:
    return np.concatenate([vectors_ND[unit.first_view : unit.first_view + unit.num_views] for unit in units])


def _units(embeddings: Embeddings, units: pa.Table) -> Iterator[_Unit]:
    """Yield the units that have vectors, and those that failed late, in the order of files."""
    names = ["row", "grouped", "patient", "modality", "body_part", "stranger", "instead_of"]
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

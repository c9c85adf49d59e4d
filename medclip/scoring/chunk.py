"""Score one chunk: readings become features, unknown modalities are inferred, studies get their scores.

Work on a chunk has two halves, so that the model can compute on one chunk while the reading processes read the next:
`begin` consumes the first readings, decides modalities and asks for the second readings; `finish` consumes those and
gives the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import Source
from medclip.adapters.registry import slot
from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Problem, Reason, Status
from medclip.files.pseudonyms import keyed_hash
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.supported import other_modality
from medclip.models.open_set import typical
from medclip.models.parallel_encoding import Batches
from medclip.progress import Progress
from medclip.runs.ledger import ChunkResult
from medclip.runs.plan import READ_AHEAD, Plan, PlannedFile, PlannedUnit
from medclip.runs.read_unit import Reading, read
from medclip.runs.rows import FileRow, Picture, ScoreRow
from medclip.sample import Kind, Modality, ModalitySource
from medclip.scoring.problems import (
    no_adapter,
    no_modality,
    no_task,
    not_trained,
    sentence,
    uncertain,
    untypical,
)
from medclip.scoring.tasks import AskedTask, Scorer
from medclip.settings import Settings

_NO_PIXELS = np.empty((0, 0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Context:
    """What every chunk of a run needs."""

    plan: Plan
    model: Any
    scorer: Scorer
    tasks: tuple[AskedTask, ...]
    modality_task: AskedTask | None
    min_confidence: float
    pool: ReadingPool
    encoders: ThreadPoolExecutor
    num_encoders: int
    settings: Settings
    key: bytes
    progress: Progress

    def first_readings(self, chunk_indices: Sequence[int]) -> Iterator[Future[Reading]]:
        """Ask for the first reading of every unit that has one, in plan order."""
        return self.pool.map(
            read,
            (
                self.job(item)
                for index in chunk_indices
                for item in items_of(self.plan, index)
                if item.problem is None and self.unread(item) is None
            ),
            ahead=READ_AHEAD,
        )

    def job(self, item: _Item) -> tuple[Any, ...]:
        """Give the arguments of one reading."""
        assert item.unit is not None
        ordered = [self.plan.files[index] for index in item.unit.files]
        facts = tuple(file.facts for file in ordered if file.facts is not None)
        unit, paths = item.unit, tuple(file.ref.path for file in ordered)
        source = Source(unit.kind, paths, facts, unit.notes, unit.mpp_um)
        return source, item.modality, self.model.preprocess, self.settings

    def unread(self, item: _Item) -> Problem | None:
        """Say why a unit's pixels are not even read: nothing could be done with them."""
        if item.modality is None:
            other = other_modality(item.header) if item.header is not None else None
            if other is not None:
                return no_adapter(other)
            if item.kind is not Kind.IMAGE or self.modality_task is None:
                return no_modality(item.kind)
        elif item.kind is not Kind.IMAGE and slot(item.modality, item.kind) not in self.model.preprocess.adapters:
            return not_trained(item.modality, item.kind)
        return None


@dataclass(eq=False)
class _Item:
    """One unit on its way through a chunk; a file that is not read is an item of its own."""

    files: tuple[PlannedFile, ...]
    """In the order of rows."""
    unit: PlannedUnit | None
    study: int | None
    problem: Problem | None = None
    culprit: str | None = None
    """Path of the file that the problem is about, where the unit has several."""
    modality: Modality | None = None
    source: ModalitySource | None = None
    probability: float | None = None
    reading: Reading | None = None
    """Without pixels once they are encoded."""
    features_VD: NDArray[np.float32] | None = None

    @property
    def kind(self) -> Kind:
        """What its files are together."""
        return Kind.IMAGE if self.unit is None else self.unit.kind

    @property
    def header(self) -> DicomHeader | None:
        """The first file's header, if it is DICOM."""
        facts = self.files[0].facts
        return None if facts is None else facts.header

    @property
    def body_part(self) -> str:
        """What the header states; empty where there is none."""
        return "" if self.header is None else self.header.body_part

    def problem_of(self, file: PlannedFile) -> Problem | None:
        """Give a file's problem: the unit's, in other words where another file of it is the cause."""
        if self.problem is None or self.culprit in (None, str(file.ref.path)):
            return self.problem
        return Problem(self.problem.reason, f"Another file of the same {self.kind} could not be read.")


def items_of(plan: Plan, chunk: int) -> list[_Item]:
    """Give the items of a chunk, each where its first file stands."""
    members: dict[tuple[str, int], list[PlannedFile]] = {}
    for index in plan.chunks[chunk]:
        file = plan.files[index]
        members.setdefault(("file", index) if file.unit is None else ("unit", file.unit), []).append(file)
    items = []
    for files in members.values():
        first = files[0]
        unit = None if first.unit is None else plan.units[first.unit]
        study = None if first.study is None else plan.studies[first.study]
        modality = None if study is None or first.problem is not None else study.modality
        source = None if first.problem is not None else first.source
        items.append(_Item(tuple(files), unit, first.study, first.problem, None, modality, source))
    return items


@dataclass(eq=False)
class ChunkWork:
    """A chunk that has begun; call `finish` for its result."""

    context: Context
    index: int
    items: list[_Item]
    _known: _Encoder | None = None
    _second: list[_Item] = field(default_factory=list)
    _second_readings: Iterator[Future[Reading]] = field(default_factory=lambda: iter(()))

    @classmethod
    def begin(cls, context: Context, index: int, readings: Iterator[Future[Reading]]) -> ChunkWork:
        """Encode the files whose modality is known and infer the others'."""
        work = cls(context, index, items_of(context.plan, index))
        known, unknown = _Encoder(context), _Encoder(context)
        work._known = known
        for item in work.items:
            if item.problem is None:
                item.problem = context.unread(item)
                if item.problem is None:
                    _take(item, next(readings))
                if item.problem is None and item.modality is not None:
                    item.problem = no_task(context.tasks, item.modality, item.body_part)
                if item.problem is None:
                    (unknown if item.modality is None else known).add(item)
            context.progress.step(len(item.files))
        known.close()
        unknown.wait()
        work._infer([item for item in work.items if item.problem is None and item.modality is None])
        return work

    def finish(self) -> ChunkResult:
        """Encode what was read a second time and give the chunk's rows."""
        encoder = _Encoder(self.context)
        for item in self._second:
            _take(item, next(self._second_readings))
            if item.problem is None:
                encoder.add(item)
        encoder.wait()
        if self._known is not None:
            self._known.wait()
        for item in self.items:
            if item.features_VD is not None and not np.isfinite(item.features_VD).all():
                item.problem = Problem(Reason.NON_FINITE, "The model's features of this image are not finite numbers.")
        keys = self._study_keys()
        pictures = tuple(
            Picture(
                item.files[0].row,
                item.reading.thumbnail,
                item.reading.burned_in,
            )
            for item in self.items
            if item.problem is None and item.reading is not None
        )
        files = tuple(self._file_row(item, file, keys) for item in self.items for file in item.files)
        return ChunkResult(self.index, files, tuple(self._score_rows(keys)), pictures)

    def _infer(self, items: list[_Item]) -> None:
        """Decide modalities and ask for the second readings of those that were decided."""
        context, asked = self.context, self.context.modality_task
        if not items or asked is None:
            return
        names = context.scorer.vectors(asked).names
        guesses: dict[str, list[tuple[_Item, float]]] = {}
        for item in items:
            assert item.features_VD is not None
            _, _, probability = context.scorer.study(item.features_VD, asked)
            best = int(np.argmax(probability))
            guesses.setdefault(names[best], []).append((item, float(probability[best])))
        for name, guessed in guesses.items():
            self._decide(name, guessed)
        self._second = [item for item in items if item.problem is None]
        jobs = (context.job(item) for item in self._second)
        self._second_readings = context.pool.map(read, jobs, ahead=READ_AHEAD, urgent=True)

    def _decide(self, name: str, guessed: list[tuple[_Item, float]]) -> None:
        """Believe the guesses of one modality that are sure and typical; the others get their problem."""
        first_views = np.stack([item.features_VD[0] for item, _ in guessed if item.features_VD is not None])
        for (item, probability), is_typical in zip(
            guessed, typical(self.context.model, first_views, name), strict=True
        ):
            item.features_VD = None
            item.problem = uncertain(name, probability, self.context.min_confidence)
            if item.problem is None and not is_typical:
                item.problem = untypical(name)
            if item.problem is None:
                item.modality, item.source, item.probability = Modality(name), ModalitySource.INFERRED, probability
                item.problem = no_task(self.context.tasks, item.modality, item.body_part)

    def _study_keys(self) -> dict[tuple[int, Modality | None], str]:
        """Give each study its key; where files of one turn out to be of two modalities, it is split."""
        found: dict[int, list[Modality]] = {}
        for item in self.items:
            if item.problem is None and item.study is not None and item.modality is not None:
                found.setdefault(item.study, []).append(item.modality)
        keys: dict[tuple[int, Modality | None], str] = {}
        for index, modalities in found.items():
            key = self.context.plan.studies[index].key
            for modality in dict.fromkeys(modalities):
                split = len(set(modalities)) > 1
                keys[index, modality] = keyed_hash("study", f"{key}/{modality}", self.context.key) if split else key
        return keys

    def _file_row(self, item: _Item, file: PlannedFile, keys: dict[tuple[int, Modality | None], str]) -> FileRow:
        reading, problem = item.reading, item.problem_of(file)
        study = None if file.study is None else self.context.plan.studies[file.study]
        row = FileRow(
            row=file.row,
            path=file.ref.name,
            sha256=(file.facts.sha256 or None) if file.facts else None,
            size_bytes=file.ref.size_bytes,
            format=str(file.facts.format) if file.facts else None,
            status=str(problem.status if problem else Status.SCORED),
            reason=str(problem.reason) if problem else None,
            message=sentence(problem.message) if problem else None,
            kind=None if item.unit is None else str(item.kind),
            unit=None if item.unit is None else item.files[0].row,
            modality=item.modality,
            modality_source=item.source,
            modality_probability=item.probability,
        )
        if study is not None and file.study is not None:
            row = replace(row, study=keys.get((file.study, item.modality), study.key), grouping=study.grouping)
        if reading is not None and problem is None:
            row = replace(
                row,
                adapter=reading.adapter,
                preprocessing=reading.preprocessing,
                decoder=reading.decoder or None,
                laterality=reading.laterality,
                view=reading.view,
                steps=json.dumps(reading.steps, ensure_ascii=False),
                headers=reading.headers,
            )
        return row

    def _score_rows(self, keys: dict[tuple[int, Modality | None], str]) -> Iterator[ScoreRow]:
        for (index, modality), key in keys.items():
            assert modality is not None
            items = [i for i in self.items if i.problem is None and i.study == index and i.modality == modality]
            failed = [
                i
                for i in self.items
                if i.study == index
                and i.problem is not None
                and i.problem.status is Status.FAILED
                and i.modality in (None, modality)
            ]
            for asked in self.context.tasks:
                fitting = [item for item in items if asked.fits(modality, item.body_part)]
                if not fitting:
                    continue
                features = np.concatenate([i.features_VD for i in fitting if i.features_VD is not None])
                first = fitting[0].reading
                assert first is not None
                names, logits, probability = self.context.scorer.study(features, asked)
                for name, logit, p in zip(names, logits, probability, strict=True):
                    yield ScoreRow(
                        study=key,
                        patient=self.context.plan.studies[index].patient,
                        modality=modality,
                        task=asked.task.name,
                        class_=name,
                        kind=asked.task.kind,
                        probability=float(p),
                        logit=float(logit),
                        num_images=len(features),
                        model=self.context.model.name,
                        model_version=str(self.context.model.card.version),
                        preprocessing=first.preprocessing,
                        num_failed=sum(len(i.files) for i in failed),
                    )


class _Encoder:
    """Gives each item its features; pixels go as soon as possible."""

    def __init__(self, context: Context) -> None:
        self._batches = Batches(context.model, context.encoders, context.num_encoders, _give)
        self.close, self.wait = self._batches.close, self._batches.wait

    def add(self, item: _Item) -> None:
        assert item.reading is not None
        self._batches.add(item, item.reading.pixels_VHWC)
        item.reading = replace(item.reading, pixels_VHWC=_NO_PIXELS)


def _give(item: _Item, feature_D: NDArray[np.float32]) -> None:
    row = feature_D[None].copy()
    item.features_VD = row if item.features_VD is None else np.concatenate([item.features_VD, row])


def _take(item: _Item, future: Future[Reading]) -> None:
    try:
        item.reading = future.result()
    except MedclipError as error:
        item.problem = error.problem()
        item.culprit = error.where if any(error.where == str(file.ref.path) for file in item.files) else None

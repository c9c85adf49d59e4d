"""One chunk of a run: readings become features, unknown modalities are inferred, files get their rows.

Work on a chunk has two halves, so that the model can compute on one chunk while the reading processes read the next:
`begin` consumes the first readings, decides modalities and asks for the second readings; `finish` consumes those. What
is done with the features of a study is the business of whoever runs the chunk.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import Source
from medclip.adapters.registry import slot
from medclip.dicom.header.body_parts import SAYS_NO_BODY_PART, SEEN
from medclip.dicom.header.read import DicomHeader
from medclip.errors import MedclipError, Problem, Reason, Status
from medclip.files.grouping.units import is_secondary
from medclip.files.pseudonyms import keyed_hash
from medclip.files.readers.job_queue import NO_EFFORT, Effort, JobFuture
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import other_modality
from medclip.models.encoding.parallel_encoding import Batches
from medclip.models.prototypes.home_images import home_distances
from medclip.models.prototypes.open_set import typical
from medclip.progress import Progress
from medclip.runs.planning.plan import Chunk, Plan, PlannedFile, PlannedUnit
from medclip.runs.rows import ChunkResult, ExamRow, FileRow, MapImage, MapRow, ScoreRow, Thumbnail, UnitRow
from medclip.runs.units.problems import (
    capture_unlike,
    flat,
    guess_problem,
    header_contradiction,
    in_colour,
    no_adapter,
    no_modality,
    not_trained,
    untypical,
)
from medclip.runs.units.read_unit import Reading, read, with_origin
from medclip.sample import Kind, Modality, ModalitySource
from medclip.settings import Settings

Infer = Callable[[NDArray[np.float32]], tuple[str, float]]
"""From the features of a unit, float32 [V, D], to the likeliest modality and its probability."""
Part = Callable[[NDArray[np.float32], Modality], str]
"""From the features of a unit, float32 [V, D], and its modality to the terms of the body part that it shows; blank
where that is not sure."""
Refuse = Callable[[Modality, str, Kind], Problem | None]
"""From a modality, the body part that a header states and a kind to the problem of such a unit."""
Withheld = Callable[[Modality, str, Kind, bool], str | None]
"""From a modality, the body part that a header states, a kind and whether the image may be of any part to a sentence
that says what such a unit is not asked; None where it is asked everything."""
READ_AHEAD = 64
"""Items that may be under way or waiting at once: two chunks, about 15 MB at 224 px."""


@dataclass(frozen=True)
class Answers:
    """What a verb makes of the units of a run."""

    infer: Infer | None
    """Finds the likeliest modality of a unit by its features; None: units must say what they are."""
    refuse: Refuse
    """Returns why a unit of a modality, a body part and a kind is not wanted; None where it is."""
    refuse_stranger: Callable[[Modality], Problem | None]
    """Returns why a unit that neither states a body part nor looks like those of the training data is not wanted."""
    result: Callable[[ChunkWork], ChunkResult]
    """Makes what the ledger keeps of a finished chunk."""
    part: Part | None = None
    """Finds the body part of an image of which no header says it; None: the pack knows no parts."""
    asks_where: bool = False
    """Whether maps are asked for, which need to know where the model is shown what."""
    encoder: Any = None
    """What encodes units in the place of the model: rows of its vectors, and answers behind them; None: the model."""


@dataclass(frozen=True)
class Context:
    """What every chunk of a run needs."""

    model: Any
    answers: Answers
    min_confidence: float
    pool: ReadingPool
    encoders: Executor
    num_encoders: int
    settings: Settings
    key: bytes
    progress: Progress
    thumbnails: bool = True
    """Whether small images are kept for a report."""
    looks: bool = False
    """Whether it is kept what images are known again by."""
    weeks: bool = False
    """Whether the week of each examination is kept."""
    is_full: Callable[[], bool] = bool
    """Whether nothing may be read ahead: inputs that are brought from elsewhere have taken the room they may take."""
    halved: Callable[[int], None] = lambda _: None
    """Called where a batch was too large for the memory, with the number of images at a time that it did hold."""

    def first_readings(self, chunks: Iterable[Chunk]) -> Iterator[Future[Reading] | None]:
        """Ask for the first reading of every item, some items ahead; None for those that are not read.

        Items that are not read count: a folder of a million texts is no reason to plan ahead to its end.
        """
        waiting: deque[Future[Reading] | None] = deque()
        for item in (item for chunk in chunks for item in items_of(chunk)):
            unread = item.problem is not None or self.unread(item) is not None
            waiting.append(None if unread else self.pool.submit(read, *self.job(item)))
            while waiting and (len(waiting) >= READ_AHEAD or self.is_full()):
                yield waiting.popleft()
        yield from waiting

    def job(self, item: Item) -> tuple[Any, ...]:
        """Return the arguments of one reading."""
        wishes = (self.looks, self.thumbnails, self.answers.asks_where)
        return item.source_of_unit(), item.modality, self.model.preprocess, self.settings, *wishes

    def unread(self, item: Item) -> Problem | None:
        """Return why a unit's pixels are not even read: nothing could be done with them."""
        if item.modality is None:
            other = other_modality(item.header) if item.header is not None else None
            if other is not None:
                return no_adapter(other)
            if item.kind is not Kind.IMAGE or self.answers.infer is None:
                return no_modality(item.kind)
            return None
        if item.kind is not Kind.IMAGE and slot(item.modality, item.kind) not in self.model.preprocess.adapters:
            return not_trained(item.modality, item.kind)
        if item.header is None or item.source is not ModalitySource.HEADER:
            return None
        return header_contradiction(item.header)


@dataclass(eq=False)
class Item:
    """One unit on its way through a chunk; a file that is not read is an item of its own."""

    files: tuple[PlannedFile, ...]
    """By name."""
    ordered: tuple[PlannedFile, ...]
    """In reading order."""
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
    rows_VX: NDArray[np.float32] | None = None
    """The features, and behind them what `Answers.encoder` adds."""
    seen: str = ""
    """Terms of the body part that the model sees in it, where no header says one."""
    stranger: bool = False
    """Its header states no body part, and it is unlike the images of its modality that the model has seen."""
    instead_of: int | None = None
    """File that it is a copy of, where that one could not be read."""
    home_distance: float | None = None
    """As `FileRow.home_distance`."""
    effort: Effort = NO_EFFORT
    """What reading it took."""

    def efforts(self) -> Iterator[tuple[PlannedFile, Effort]]:
        """Yield its files with what reading each took: all were tried as often, and have equal parts of the time."""
        if self.effort.worker:
            seconds = self.effort.seconds / len(self.files)
            yield from ((file, replace(self.effort, seconds=seconds)) for file in self.files)

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
        """What the header states, in its descriptions, too, or else what is seen; empty where there is neither.

        Descriptions are not heard of a file that a person's table names.
        """
        stated = ""
        if self.header is not None:
            stated = self.header.body_part if self.source is ModalitySource.TABLE else self.header.stated_part
        return SEEN + self.seen if self.seen and _states_no_part(stated) else stated

    def source_of_unit(self) -> Source:
        """Return its files as an adapter takes them."""
        assert self.unit is not None
        facts = tuple(file.facts for file in self.ordered if file.facts is not None)
        paths = tuple(file.ref.path for file in self.ordered)
        return Source(self.unit.kind, paths, facts, self.unit.notes, self.unit.mpp_um, self.unit.stated_view)

    def problem_of(self, file: PlannedFile) -> Problem | None:
        """Return a file's problem: the unit's, in other words where another file of it is the cause."""
        if self.problem is None or self.culprit in (None, str(file.ref.path)):
            return self.problem
        return Problem(self.problem.reason, f"another file of the same {self.kind} could not be read.")


def items_of(chunk: Chunk) -> list[Item]:
    """Return the items of a chunk, each where its first file stands."""
    plan = chunk.plan
    members: dict[tuple[str, int], list[PlannedFile]] = {}
    for index in chunk.members:
        file = plan.files[index]
        members.setdefault(("file", index) if file.unit is None else ("unit", file.unit), []).append(file)
    items = []
    for files in members.values():
        first = files[0]
        unit = None if first.unit is None else plan.units[first.unit]
        ordered = tuple(files) if unit is None else tuple(plan.files[index] for index in unit.files)
        study = None if first.study is None else plan.studies[first.study]
        modality = None if study is None or first.problem is not None else study.modality
        source = None if first.problem is not None else first.source
        items.append(Item(tuple(files), ordered, unit, first.study, first.problem, None, modality, source))
    return items


@dataclass(eq=False)
class ChunkWork:
    """A chunk that has begun; call `finish` for its result."""

    context: Context
    chunk: Chunk
    items: list[Item]
    _known_encoder: _Encoder | None = None
    _second: list[Item] = field(default_factory=list)
    _second_readings: Iterator[Future[Reading]] = field(default_factory=lambda: iter(()))

    @classmethod
    def begin(cls, context: Context, chunk: Chunk, readings: Iterator[Future[Reading] | None]) -> ChunkWork:
        """Encode the files whose modality is known and infer the others'."""
        work = cls(context, chunk, items_of(chunk))
        of_modality, without_modality = _Encoder(context), _Encoder(context)
        work._known_encoder = of_modality
        for item in work.items:
            reading = next(readings)
            if item.problem is None:
                item.problem = context.unread(item)
                if reading is not None:
                    _take(item, reading)
                if item.problem is None and item.modality is not None:
                    item.problem = _look_of(item) or context.answers.refuse(item.modality, item.body_part, item.kind)
                if item.problem is None:
                    (without_modality if item.modality is None else of_modality).add(item)
            context.progress.step(len(item.files))
        work._read_copies(of_modality)
        of_modality.close()
        without_modality.wait()
        work._infer([item for item in work.items if item.problem is None and item.modality is None])
        return work

    def finish(self) -> ChunkResult:
        """Encode what was read a second time, so that every item has its features or its problem; return the rows."""
        encoder = _Encoder(self.context)
        for item in self._second:
            _take(item, next(self._second_readings))
            if item.problem is None:
                encoder.add(item)
        encoder.wait()
        if self._known_encoder is not None:
            self._known_encoder.wait()
        for item in self.items:
            rows = item.features_VD if item.rows_VX is None else item.rows_VX
            if rows is not None and not np.isfinite(rows).all():
                item.problem = Problem(Reason.NON_FINITE, "the model's features of this image are not finite numbers.")
        self._find_unlike_captures()
        self._find_strangers()
        self._see_parts()
        self._measure_distances()
        return self.context.answers.result(self)

    def result(
        self,
        scores: Sequence[ScoreRow | ExamRow] = (),
        units: Sequence[UnitRow] = (),
        withheld: Withheld = lambda modality, body_part, kind, is_stranger: None,
        maps: Sequence[tuple[MapRow, MapImage]] = (),
    ) -> ChunkResult:
        """Return what the ledger keeps of the finished chunk.

        Args:
            scores: The rows that were made of its studies, and of the views of those that are examinations.
            units: The rows that were made of its units.
            withheld: Function that returns what of the run a unit was not asked although it was scored, and why.
            maps: The maps of its images.
        """
        keys = self.study_keys()
        files = tuple(
            self._file_row(item, file, keys, message)
            for item, message in self._remarks(withheld)
            for file in item.files
        )
        thumbnails = tuple(
            Thumbnail(item.files[0].id, item.reading.thumbnail, item.reading.burned_in)
            for item in self.items
            if self.context.thumbnails and item.problem is None and item.reading is not None
        )
        studies = tuple(row for row in scores if isinstance(row, ScoreRow))
        exams = tuple(row for row in scores if isinstance(row, ExamRow))
        efforts = tuple((file.id, effort) for item in self.items for file, effort in item.efforts())
        of_maps, images = (tuple(part) for part in zip(*maps, strict=True)) if maps else ((), ())
        return ChunkResult(
            files, studies, thumbnails, self.chunk.plan.state, tuple(units), exams, efforts, of_maps, images
        )

    def _read_copies(self, encoder: _Encoder) -> None:
        """Have a copy count where the image that it copies cannot be read; only decoders know what is cut."""
        for failed in [item for item in self.items if item.problem and item.problem.status is Status.FAILED]:
            if failed.kind is not Kind.IMAGE:
                continue
            copies = [n for n, item in enumerate(self.items) if item.files[0].copy_of == failed.files[0].id]
            for number in copies:
                copy = _as_read(self.chunk.plan, self.items[number])
                if copy.modality is None or _sha256(copy) == _sha256(failed):
                    continue
                _take(copy, self.context.pool.submit(read, *self.context.job(copy)))
                refuse = self.context.answers.refuse
                copy.problem = copy.problem or _look_of(copy) or refuse(copy.modality, copy.body_part, copy.kind)
                if copy.problem is None:
                    copy.instead_of = failed.files[0].id
                    encoder.add(copy)
                    for other in copies:
                        self.items[other] = _as_copy(self.items[other], copy.files[0].id)
                    self.items[number] = copy
                    break

    def _infer(self, items: list[Item]) -> None:
        """Decide modalities and ask for the second readings of those that were decided."""
        context = self.context
        infer = context.answers.infer
        if not items or infer is None:
            return
        guesses: dict[str, list[tuple[Item, float]]] = {}
        for item in items:
            assert item.features_VD is not None
            name, probability = infer(item.features_VD)
            guesses.setdefault(name, []).append((item, probability))
        for name, guessed in guesses.items():
            self._decide(name, guessed)
        self._second = [item for item in items if item.problem is None]
        jobs = (context.job(item) for item in self._second)
        self._second_readings = context.pool.map(read, jobs, ahead=READ_AHEAD, urgent=True)

    def _find_strangers(self) -> None:
        """Mark the images that may be of any body part: a question about the chest is for chests only.

        Their header says no more than CR, or the model knows one modality and they say nothing: so the image is looked
        at. What a person says of a folder or a file is believed.
        """
        by_modality: dict[Modality, list[Item]] = {}
        for item in self.items:
            if item.problem is None and item.modality is not None and _may_be_of_any_part(item):
                by_modality.setdefault(item.modality, []).append(item)
        for modality, items in by_modality.items():
            first_views = np.stack([item.features_VD[0] for item in items if item.features_VD is not None])
            for item, is_typical in zip(items, typical(self.context.model, first_views, modality), strict=True):
                item.stranger = not is_typical
                if item.stranger:
                    item.problem = self.context.answers.refuse_stranger(modality)

    def _see_parts(self) -> None:
        """Look which body part images show of which no header says it: a chest is not asked about its knees."""
        see = self.context.answers.part
        for item in self.items if see is not None else ():
            is_asked = item.problem is None and item.kind is Kind.IMAGE and _states_no_part(item.body_part)
            if see is not None and is_asked and item.modality is not None and item.features_VD is not None:
                item.seen = see(item.features_VD, item.modality)

    def _find_unlike_captures(self) -> None:
        """Refuse copies of screens, sheets and films whose header says CT or MR and that look like no such slice."""
        by_modality: dict[Modality, list[Item]] = {}
        for item in self.items:
            if item.problem is None and item.modality is not None and _is_loose_capture(item):
                by_modality.setdefault(item.modality, []).append(item)
        for modality, items in by_modality.items():
            first_views = np.stack([item.features_VD[0] for item in items if item.features_VD is not None])
            for item, is_typical in zip(items, typical(self.context.model, first_views, modality), strict=True):
                item.problem = None if is_typical else capture_unlike(modality)

    def _measure_distances(self) -> None:
        """Measure how far images lie from those that the pack's figures were measured on."""
        by_modality: dict[str, list[Item]] = {}
        for item in self.items:
            if item.problem is None and item.features_VD is not None and item.kind is Kind.IMAGE:
                by_modality.setdefault(str(item.modality), []).append(item)
        for modality, items in by_modality.items():
            first_views = np.stack([item.features_VD[0] for item in items if item.features_VD is not None])
            distances = home_distances(self.context.model, first_views, modality)
            if distances is not None:
                for item, distance in zip(items, distances.tolist(), strict=True):
                    item.home_distance = round(distance, 4)  # of digits that hang on the batch

    def _decide(self, name: str, guessed: list[tuple[Item, float]]) -> None:
        """Believe the guesses of one modality that are sure and typical; the others get their problem."""
        first_views = np.stack([item.features_VD[0] for item, _ in guessed if item.features_VD is not None])
        for (item, probability), is_typical in zip(
            guessed, typical(self.context.model, first_views, name), strict=True
        ):
            item.features_VD = item.rows_VX = None
            coloured = item.reading is not None and item.reading.coloured
            is_flat = item.reading is not None and item.reading.flat and name != Modality.ECG
            item.problem = flat() if is_flat else None
            item.problem = item.problem or guess_problem(
                name, probability, self.context.min_confidence, coloured=coloured
            )
            if item.problem is None and not is_typical:
                item.problem = untypical(name)
            if item.problem is None:
                item.modality, item.source, item.probability = Modality(name), ModalitySource.INFERRED, probability
                item.problem = self.context.answers.refuse(item.modality, item.body_part, item.kind)

    def study_keys(self) -> dict[tuple[int, Modality | None], str]:
        """Return the key of each study and modality; where files of one turn out to be of two, the study is split."""
        modalities_of: dict[int, list[Modality]] = {}
        for item in self.items:
            if item.problem is None and item.study is not None and item.modality is not None:
                modalities_of.setdefault(item.study, []).append(item.modality)
        return {
            (index, modality): key
            for index, modalities in modalities_of.items()
            for modality, key in split_keys(self.chunk.plan.studies[index].key, modalities, self.context.key).items()
        }

    def _remarks(self, withheld: Withheld) -> Iterator[tuple[Item, str | None]]:
        for item in self.items:
            if item.problem is None and item.modality is not None:
                yield item, withheld(item.modality, item.body_part, item.kind, item.stranger)
            else:
                yield item, None

    def _file_row(
        self, item: Item, file: PlannedFile, keys: dict[tuple[int, Modality | None], str], remark: str | None
    ) -> FileRow:
        reading, problem = item.reading, item.problem_of(file)
        study = None if file.study is None else self.chunk.plan.studies[file.study]
        row = FileRow(
            row=file.id,
            path=file.ref.name,
            sha256=(file.facts.sha256 or None) if file.facts else None,
            size_bytes=file.facts.stamp.size_bytes if file.facts and file.facts.sha256 else file.ref.size_bytes,
            format=str(file.facts.format) if file.facts else None,
            status=str(problem.status if problem else Status.SCORED),
            reason=str(problem.reason) if problem else None,
            message=problem.message if problem else remark,
            kind=None if item.unit is None else str(item.kind),
            unit=None if item.unit is None else item.files[0].id,
            modality=item.modality,
            modality_source=item.source,
            modality_probability=item.probability,
            copy_of=file.copy_of,
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
                home_distance=item.home_distance,
            )
        if self.context.weeks and file.facts is not None and file.facts.header is not None:
            row = replace(row, headers=with_origin(row.headers, file.facts.header, self.context.key))
        return row


def failed_chunk(context: Context, chunk: Chunk, problem: Problem) -> ChunkResult:
    """Return the rows of a chunk that could not be computed: each of its files has the problem, or its own."""
    items = items_of(chunk)
    for item in items:
        item.problem = item.problem or problem
    return ChunkWork(context, chunk, items).result()


def split_keys(grouped: str, modalities: Sequence[Modality], key: bytes) -> dict[Modality, str]:
    """Return the key of each modality that a study has; several are several studies."""
    several = list(dict.fromkeys(modalities))
    if len(several) == 1:
        return {several[0]: grouped}
    return {modality: keyed_hash("study", f"{grouped}/{modality}", key) for modality in several}


class _Encoder:
    """Encodes items; their pixels go as soon as possible."""

    def __init__(self, context: Context) -> None:
        encoder, keep = context.model, _keep_feature
        if context.answers.encoder is not None:
            encoder, keep = context.answers.encoder, partial(_keep_row, dim=context.model.dim)
        batches = Batches(encoder, context.encoders, context.num_encoders, keep, context.halved)
        self._batches = batches
        self.close, self.wait = self._batches.close, self._batches.wait

    def add(self, item: Item) -> None:
        assert item.reading is not None
        self._batches.add(item, item.reading.images)
        item.reading = replace(item.reading, images=())


def _keep_feature(item: Item, feature_D: NDArray[np.float32]) -> None:
    row = feature_D[None].copy()
    item.features_VD = row if item.features_VD is None else np.concatenate([item.features_VD, row])


def _keep_row(item: Item, row_X: NDArray[np.float32], dim: int) -> None:
    row = row_X[None].copy()
    item.rows_VX = row if item.rows_VX is None else np.concatenate([item.rows_VX, row])
    item.features_VD = item.rows_VX[:, :dim]


def _as_read(plan: Plan, copy: Item) -> Item:
    """Return the item of a copy as if nothing else held its image."""
    file = replace(copy.files[0], problem=None, copy_of=None)
    study = None if file.study is None else plan.studies[file.study]
    modality = None if study is None else study.modality
    return Item((file,), (file,), PlannedUnit(Kind.IMAGE, ()), file.study, None, None, modality, file.source)


def _as_copy(copy: Item, of: int) -> Item:
    file = replace(copy.files[0], copy_of=of)
    return replace(copy, files=(file,), ordered=(file,))


def _may_be_of_any_part(item: Item) -> bool:
    """Return whether nothing says which body part an image shows, and nobody has looked at it."""
    if item.source not in (ModalitySource.HEADER, ModalitySource.PACK) or item.kind is not Kind.IMAGE:
        return False
    return _states_no_part(item.body_part)


def _states_no_part(stated: str) -> bool:
    return stated.strip().upper() in SAYS_NO_BODY_PART


def _is_loose_capture(item: Item) -> bool:
    """Return whether a header alone says CT or MR of an image made of others that states no place in a volume."""
    header = item.header
    if header is None or item.source is not ModalitySource.HEADER or item.kind is not Kind.IMAGE:
        return False
    is_slice = item.modality in (Modality.CT, Modality.MRI)
    return is_slice and header.image_position is None and is_secondary(header)


def _look_of(item: Item) -> Problem | None:
    """Return the problem of an image in colour that is said to be of a modality without it, or of one of flat areas."""
    if item.modality is None or item.reading is None:
        return None
    if item.reading.flat and item.modality is not Modality.ECG and item.source is not ModalitySource.TABLE:
        return flat()
    return in_colour(item.modality, item.source) if item.reading.coloured else None


def _sha256(item: Item) -> str:
    facts = item.files[0].facts
    return "" if facts is None else facts.sha256


def _take(item: Item, future: Future[Reading]) -> None:
    try:
        try:
            item.reading = future.result()
        finally:
            if isinstance(future, JobFuture):
                item.effort = item.effort.and_then(future.effort)
    except MedclipError as error:
        item.problem = error.problem()
        item.culprit = error.where if any(error.where == str(file.ref.path) for file in item.files) else None

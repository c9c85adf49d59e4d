"""Read the rows of a table, and tie them into mammography examinations: each examination or breast is one sample.

What a reading process does with a row is here, too: inspect, adapt, shrink, encode. It never imports torch, and never
raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.grouping.mammography_exam import Aside, ExamView, MammographyExam, arrange, why_aside
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.cells import days_before
from medclip.sample import SIDES, Kind, Modality, Sample, View, ViewType
from medclip.settings import Settings
from medclip.shards.folder import Stored
from medclip.shards.sample_json import Group, SampleView
from medclip.shards.stored_data import STORED_AS, Format, encode
from medclip.shards.writing.table import ShardRow
from medclip.text.captions.record import CaptionRecord, Region
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import Task

if TYPE_CHECKING:
    from medclip.adapters.base import Source


@dataclass(frozen=True)
class ReadJob:
    """One row's reading, small enough to send to a process."""

    path: Path
    """A file, or the folder of one series."""
    modality: Modality | None
    """None for the generic rendering."""
    max_side: int
    mpp_um: float | None = None
    """Of a slide that does not say."""
    stored: Format = "png"
    quality: int = 95
    """Of JPEG."""
    stores: Stored = "images"
    """Volumes: the voxels of a volume or the frames of a loop, not views of it; signals: the leads of an ECG."""
    stated_view: ViewType | None = None
    """What the table states of a mammogram's view."""
    regions: tuple[Region, ...] = ()
    region_masks: tuple[Path, ...] = ()
    """Both as `ShardRow` has them."""


@dataclass(frozen=True)
class StoredView:
    """One view, one volume or one ECG, ready to be written."""

    image: bytes
    """PNG or JPEG; a NumPy array of a volume or an ECG."""
    position: str | None
    burned_in: bool | None
    facts: Mapping[str, Any] | None = None
    """What the JSON says of a volume or an ECG, by its key; None for a view."""
    regions: tuple[Region, ...] = ()
    """As `CaptionRecord.regions`."""


@dataclass(frozen=True)
class ReadResult:
    """What became of a row."""

    sha256: str
    adapter: str = ""
    preprocessing: str = ""
    kind: Kind = Kind.IMAGE
    views: tuple[StoredView, ...] = ()
    problem: Problem | None = None
    """Set exactly when `views` is empty."""
    mammogram: ExamView | None = None
    """What is known of the view of a mammogram."""


def read_rows(jobs: Iterable[ReadJob], settings: Settings) -> Iterator[ReadResult]:
    """Read many rows in reading processes; gives the results in the order of the jobs.

    A decoder that crashes or hangs costs its own row. Jobs are taken only a little ahead of what is given back.
    """
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    # A volume takes hundreds of megabytes.
    ahead = settings.workers if first.stores == "volumes" else 3 * settings.workers
    with ReadingPool.of(settings) as pool:
        for future in pool.map(read_row, ((job, settings) for job in chain([first], jobs)), ahead=ahead):
            try:
                yield future.result()
            except MedclipError as e:
                yield ReadResult("", problem=e.problem())


def read_row(job: ReadJob, settings: Settings) -> ReadResult:
    """Read one unit through its adapter and encode its views, longest side at most `max_side`; or its voxels."""
    from medclip.adapters.base import combined_sha256, source_of
    from medclip.adapters.model_images import images_of
    from medclip.adapters.registry import read_unit

    sha256 = ""
    try:
        source = replace(source_of(job.path, settings), mpp_um=job.mpp_um, stated_view=job.stated_view)
        sha256 = combined_sha256(source)
        if job.stores == "signals":
            return _store_signal(source, job.modality, sha256, settings)
        sample = read_unit(source, job.modality, settings)
        views = (_store_voxels(sample),) if job.stores == "volumes" else _store_views(images_of(sample), job, settings)
    except MedclipError as e:
        return ReadResult(sha256, problem=e.problem())
    except MemoryError:
        return ReadResult(sha256, problem=Problem(Reason.TOO_LARGE, "the image does not fit into memory."))
    except Exception as e:  # a decoder's own error: its text may quote header values, so only its kind is told
        message = f"the file could not be decoded ({type(e).__name__})."
        return ReadResult(sha256, problem=Problem(Reason.CORRUPT, message))
    if not views:
        return ReadResult(sha256, problem=Problem(Reason.NO_PIXELS, "the adapter found no image in the file."))
    return ReadResult(
        sha256,
        sample.provenance.adapter,
        sample.provenance.preprocessing,
        sample.kind,
        views,
        mammogram=_mammogram(source) if sample.modality is Modality.MAMMOGRAPHY else None,
    )


def _mammogram(source: Source) -> ExamView:
    from medclip.files.grouping.mammography_exam import exam_view

    return exam_view("", source.first.header, table=source.stated_view, file_name=source.path.name)


def _store_voxels(sample: Sample) -> StoredView:
    from medclip.imaging.volume.voxels import check_voxels, voxels_of
    from medclip.shards.stored_data import VOLUME_FACTS, encode_voxels, facts_of

    voxels = voxels_of(sample)
    check_voxels(voxels)
    burned_in = sample.views[0].burned_in if sample.views else None
    return StoredView(encode_voxels(voxels), None, burned_in, {VOLUME_FACTS: facts_of(voxels)})


def _store_signal(source: Source, modality: Modality | None, sha256: str, settings: Settings) -> ReadResult:
    """Store an ECG as its file has it; what a model is shown of it is made when it is trained."""
    from medclip.adapters.ecg import EcgAdapter, EcgOptions, read_recording
    from medclip.shards.stored_data import SIGNAL_FACTS, encode_signal

    if modality is not Modality.ECG:
        raise MedclipError(Reason.OTHER_INPUT, "the row is no ECG, and these shards hold ECGs.")
    recording = read_recording(source, settings)
    values, facts = encode_signal(recording)
    adapter = EcgAdapter(EcgOptions.raw())
    stored = StoredView(values, None, None, {SIGNAL_FACTS: facts})
    return ReadResult(sha256, adapter.name, adapter.preprocessing_of(source.kind), source.kind, (stored,))


def _store_views(views: Iterable[View], job: ReadJob, settings: Settings) -> tuple[StoredView, ...]:
    from medclip.shards.writing.regions import regions_of

    if not (job.regions or job.region_masks):
        return tuple(_store(view, job) for view in views)
    of_file = list(views)
    regions = regions_of(of_file, job.regions, job.region_masks, settings)
    return (replace(_store(of_file[0], job), regions=regions),)


def _store(view: View, job: ReadJob) -> StoredView:
    from medclip.imaging.geometry import fit
    from medclip.imaging.intensity import to_uint8

    pixels = fit(to_uint8(view), job.max_side)
    return StoredView(encode(pixels, job.stored, job.quality), view.position, view.burned_in)


_REASON: Mapping[Aside, Reason] = {
    Aside.FOR_PROCESSING: Reason.COMPANION,
    Aside.NO_POSITION: Reason.VIEW_UNKNOWN,
    Aside.NO_SIDE: Reason.VIEW_UNKNOWN,
    Aside.SIDES_CONTRADICT: Reason.VIEW_UNKNOWN,
}
_UNKNOWN = ViewType()
_NOTHING, _BOTH = "none", "both"
"""Class names that say how the classes of two images go together."""

Labels = Mapping[str, str | Mapping[str, int]]


@dataclass(frozen=True)
class ExamSample:
    """One examination or breast, read and arranged."""

    rows: tuple[ShardRow, ...]
    """Of its views, in hanging order."""
    results: tuple[ReadResult, ...]
    views: tuple[SampleView, ...]
    record: CaptionRecord


def group_rows(rows: Sequence[ShardRow], where: str) -> list[tuple[ShardRow, ...]]:
    """Tie rows into examinations, by patient and study, or by patient and date where no study is named.

    Returns:
        Examinations in the order of their first rows.

    Raises:
        MedclipError: TABLE_INVALID for a row that is no mammogram, or that names neither study nor date.
    """
    exams: dict[str, list[ShardRow]] = {}
    for row in rows:
        if row.record.modality is not Modality.MAMMOGRAPHY or row.record.generic:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {row.number} is no mammogram, and examinations are made of mammograms.",
                where=where,
                hint="Leave the row out, or build without --group.",
            )
        if not row.exam:
            raise MedclipError(
                Reason.TABLE_INVALID,
                f"row {row.number} names neither `study` nor `exam_date`, so that its examination is not known.",
                where=where,
                hint="Add a column `study`; where each patient was examined once, it may repeat `patient`.",
            )
        exams.setdefault(row.exam, []).append(row)
    return [tuple(members) for members in exams.values()]


def earlier_exams(rows: Sequence[ShardRow]) -> dict[int, tuple[tuple[str, int], ...]]:
    """Return the earlier examinations of the same patient for each row, and how many days before: the latest first.

    Args:
        rows: Rows of a table; those without a date have none, and are none of others.

    Returns:
        Number of the row -> name of the examination and days.
    """
    days: dict[str, dict[str, date]] = {}
    for row in rows:
        if row.exam_date is not None:
            days_of_patient = days.setdefault(row.patient, {})
            days_of_patient[row.exam] = min(row.exam_date, days_of_patient.get(row.exam, row.exam_date))
    return {row.number: days_before(row.exam, days.get(row.patient, {})) for row in rows}


def arrange_rows(rows: Sequence[ShardRow], views: Sequence[ExamView]) -> tuple[MammographyExam, dict[str, int]]:
    """Arrange the views of an examination's rows; also returns which row each name stands for.

    Of two images of one view the first by the name of its file is taken, wherever its row stands: the one that `scan`
    and `score` take.
    """
    names = [f"{row.file}\n{row.number}" for row in rows]  # a file may have two rows
    named = [replace(view, name=name) for name, view in zip(names, views, strict=True)]
    return arrange(named), {name: place for place, name in enumerate(names)}


def read_exam(
    rows: Sequence[ShardRow], results: Sequence[ReadResult], level: Group, stored: Format, tasks: Sequence[Task]
) -> tuple[list[ExamSample], list[tuple[ShardRow, ReadResult, Problem]]]:
    """Make samples of an examination whose rows were read.

    Args:
        rows: Rows of one examination.
        results: Result of reading each row.
        level: One sample for the examination, or one for each breast.
        stored: Format in which images are stored.
        tasks: Tasks that labels may be of, beside those of the vocabulary.

    Returns:
        Samples with at least one view, and the rows that are none of them with their reasons: every row is in one.
    """
    rejects = [(row, result, result.problem) for row, result in zip(rows, results, strict=True) if result.problem]
    good = [(row, result) for row, result in zip(rows, results, strict=True) if result.problem is None]
    exam, place = arrange_rows(
        [row for row, _ in good], [result.mammogram or ExamView("", _UNKNOWN) for _, result in good]
    )
    for view, aside in exam.set_aside:
        row, result = good[place[view.name]]
        sentence = f"the mammogram is none of the views of its examination: {why_aside(aside)}."
        rejects.append((row, result, Problem(_REASON.get(aside, Reason.OTHER_VIEW), sentence)))
    sides = [None] if level == "exam" else list(SIDES)
    samples = []
    for side in sides:
        chosen = [view for view in exam.chosen if side in (None, view.view.side)]
        if chosen:
            members = [good[place[view.name]] for view in chosen]
            samples.append(_sample(chosen, members, side, stored, {task.name: task for task in tasks}))
    return samples, sorted(rejects, key=lambda reject: reject[0].number)


def _sample(
    chosen: Sequence[ExamView],
    members: Sequence[tuple[ShardRow, ReadResult]],
    side: str | None,
    stored: Format,
    tasks: Mapping[str, Task],
) -> ExamSample:
    rows, results = tuple(row for row, _ in members), tuple(result for _, result in members)
    reports = list(dict.fromkeys(row.record.report for row in rows if row.record.report))
    views = tuple(
        SampleView(
            member=f"{number}.{STORED_AS[stored]}",
            view=view.view,
            sha256=result.sha256,
            texts=row.record.texts,
            labels=row.record.labels,
            report=row.record.report if len(reports) > 1 else None,
            implant=view.implant,
        )
        for number, (view, row, result) in enumerate(zip(chosen, rows, results, strict=True))
    )
    first = rows[0].record
    record = replace(
        first,
        view=None,
        laterality=side,
        labels=joined_labels([row.record.labels for row in rows], tasks),
        texts=tuple(dict.fromkeys(text for row in rows for text in row.record.texts)),
        report="\n\n".join(reports) or None,
    )
    return ExamSample(rows, results, views, record)


def joined_labels(labels: Sequence[Labels], tasks: Mapping[str, Task] | None = None) -> dict[str, Any]:
    """Join the labels of several images into those of the breast or woman they show.

    The worst counts: a finding is present where any image shows it, and of classes that rise (`Task.ordered`,
    `Task.worst_last`) the last holds. Of other classes "none" gives way to any, and two that are there are "both" where
    the task has such a class; else images that differ leave the answer open. Of a cancer's follow-up the first event
    and the longest time hold.

    Example:
        >>> joined_labels([{"f": {"mass": 0, "asymmetry": 0}}, {"f": {"mass": 1}}])
        {'f': {'mass': 1, 'asymmetry': 0}}
    """
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(task for labels_of_view in labels for task in labels_of_view):
        answers = [labels_of_view[name] for labels_of_view in labels if name in labels_of_view]
        classes = [answer for answer in answers if isinstance(answer, str)]
        if classes:
            answer = joined_class(classes, (tasks or {}).get(name), name)
            joined |= {} if answer is None else {name: answer}
            continue
        values: dict[str, int] = {}
        for answer in answers:
            assert isinstance(answer, Mapping)
            for key, value in answer.items():
                take = min if key == "event_months" else max
                values[key] = take(values[key], value) if key in values else value
        joined[name] = values
    return joined


def joined_class(classes: Sequence[str], task: Task | None, name: str) -> str | None:
    """Return the class of a breast or woman whose images are of these; None where they leave the answer open."""
    different = list(dict.fromkeys(classes))
    if len(different) == 1:
        return different[0]
    task = task or load_task(name)
    scale = task.steps or tuple(c.name for c in task.classes if task.worst_last)
    if scale:
        # BI-RADS 0 beside 2 is neither: what more images would have shown is not known.
        return max(different, key=scale.index) if set(different) <= set(scale) else None
    present = [c for c in different if c != _NOTHING]
    if len(present) == 1:
        return present[0]
    return _BOTH if _BOTH in {c.name for c in task.classes} else None

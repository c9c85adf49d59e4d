"""What a reading process does with one row: inspect, adapt, shrink, encode. Never imports torch, never raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.sample import Kind, Modality, Sample, View, ViewType
from medclip.settings import Settings
from medclip.shards.folder import Stored
from medclip.shards.stored_image import Format, encode

if TYPE_CHECKING:
    from medclip.adapters.base import Source
    from medclip.files.grouping.mammography_exam import ExamView


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


@dataclass(frozen=True)
class StoredView:
    """One view, one volume or one ECG, ready to be written."""

    image: bytes
    """PNG or JPEG; a NumPy array of a volume or an ECG."""
    position: str | None
    burned_in: bool | None
    facts: Mapping[str, Any] | None = None
    """What the JSON says of a volume or an ECG, by its key; None for a view."""


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
        views = (
            (_store_voxels(sample),) if job.stores == "volumes" else tuple(_store(v, job) for v in images_of(sample))
        )
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
    from medclip.shards.stored_voxels import FACTS, encode_voxels, facts_of

    voxels = voxels_of(sample)
    check_voxels(voxels)
    burned_in = sample.views[0].burned_in if sample.views else None
    return StoredView(encode_voxels(voxels), None, burned_in, {FACTS: facts_of(voxels)})


def _store_signal(source: Source, modality: Modality | None, sha256: str, settings: Settings) -> ReadResult:
    """Store an ECG as its file has it; what a model is shown of it is made when it is trained."""
    from medclip.adapters.ecg import EcgAdapter, EcgOptions, read_recording
    from medclip.shards.stored_signal import FACTS, encode_signal

    if modality is not Modality.ECG:
        raise MedclipError(Reason.OTHER_INPUT, "the row is no ECG, and these shards hold ECGs.")
    recording = read_recording(source, settings)
    values, facts = encode_signal(recording)
    adapter = EcgAdapter(EcgOptions.raw())
    stored = StoredView(values, None, None, {FACTS: facts})
    return ReadResult(sha256, adapter.name, adapter.preprocessing_of(source.kind), source.kind, (stored,))


def _store(view: View, job: ReadJob) -> StoredView:
    from medclip.imaging.geometry import fit
    from medclip.imaging.intensity import to_uint8

    pixels = fit(to_uint8(view), job.max_side)
    return StoredView(encode(pixels, job.stored, job.quality), view.position, view.burned_in)

"""What a reading process does with one row: inspect, adapt, shrink, encode. Never imports torch, never raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.pool import ReadingPool
from medclip.sample import Kind, Modality, View
from medclip.settings import Settings
from medclip.shards.stored_image import Format, encode


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


@dataclass(frozen=True)
class StoredView:
    """One view, ready to be written."""

    image: bytes
    position: str | None
    burned_in: bool | None


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


def read_rows(jobs: Iterable[ReadJob], settings: Settings) -> Iterator[ReadResult]:
    """Read many rows in reading processes; gives the results in the order of the jobs.

    A decoder that crashes or hangs costs its own row. Jobs are taken only a little ahead of what is given back.
    """
    with ReadingPool.of(settings) as pool:
        for future in pool.map(read_row, ((job, settings) for job in jobs), ahead=3 * settings.workers):
            try:
                yield future.result()
            except MedclipError as e:
                yield ReadResult("", problem=e.problem())


def read_row(job: ReadJob, settings: Settings) -> ReadResult:
    """Read one unit through its adapter and encode its views, longest side at most `max_side`."""
    from medclip.adapters.base import combined_sha256
    from medclip.adapters.registry import read_unit
    from medclip.adapters.sources import source_of

    sha256 = ""
    try:
        source = replace(source_of(job.path, settings), mpp_um=job.mpp_um)
        sha256 = combined_sha256(source)
        sample = read_unit(source, job.modality, settings)
        views = tuple(_store(v, job) for v in sample.views)
    except MedclipError as e:
        return ReadResult(sha256, problem=e.problem())
    except MemoryError:
        return ReadResult(sha256, problem=Problem(Reason.TOO_LARGE, "the image does not fit into memory."))
    except Exception as e:  # a decoder's own error: its text may quote header values, so only its kind is told
        message = f"the file could not be decoded ({type(e).__name__})."
        return ReadResult(sha256, problem=Problem(Reason.CORRUPT, message))
    if not views:
        return ReadResult(sha256, problem=Problem(Reason.NO_PIXELS, "the adapter found no image in the file."))
    return ReadResult(sha256, sample.provenance.adapter, sample.provenance.preprocessing, sample.kind, views)


def _store(view: View, job: ReadJob) -> StoredView:
    from medclip.imaging.geometry import fit
    from medclip.imaging.intensity import to_uint8

    pixels = fit(to_uint8(view), job.max_side)
    return StoredView(encode(pixels, job.stored, job.quality), view.position, view.burned_in)

"""Open one file or folder and look at it: samples and views, as scoring would see them. For notebooks."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray

from medclip.adapters.base import Source
from medclip.adapters.model_images import as_shown, channel_names
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Problem, Status
from medclip.files.discover import discover
from medclip.files.grouping.mammography_exam import MammographyExam, exams_of
from medclip.files.grouping.studies import GroupBy, group
from medclip.files.pseudonyms import load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.scan import inspect_files
from medclip.files.tables.manifest import read_manifest
from medclip.imaging.geometry import fit, letterbox
from medclip.imaging.intensity import to_uint8
from medclip.imaging.video import spread
from medclip.result import Result
from medclip.sample import Kind, Modality, Sample, View, spoken
from medclip.settings import Settings
from medclip.wording import count

_TILE_PX = 128
_MAX_TILES = 6


def study_html(
    read: Sequence[tuple[Source, Sample]], problems: Sequence[Problem], exam: MammographyExam | None = None
) -> str:
    """Return one HTML table: a row for each sample with its images, facts and steps, and a line for each problem.

    File names are left out: they may hold a name. Everything from a header is escaped.

    Args:
        read: Samples that were read, each with its source.
        problems: Problems of the files that could not be read.
        exam: Mammograms in their places; what is missing is said in words.
    """
    rows = "".join(_row_or_words(source, sample) for source, sample in read)
    counts = Counter(problem.message for problem in problems)
    items = "".join(f"<li>{escape(text)}{f' ({n} times)' if n > 1 else ''}</li>" for text, n in counts.items())
    failed = f"<p>Not readable:</p><ul>{items}</ul>" if items else ""
    head = '<tr><th scope="col">Images</th><th scope="col">What it is</th><th scope="col">What was done</th></tr>'
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
    about = "" if exam is None else "".join(f"<p>{escape(line)}</p>" for line in exam_lines(exam))
    return f"{table}{about}{failed}" or "<p>Nothing could be read.</p>"


def exam_lines(exam: MammographyExam) -> list[str]:
    """Return in words which views a mammography examination has and which are missing."""
    have = [slot for slot, _ in exam.views]
    views = ", ".join(_said(slot) for slot in have) or "none of the four standard views"
    lines = [f"Mammography views: {views}."]
    if exam.missing:
        lines.append(f"Missing: {', '.join(_said(slot) for slot in exam.missing)}.")
    else:
        lines.append("The mammography examination is complete.")
    if exam.set_aside:
        lines.append(f"{count(len(exam.set_aside), 'more mammogram')}.")
    return [*lines, *(f"Note: {note}." for note in exam.notes)]


def _said(slot: str) -> str:
    side, _, view = slot.partition("-")
    return f"{'left' if side == 'L' else 'right'} {view.replace('_', '-')}"


def _row_or_words(source: Source, sample: Sample) -> str:
    """Return the row of a sample; where its image cannot be drawn, words alone."""
    try:
        return _row(source, sample)
    except Exception:  # one image that cannot be drawn must not hide the others
        return f"<tr><td></td><td>{escape(sample.kind)}: cannot be shown</td><td></td></tr>"


def _row(source: Source, sample: Sample) -> str:
    lines = facts_of(source, sample)
    names = channel_names(sample)
    if names:
        lines.append(f"the images show the {names[1]} channel")
    facts = "<br>".join(str(escape(line)) for line in lines)
    steps = "".join(
        f"<li>{escape(step.name)}{': ' if step.detail else ''}{escape(step.detail)}</li>"
        for step in sample.provenance.steps
    )
    return (
        f"<tr><td>{_images(sample)}</td><td style='text-align:left'>{facts}</td>"
        f"<td style='text-align:left'><ol style='margin:0;padding-left:1.5em'>{steps}</ol></td></tr>"
    )


def facts_of(source: Source, sample: Sample) -> list[str]:
    """Return what a sample is, in a few lines: modality, kind, shape, unit, spacing."""
    what = spoken(sample.modality) if sample.modality else "modality unknown"
    lines = [f"{what}, {sample.kind}, {count(len(source.paths), 'file')}"]
    if sample.volume is not None:
        shape = " x ".join(str(n) for n in sample.volume.voxels.shape)
        spacing = " x ".join(f"{mm:.3g}" for mm in sample.volume.spacing_mm)
        lines += [f"{shape} voxels ({sample.volume.plane}), {spacing} mm", f"unit {sample.volume.unit}"]
    elif sample.signal is not None:
        signal = sample.signal
        lines.append(f"{int(signal.mask.sum())} of 12 leads, {signal.duration_s:g} s at {signal.sampling_hz:g} Hz, mV")
        rate = "" if signal.heart_rate_bpm is None else f"{signal.heart_rate_bpm:.0f} beats a minute"
        lines += [rate, f"flags: {' '.join(signal.flags) or 'none'}"]
    elif sample.frames is not None:
        lines.append(" x ".join(str(n) for n in sample.frames.shape) + " (frames, rows, columns, channels)")
    elif sample.views:
        height, width = sample.views[0].pixels.shape[:2]
        each = "each " if len(sample.views) > 1 else ""
        lines.append(f"{count(len(sample.views), 'view')}, {each}{width} x {height} pixels")
    if sample.kind is Kind.SLIDE:
        width, height = sample.headers["size_px"]
        row_um, column_um = sample.headers["mpp_um"]
        lines.append(f"{width:,} x {height:,} pixels at {row_um:.3g} x {column_um:.3g} µm/px")
    if sample.kind is Kind.IMAGE and sample.views:
        view = sample.views[0]
        lines.append(", ".join(word for word in (view.position, view.laterality) if word))
        if view.spacing_mm:
            lines.append(f"{view.spacing_mm[0]:.3g} x {view.spacing_mm[1]:.3g} mm per pixel")
    names = channel_names(sample)
    if names:
        lines.append(f"channels: {', '.join(names)}")
    lines.append(burned_in_line(source, sample))
    lines.append(f"adapter {sample.provenance.adapter}, preprocessing {sample.provenance.preprocessing}")
    return [line for line in lines if line]


def burned_in_line(source: Source, sample: Sample) -> str:
    """Return what the headers state of text in the pixels, whatever the kind of sample; "" for no warning."""
    headers = [facts.header for facts in source.facts if facts.header is not None]
    if any(header.burned_in for header in headers) or any(view.burned_in for view in sample.views):
        return "the header says that text is burned into the pixels: look before you share"
    if sample.headers.get("burned_in_risk"):
        return (
            f"text burned into the pixels is {sample.headers['burned_in_risk']}, and the header says nothing of it: "
            "look before you share"
        )
    return ""


def images_of(sample: Sample, tile_px: int = _TILE_PX, most: int = _MAX_TILES) -> list[NDArray[np.uint8]]:
    """Return small images of a sample: some of its views evenly spread, or its ECG as a sheet without a margin."""
    if sample.signal is not None:
        from medclip.imaging.ecg.sheet.draw_sheet import render

        return [fit(render(sample.signal)[0], 3 * tile_px)]
    views = (to_uint8(sample.views[index]) for index in spread(len(sample.views), most))
    return [letterbox(as_shown(sample, view), tile_px) for view in views]


def _images(sample: Sample) -> str:
    tags = []
    for number, pixels in enumerate(images_of(sample), start=1):
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        body = base64.b64encode(buffer.getvalue()).decode()
        alt = f"{sample.kind} {number}"
        tags.append(f'<img src="data:image/png;base64,{body}" width="{pixels.shape[1]}" alt="{escape(alt)}">')
    return "".join(tags)


MAX_UNITS = 64
"""More images, series and records than this are a collection to score, not a study to look at: everything that is
read is held in memory."""


@dataclass(frozen=True)
class OpenedUnit:
    """Files that make one sample, not read yet."""

    source: Source
    modality: Modality | None
    problem: Problem | None = None
    """Why it cannot be read."""


@dataclass(frozen=True, eq=False, repr=False)
class OpenedStudy(Result):
    """What one file or folder holds. Pixels are read on first use, in processes of their own.

    A notebook shows it as a table with images. One broken file does not hide the others: it is in `failed`, and
    `samples()` gives the rest.
    """

    units: tuple[OpenedUnit, ...]
    """What is to be read, in the order of the first files. Those whose pixels turn out to be broken stay here."""
    unreadable: tuple[tuple[Path, Problem], ...] = ()
    """Files that should be readable and are not, as far as their headers show; of a series its first file."""
    settings: Settings = field(default_factory=Settings)
    exam: MammographyExam | None = None
    """The mammograms in their places and the missing views; None for anything but one mammography study in DICOM."""
    _cache: dict[int, Sample | MedclipError] = field(default_factory=dict)

    def samples(self) -> tuple[Sample, ...]:
        """Read everything, once: a sample for each unit that can be read, in order.

        Decoding runs in processes of their own with a time limit, so a decoder that crashes or hangs ends as a problem.

        Returns:
            At least one sample. What could not be read is in `failed`.

        Raises:
            MedclipError: What is wrong with the first unit, if nothing could be read; `where` is its file.
        """
        self._read()
        read = tuple(sample for _, sample in self._pairs())
        if not read:
            raise next(error for _, error in self._errors())
        return read

    @property
    def failed(self) -> tuple[tuple[Path, Problem], ...]:
        """Files that cannot be read, and why: what headers show, and once `samples()` was called, pixels too."""
        return (*self.unreadable, *((Path(str(error.where)), error.problem()) for _, error in self._errors()))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The reasons of `failed`."""
        return tuple(problem for _, problem in self.failed)

    @property
    def views(self) -> tuple[View, ...]:
        """All views, in order. Raises as `samples()`."""
        return tuple(view for sample in self.samples() for view in sample.views)

    @property
    def modality(self) -> Modality | None:
        """The modality of all units; None where it is unknown or where they differ."""
        modalities = {unit.modality for unit in self.units}
        return modalities.pop() if len(modalities) == 1 else None

    def __repr__(self) -> str:
        """Return what it is in one line; the arrays would fill screens."""
        kinds = [unit.source.kind for unit in self.units]
        kinds_text = ", ".join(count(kinds.count(kind), str(kind)) for kind in Kind if kind in kinds)
        bad = f", {count(len(self.problems), 'problem')}" if self.problems else ""
        differ = len({unit.modality for unit in self.units}) > 1
        what = self.modality or ("several modalities" if differ else "modality unknown")
        return f"OpenedStudy({what}, {kinds_text}{bad})"

    def _repr_html_(self) -> str:
        try:
            self._read()
            return study_html(self._pairs(), self.problems, self.exam)
        except Exception:  # a notebook that shows a value must not stop on it
            return f"<pre>{escape(repr(self))}</pre>"

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        rows = []
        for number, unit in enumerate(self.units[:most]):
            read = self._cache.get(number)
            problem = read.problem() if isinstance(read, MedclipError) else unit.problem
            rows.append(
                {
                    "modality": unit.modality and str(unit.modality),
                    "kind": str(unit.source.kind),
                    "num_files": len(unit.source.paths),
                    "reason": problem and str(problem.reason),
                }
            )
        return rows

    def _pairs(self) -> list[tuple[Source, Sample]]:
        kept = ((unit.source, self._cache.get(number)) for number, unit in enumerate(self.units))
        return [(source, sample) for source, sample in kept if isinstance(sample, Sample)]

    def _errors(self) -> list[tuple[int, MedclipError]]:
        return [(n, kept) for n, kept in sorted(self._cache.items()) if isinstance(kept, MedclipError)]

    def _read(self) -> None:
        missing = [number for number in range(len(self.units)) if number not in self._cache]
        if not missing:
            return
        with ReadingPool.of(self.settings, min(len(missing), self.settings.workers)) as pool:
            jobs = ((self.units[n].source, self.units[n].modality, self.settings) for n in missing)
            for number, future in zip(missing, pool.map(read_unit, jobs, ahead=len(missing)), strict=True):
                try:
                    self._cache[number] = future.result()
                except MedclipError as error:
                    self._cache[number] = error.at(error.where or self.units[number].source.path)


def opened_units(
    root: Path, named: Modality | None, settings: Settings
) -> tuple[tuple[OpenedUnit, ...], tuple[Problem, ...]]:
    """Find and group what a path holds: the units that can be read, and the problems of what should be readable.

    A skipped file counts as a problem only where it is the only one.
    """
    units, failed, _ = find_units(root, named, settings)
    return units, tuple(problem for _, problem in failed)


def find_units(
    root: Path, named: Modality | None, settings: Settings, group_by: GroupBy | str = "auto", table: Any = None
) -> tuple[tuple[OpenedUnit, ...], tuple[tuple[Path, Problem], ...], MammographyExam | None]:
    """Find and group what a path holds: the units, the files that should be readable and are not, the examination."""
    refs = discover(root, follow_links=settings.follow_links)
    pairs = list(zip(refs, inspect_files(refs, settings), strict=True))
    facts_of = {ref.name: facts for ref, facts in pairs}
    studies = group(
        pairs,
        manifest=None if table is None else read_manifest(table),
        modality=named,
        key=load_key(settings),
        group_by=group_by,
        uneven=settings.policy.uneven_slices,
    )
    units: list[OpenedUnit] = []
    problems = [
        (ref.path, problem)
        for ref, facts in pairs
        if (problem := ref.problem or facts.problem) and _told(problem, len(pairs))
    ]
    for study in studies:
        for unit in study.units:
            if unit.problem is not None:
                if _told(unit.problem, len(pairs)):
                    problems.append((unit.files[0].path, unit.problem))
                continue
            facts = tuple(facts_of[ref.name] for ref in unit.files)
            source = Source(
                unit.kind, tuple(ref.path for ref in unit.files), facts, unit.notes, unit.mpp_um, unit.stated_view
            )
            units.append(OpenedUnit(source, named or study.modality))
    order = {ref.path: index for index, ref in enumerate(refs)}
    units.sort(key=lambda unit: min(order[path] for path in unit.source.paths))
    exams = list(exams_of(studies, facts_of).values())
    return tuple(units), tuple(problems), exams[0] if len(exams) == 1 else None


def _told(problem: Problem, num_files: int) -> bool:
    return problem.status is Status.FAILED or num_files == 1

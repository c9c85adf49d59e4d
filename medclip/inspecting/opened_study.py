"""Open one file or folder and look at it: samples and views, as scoring would see them. For notebooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import escape

from medclip.adapters.base import Source
from medclip.adapters.registry import read_unit
from medclip.errors import MedclipError, Problem, Status
from medclip.files.discover import discover
from medclip.files.grouping.mammography_exam import MammographyExam, exams_of
from medclip.files.grouping.studies import GroupBy, group
from medclip.files.pseudonyms import load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.scan import inspect_files
from medclip.files.tables.manifest import read_manifest
from medclip.inspecting.study_html import study_html
from medclip.result import Result
from medclip.sample import Kind, Modality, Sample, View
from medclip.settings import Settings
from medclip.wording import count

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

"""Plan a window before it is scored: which study each of its files belongs to, and in which chunk it goes.

The plan depends on the files' names and bytes, the table and the options only, so that a run that was killed plans the
same chunks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from medclip.errors import Problem, Reason, Status
from medclip.files.grouping.studies import group
from medclip.files.pseudonyms import keyed_hash
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.files.tables.manifest import Manifest
from medclip.runs.planning.options import ScoreOptions
from medclip.runs.rows import DONE, DONE_FOR_GOOD, KnownFile
from medclip.sample import FileRef, Kind, Modality, ModalitySource, Study, ViewType
from medclip.settings import Settings

CHUNK_FILES = 32
"""Files per chunk: what a kill may cost (about a second of work) against one disk flush per chunk."""


@dataclass(frozen=True)
class PlannedFile:
    """One path with all that is known before its pixels are read."""

    id: int
    """Its number in the ledger."""
    ref: FileRef
    facts: FileFacts | None
    """None where the file could not be opened at all."""
    problem: Problem | None
    """Why it will not be scored."""
    study: int | None
    """Index of its study. With a problem: of the study that it would have belonged to, where that is certain."""
    source: ModalitySource | None = None
    """Who said its modality."""
    unit: int | None = None
    """Index of the unit it is read with; None where it is not read."""
    copy_of: int | None = None
    """The ledger's number of the file that counts in its place."""
    tie: str = ""
    """Hash of the study it belongs to, or would belong to."""


@dataclass(frozen=True)
class PlannedUnit:
    """Files that are read together, such as the slices of a series."""

    kind: Kind
    files: tuple[int, ...]
    """Indices of files, in reading order."""
    notes: tuple[str, ...] = ()
    mpp_um: float | None = None
    """What the table says a pixel of a slide measures."""
    stated_view: ViewType | None = None
    """What the table says of a mammogram's view."""


@dataclass(frozen=True)
class Plan:
    """A window as plain data."""

    files: tuple[PlannedFile, ...]
    studies: tuple[Study, ...]
    units: tuple[PlannedUnit, ...]
    waiting: frozenset[str] = frozenset()
    """Ties of the studies that wait until all of their files are known."""
    state: int = DONE
    """What its files are once they are scored."""

    def chunks(self) -> list[Chunk]:
        """Cut what does not wait into chunks. Studies are never split."""
        indices = [index for index, file in enumerate(self.files) if file.tie not in self.waiting]
        return [Chunk(self, members) for members in chunks(self.files, indices, CHUNK_FILES)]


@dataclass(frozen=True, eq=False)
class Chunk:
    """What is read, scored and committed at once."""

    plan: Plan
    members: tuple[int, ...]
    """Indices of files."""

    def alone(self) -> Chunk:
        """Return the same chunk in a plan that holds its own files, units and studies only, to be sent away.

        A study lies whole in its chunk, so that nothing in it points outside.
        """
        plan = self.plan
        units = list(dict.fromkeys(unit for i in self.members if (unit := plan.files[i].unit) is not None))
        kept = dict.fromkeys((*self.members, *(index for unit in units for index in plan.units[unit].files)))
        studies = list(dict.fromkeys(study for i in kept if (study := plan.files[i].study) is not None))
        at = {index: place for place, index in enumerate(kept)}
        files = tuple(
            replace(
                file,
                unit=None if file.unit is None else units.index(file.unit),
                study=None if file.study is None else studies.index(file.study),
            )
            for file in (plan.files[index] for index in kept)
        )
        read_together = tuple(
            replace(plan.units[unit], files=tuple(at[index] for index in plan.units[unit].files)) for unit in units
        )
        plan_alone = Plan(files, tuple(plan.studies[study] for study in studies), read_together, state=plan.state)
        return Chunk(plan_alone, tuple(at[index] for index in self.members))


def make_plan(
    files: Sequence[tuple[KnownFile, FileRef, FileFacts | Problem]],
    options: ScoreOptions,
    *,
    manifest: Manifest | None,
    key: bytes,
    settings: Settings,
    only: Modality | None = None,
    must_wait: Callable[[str], bool] | None = None,
) -> Plan:
    """Group the files of a window.

    Args:
        files: Entry of each file in the ledger, its path, and what was found in it.
        options: Modality and grouping.
        manifest: Table that says something about the files; None where there is none.
        key: Key of the identity hashes.
        settings: Limits and policy.
        only: Only modality that the model knows, if there is just one.
        must_wait: Whether a study (its tie) has files in an earlier window; None for studies whose files are all here.
    """
    files = sorted(files, key=lambda file: file[0].name.encode())
    studies = group(
        [(ref, fact) for _, ref, fact in files if isinstance(fact, FileFacts)],
        manifest=manifest,
        modality=options.modality,
        key=key,
        group_by=options.group_by,
        uneven=settings.policy.uneven_slices,
        only=only,
    )
    study_of = {ref.name: index for index, study in enumerate(studies) for ref in study.files}
    sources = {ref.name: source for study in studies for ref, source in _sources(study)}
    planned = [
        _planned(entry.id, ref, fact, study_of.get(ref.name), sources.get(ref.name)) for entry, ref, fact in files
    ]
    joined = [
        replace(file, tie=_tie_of(file, studies, manifest, options, key))
        for file in join_failed(planned, studies, manifest)
    ]
    placed, units = plan_units(joined, studies)
    if must_wait is None:
        return Plan(placed, studies, units, state=DONE_FOR_GOOD)
    grows = {file.tie for (entry, *_), file in zip(files, placed, strict=True) if entry.cut and _may_grow(file, units)}
    waiting = {tie for tie in {file.tie for file in placed} if tie in grows or must_wait(tie)}
    return Plan(placed, studies, units, frozenset(waiting))


def _tie_of(
    file: PlannedFile, studies: Sequence[Study], manifest: Manifest | None, options: ScoreOptions, key: bytes
) -> str:
    """Return the hash of a file's study, by which files of other windows are known to belong to it."""
    if file.study is not None:
        return studies[file.study].tie
    kinds = {"auto": ("table", "uid"), "folder": ("folder",)}.get(options.group_by, ())
    ties = (_tie(file, kind, manifest) for kind in kinds)
    kind, name = next((tie for tie in ties if tie is not None), ("file", file.ref.name))
    return keyed_hash("study", f"{kind}\0{name}", key)


def _may_grow(file: PlannedFile, units: Sequence[PlannedUnit]) -> bool:
    """Return whether other files of a folder may belong to what a file is read with."""
    if file.facts is None:
        return False
    unit = None if file.unit is None else units[file.unit]
    several = unit is not None and (len(unit.files) > 1 or unit.kind in (Kind.VOLUME, Kind.SLIDE))
    return bool(file.facts.parts) or (file.facts.format is Format.DICOM and several)


def plan_units(
    files: Sequence[PlannedFile], studies: Sequence[Study]
) -> tuple[tuple[PlannedFile, ...], tuple[PlannedUnit, ...]]:
    """Number the units that can be read, and give the files of the others their unit's problem."""
    place = {file.ref.name: index for index, file in enumerate(files)}
    planned = list(files)
    units: list[PlannedUnit] = []
    for study in studies:
        for unit in study.units:
            members = tuple(place[ref.name] for ref in unit.files)
            number = None if unit.problem else len(units)
            original = planned[place[unit.copy_of]].id if unit.copy_of else None
            for index in members:
                problem = planned[index].problem or unit.problem
                planned[index] = replace(planned[index], unit=number, problem=problem, copy_of=original)
            if unit.problem is None:
                units.append(PlannedUnit(unit.kind, members, unit.notes, unit.mpp_um, unit.stated_view))
    return tuple(planned), tuple(units)


def chunks(files: Sequence[PlannedFile], indices: Iterable[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut some of the files into chunks of about `size` without cutting a study.

    A study stands where its first file stands. A chunk closes when it has `size` files or more, so only a study that is
    itself larger makes a chunk larger than twice that.
    """
    units: dict[tuple[str, int], list[int]] = {}
    for index in indices:
        file = files[index]
        unit = ("file", index) if file.study is None else ("study", file.study)
        units.setdefault(unit, []).append(index)
    closed: list[tuple[int, ...]] = []
    open_chunk: list[int] = []
    for members in units.values():
        open_chunk += members
        if len(open_chunk) >= size:
            closed.append(tuple(open_chunk))
            open_chunk = []
    if open_chunk:
        closed.append(tuple(open_chunk))
    return tuple(closed)


def join_failed(
    files: Sequence[PlannedFile], studies: Sequence[Study], manifest: Manifest | None
) -> tuple[PlannedFile, ...]:
    """Put files that failed before they were grouped beside the study that they would have belonged to.

    That is known where the same tie (the table's study, the study UID or the folder) made exactly one study.
    """
    owners: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if file.study is not None:
            tie = _tie(file, studies[file.study].grouping, manifest)
            if tie is not None:
                owners.setdefault(tie, set()).add(file.study)
    joined = []
    for file in files:
        candidates: set[int] = set()
        if file.study is None and file.problem is not None and file.problem.status is Status.FAILED:
            ties = [_tie(file, grouping, manifest) for grouping in ("table", "uid", "folder")]
            candidates = next((owners[tie] for tie in ties if tie in owners), set())
        joined.append(replace(file, study=next(iter(candidates))) if len(candidates) == 1 else file)
    return tuple(joined)


def _tie(file: PlannedFile, grouping: str, manifest: Manifest | None) -> tuple[str, str] | None:
    """Return what would tie a file to others; None where it says nothing of that kind."""
    if grouping == "table":
        row = None if manifest is None else manifest.row_for(file.ref.path) or manifest.row_for(file.ref.name)
        return None if row is None or not row.study else (grouping, f"{row.patient or ''}\0{row.study}")
    if grouping == "uid":
        uid = file.facts.header.study_uid if file.facts is not None and file.facts.header is not None else ""
        return (grouping, uid) if uid else None
    folder = str(PurePosixPath(file.ref.name).parent)
    return (grouping, "" if folder == "." else folder) if grouping == "folder" else None


def _sources(study: Study) -> Iterable[tuple[FileRef, ModalitySource | None]]:
    """Return each file with who named its modality."""
    return zip(study.files, study.file_sources or (study.modality_source,) * len(study.files), strict=True)


def _planned(
    number: int, ref: FileRef, facts: FileFacts | Problem, study: int | None, source: ModalitySource | None
) -> PlannedFile:
    if isinstance(facts, Problem):
        return PlannedFile(number, ref, None, facts, None)
    problem = facts.problem
    if problem is None and study is None:  # grouping leaves out only what inspection has a problem with
        problem = Problem(Reason.NOT_SUPPORTED_YET, "the file holds nothing that this version scores.")
    return PlannedFile(number, ref, facts, problem, None if problem else study, source)

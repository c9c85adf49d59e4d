"""Plan a run before anything is scored: which files there are, which study each belongs to, and in which chunk it goes.

The plan depends on the files' names and bytes, the table and the options only, so that a run that was killed plans the
same chunks again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from medclip.errors import MedclipError, Problem, Reason, Status
from medclip.files.discover import discover
from medclip.files.grouping.studies import group
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import FileFacts
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.progress import Progress, Silent
from medclip.runs.options import ScoreOptions
from medclip.runs.read_unit import inspect
from medclip.sample import FileRef, Kind, ModalitySource, Study
from medclip.settings import Settings


def missing_files(refs: Sequence[FileRef], manifest: Manifest, root: Path) -> tuple[tuple[FileRef, ...], int]:
    """Find the files that a table names below the root and that do not exist: each input gets its row.

    A path in a table is relative to the scored folder or to the table's; the one that more rows exist in counts for
    rows that exist in neither.

    Args:
        refs: The files that were found.
        manifest: The table.
        root: The file or folder that is scored.

    Returns:
        The missing files, and how many rows name nothing here: a table may cover more than one folder.
    """
    scored = root if root.is_dir() else root.parent
    places = [scored] if manifest.folder is None else [scored, manifest.folder]
    names, paths = {ref.name for ref in refs}, {os.path.abspath(ref.path) for ref in refs}
    exists = [[os.path.lexists(place / row.file) for row in manifest.rows] for place in places]
    base = max(range(len(places)), key=lambda index: (sum(exists[index]), -index))
    problem = Problem(Reason.MISSING_FILE, "the table names this file, but it does not exist.")
    missing: dict[str, FileRef] = {}
    elsewhere = 0
    for index, row in enumerate(manifest.rows):
        if os.path.normpath(row.file) in names or any(os.path.abspath(p / row.file) in paths for p in places):
            continue
        name = None if any(exists_here[index] for exists_here in exists) else _below(root, places[base] / row.file)
        if name is None:
            elsewhere += 1
        else:
            missing[name] = FileRef(root / name, name, 0, problem)
    return tuple(missing.values()), elsewhere


def _below(root: Path, path: Path) -> str | None:
    """Return a path relative to a folder; None where it does not lie in it, or where the root is a file."""
    if not root.is_dir():
        return None
    for absolute in (os.path.abspath, os.path.realpath):
        name = os.path.relpath(absolute(path), absolute(root))
        if name.split(os.sep)[0] != os.pardir and name != os.curdir:
            return Path(name).as_posix()
    return None


CHUNK_FILES = 32
"""Files per chunk: what a kill may cost (about a second of work) against one disk flush per chunk."""
READ_AHEAD = 64
"""Files that may be under way or waiting at once: two chunks, about 15 MB at 224 px."""


@dataclass(frozen=True)
class PlannedFile:
    """One path with all that is known before its pixels are read."""

    row: int
    """Number in this run, from 1."""
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


@dataclass(frozen=True)
class PlannedUnit:
    """Files that are read together, such as the slices of a series."""

    kind: Kind
    files: tuple[int, ...]
    """Indices of files, in reading order."""
    notes: tuple[str, ...] = ()
    mpp_um: float | None = None
    """What the table says a pixel of a slide measures."""


@dataclass(frozen=True)
class Plan:
    """A run as plain data."""

    files: tuple[PlannedFile, ...]
    studies: tuple[Study, ...]
    units: tuple[PlannedUnit, ...]
    chunks: tuple[tuple[int, ...], ...]
    """Indices of files. Studies are never split; every file is in exactly one chunk."""
    table_rows_elsewhere: int = 0
    """Rows of the table that name no file here."""
    table: str = ""
    """Hash of the table; "" where there is none."""

    @property
    def digest(self) -> str:
        """Hash of names, sizes and bytes of all files."""
        state = hashlib.sha256()
        for file in self.files:
            sha256 = "" if file.facts is None else file.facts.sha256
            state.update(f"{file.ref.name}\0{file.ref.size_bytes}\0{sha256}\n".encode())
        return state.hexdigest()


def make_plan(
    root: Path,
    options: ScoreOptions,
    *,
    key: bytes,
    pool: ReadingPool,
    settings: Settings,
    exclude: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Plan:
    """Find, inspect and group the files below a path.

    Args:
        root: A file or folder.
        options: Table, modality and grouping.
        key: Key of the identity hashes.
        pool: Reading processes; they hash and sniff.
        settings: Limits.
        exclude: Paths to leave out, such as the output folder.
        progress: Told about every inspected file.

    Raises:
        MedclipError: MISSING_FILE for a missing root; NOTHING_TO_DO when there is no file; TABLE_INVALID.
    """
    manifest = None if options.table is None else read_manifest(options.table)
    refs, elsewhere = discover(root, exclude=exclude), 0
    if manifest is not None:
        missing, elsewhere = missing_files(refs, manifest, root)
        refs = tuple(sorted([*refs, *missing], key=lambda ref: os.fsencode(ref.name)))
    if not refs:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=root, hint="Name another folder."
        )
    facts = _inspect_all(refs, pool, settings, progress or Silent())
    pairs = [(ref, fact) for ref, fact in zip(refs, facts, strict=True) if isinstance(fact, FileFacts)]
    studies = group(
        pairs,
        manifest=manifest,
        modality=options.modality,
        key=key,
        group_by=options.group_by,
        uneven=settings.policy.uneven_slices,
    )
    study_of = {ref.name: index for index, study in enumerate(studies) for ref in study.files}
    sources = {ref.name: source for study in studies for ref, source in _sources(study)}
    files = tuple(
        _planned(number, ref, fact, study_of.get(ref.name), sources.get(ref.name))
        for number, (ref, fact) in enumerate(zip(refs, facts, strict=True), start=1)
    )
    files, units = plan_units(join_failed(files, studies, manifest), studies)
    table = "" if manifest is None else manifest.digest
    return Plan(files, studies, units, chunks(files, CHUNK_FILES), elsewhere, table)


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
            for index in members:
                planned[index] = replace(planned[index], unit=number, problem=planned[index].problem or unit.problem)
            if unit.problem is None:
                units.append(PlannedUnit(unit.kind, members, unit.notes, unit.mpp_um))
    return tuple(planned), tuple(units)


def chunks(files: Sequence[PlannedFile], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut the files into chunks of about `size` without cutting a study.

    A study stands where its first file stands. A chunk closes when it has `size` files or more, so only a study that is
    itself larger makes a chunk larger than twice that.
    """
    units: dict[tuple[str, int], list[int]] = {}
    for index, file in enumerate(files):
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


def _inspect_all(
    refs: Sequence[FileRef], pool: ReadingPool, settings: Settings, progress: Progress
) -> list[FileFacts | Problem]:
    """Inspect every file that can be opened, in order; a file that takes its process down has a problem instead."""
    progress.stage("Looking at files", len(refs))
    open_refs: Iterable[tuple[Path, Settings]] = ((ref.path, settings) for ref in refs if ref.problem is None)
    futures = pool.map(inspect, open_refs, ahead=READ_AHEAD)
    facts: list[FileFacts | Problem] = []
    for ref in refs:
        if ref.problem is not None:
            facts.append(ref.problem)
        else:
            try:
                facts.append(next(futures).result())
            except MedclipError as error:
                facts.append(error.problem())
        progress.step()
    return facts


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
    return (grouping, str(PurePosixPath(file.ref.name).parent)) if grouping == "folder" else None


def _sources(study: Study) -> Iterable[tuple[FileRef, ModalitySource | None]]:
    """Return each file with who named its modality."""
    return zip(study.files, study.file_sources or (study.modality_source,) * len(study.files), strict=True)


def _planned(
    row: int, ref: FileRef, facts: FileFacts | Problem, study: int | None, source: ModalitySource | None
) -> PlannedFile:
    if isinstance(facts, Problem):
        return PlannedFile(row, ref, None, facts, None)
    problem = facts.problem
    if problem is None and study is None:  # grouping leaves out only what inspection has a problem with
        problem = Problem(Reason.NOT_SUPPORTED_YET, "the file holds nothing that this version scores.")
    return PlannedFile(row, ref, facts, problem, None if problem else study, source)

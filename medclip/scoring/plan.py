"""Plan a run before anything is scored: which files there are, which study each belongs to, and in which chunk it goes.

The plan depends on the files' names and bytes, the table and the options only, so that a run that was killed plans the
same chunks again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.discover import discover
from medclip.files.group import group
from medclip.files.inspect import FileFacts
from medclip.files.pool import ReadingPool
from medclip.files.tables import Manifest, read_manifest
from medclip.sample import FileRef, Study
from medclip.scoring.options import ScoreOptions
from medclip.scoring.progress import Progress, Silent
from medclip.scoring.reading import inspect
from medclip.settings import Settings

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
    """Index of its study; None with a problem."""


@dataclass(frozen=True)
class Plan:
    """A run as plain data."""

    files: tuple[PlannedFile, ...]
    studies: tuple[Study, ...]
    chunks: tuple[tuple[int, ...], ...]
    """Indices of files. Studies are never split; every file is in exactly one chunk."""

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
    refs = _with_missing(discover(root, exclude=exclude), manifest, root)
    if not refs:
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=root, hint="Name another folder."
        )
    facts = _inspect_all(refs, pool, settings, progress or Silent())
    pairs = [(ref, found) for ref, found in zip(refs, facts, strict=True) if isinstance(found, FileFacts)]
    studies = group(pairs, manifest=manifest, modality=options.modality, key=key, group_by=options.group_by)
    study_of = {ref.name: index for index, study in enumerate(studies) for ref in study.files}
    files = tuple(
        _planned(number, ref, found, study_of.get(ref.name))
        for number, (ref, found) in enumerate(zip(refs, facts, strict=True), start=1)
    )
    return Plan(files, studies, chunks(files, CHUNK_FILES))


def chunks(files: Sequence[PlannedFile], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut the files into chunks of about `size` without cutting a study.

    A study stands where its first file stands. A chunk closes when it has `size` files or more, so only a study that is
    itself larger makes a chunk larger than twice that.
    """
    units: dict[tuple[str, int], list[int]] = {}
    for index, file in enumerate(files):
        unit = ("file", index) if file.study is None else ("study", file.study)
        units.setdefault(unit, []).append(index)
    found: list[tuple[int, ...]] = []
    open_chunk: list[int] = []
    for members in units.values():
        open_chunk += members
        if len(open_chunk) >= size:
            found.append(tuple(open_chunk))
            open_chunk = []
    if open_chunk:
        found.append(tuple(open_chunk))
    return tuple(found)


def _with_missing(refs: Sequence[FileRef], manifest: Manifest | None, root: Path) -> tuple[FileRef, ...]:
    """Add the files that the table names and that are nowhere: each input gets its row."""
    if manifest is None:
        return tuple(refs)
    problem = Problem(Reason.MISSING_FILE, "The table names this file, but it does not exist.")
    names = {ref.name for ref in refs}
    places = [folder for folder in (root, manifest.folder) if folder is not None]
    missing = [
        FileRef(root / row.file, row.file, 0, problem)
        for row in manifest.rows
        if row.file not in names and not any(os.path.lexists(folder / row.file) for folder in places)
    ]
    return tuple(sorted([*refs, *missing], key=lambda ref: os.fsencode(ref.name)))


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


def _planned(row: int, ref: FileRef, found: FileFacts | Problem, study: int | None) -> PlannedFile:
    if isinstance(found, Problem):
        return PlannedFile(row, ref, None, found, None)
    problem = found.problem
    if problem is None and study is None:  # grouping leaves out only what inspection has a problem with
        problem = Problem(Reason.NOT_SUPPORTED_YET, "The file holds nothing that this version scores.")
    return PlannedFile(row, ref, found, problem, None if problem else study)

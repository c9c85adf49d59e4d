"""List what a folder holds and what would be scored, without decoding a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Problem
from medclip.files.discover import discover
from medclip.files.grouping.mammography_exam import MammographyExam, exams_of
from medclip.files.grouping.studies import GroupBy, group, parse_modality
from medclip.files.grouping.units import modality_of
from medclip.files.pseudonyms import hashed_path, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.recognise.inspect import FileFacts, inspect_file
from medclip.files.recognise.sniff import Format
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.progress import Progress, Silent
from medclip.result import Result
from medclip.sample import FileRef, Modality, Study, Unit
from medclip.settings import Settings

_POOL_FROM = 64
"""Below this many files, starting processes costs more than it saves."""


@dataclass(frozen=True)
class ScannedFile:
    """One file of a scan."""

    ref: FileRef
    facts: FileFacts
    modality: Modality | None
    """As the table, the header or the caller says; None where it would be inferred."""
    study: str | None
    """Key of its study; None if it would not be scored."""
    unit_problem: Problem | None = None
    """Why the unit it belongs to is not read, such as a missing slice."""

    @property
    def problem(self) -> Problem | None:
        """Why it would not be scored."""
        return self.ref.problem or self.facts.problem or self.unit_problem

    @property
    def burned_in(self) -> bool | None:
        """Whether its header says that text is burned into the pixels; None where it says nothing."""
        return None if self.facts.header is None else self.facts.header.burned_in

    @property
    def status(self) -> str:
        """Return "readable", or the status of its problem: "skipped" or "failed"."""
        return str(self.problem.status) if self.problem else "readable"


@dataclass(frozen=True, repr=False)
class Scan(Result):
    """What a folder holds."""

    root: Path
    files: tuple[ScannedFile, ...]
    studies: tuple[Study, ...]
    exams: Mapping[str, MammographyExam] = field(default_factory=dict)
    """Study key -> its mammograms in their places, for the studies that hold DICOM mammograms."""

    def counts(self, what: str) -> Mapping[str, int]:
        """Count files by "format", "modality", "status" or "reason", most frequent first."""
        values = {
            "format": lambda file: str(file.facts.format),
            "modality": lambda file: str(file.modality or "to be inferred") if file.problem is None else None,
            "status": lambda file: file.status,
            "reason": lambda file: str(file.problem.reason) if file.problem else None,
        }
        counts = Counter(value for file in self.files if (value := values[what](file)) is not None)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def num_burned_in(self) -> int:
        """Files whose header says that text is burned into the pixels, those among them that are not read."""
        return sum(file.burned_in is True for file in self.files)

    def _facts(self) -> dict[str, object]:
        what = ("status", "format", "modality", "reason")
        counted = {name: ", ".join(f"{value} {n}" for value, n in self.counts(name).items()) for name in what}
        sizes: dict[str, object] = {"files": len(self.files), "studies": len(self.studies)}
        burned_in = {"burned-in text": num} if (num := self.num_burned_in) else {}
        return sizes | {name: text for name, text in counted.items() if text} | burned_in

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        if most is not None:  # a notebook is passed on, and names of files may be those of patients
            return []
        return self.to_dict()["files"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; no identifier is in it but keyed hashes."""
        return {
            "root": str(self.root),
            "num_files": len(self.files),
            "num_studies": len(self.studies),
            "num_burned_in": self.num_burned_in,
            "status": dict(self.counts("status")),
            "formats": dict(self.counts("format")),
            "modalities": dict(self.counts("modality")),
            "reasons": dict(self.counts("reason")),
            "files": [
                {
                    "file": file.ref.name,
                    "size_bytes": file.ref.size_bytes,
                    "sha256": file.facts.sha256,
                    "format": str(file.facts.format),
                    "status": file.status,
                    "reason": str(file.problem.reason) if file.problem else None,
                    "message": file.problem.message if file.problem else None,
                    "modality": file.modality,
                    "study": file.study,
                    "burned_in": file.burned_in,
                }
                for file in self.files
            ],
            "studies": [
                {
                    "study": study.key,
                    "modality": study.modality,
                    "modality_source": study.modality_source,
                    "grouping": study.grouping,
                    "files": [ref.name for ref in study.files],
                    "units": [unit_dict(unit) for unit in study.units],
                    "exam": self.exams[study.key].to_dict() if study.key in self.exams else None,
                }
                for study in self.studies
            ],
        }


def scan_files(
    root: str | Path,
    *,
    table: Any = None,
    modality: Modality | str | None = None,
    group_by: GroupBy | str = "auto",
    exclude: Sequence[Path] = (),
    settings: Settings | None = None,
    progress: Progress | None = None,
    hash_paths: bool = False,
) -> Scan:
    """Return what is in a folder, what would be scored and what not, without decoding pixels.

    Args:
        root: A file or a folder.
        table: A manifest: path or data frame.
        modality: Modality of the files of which neither the table nor their header names one.
        group_by: Way in which files are tied into studies; see `medclip.files.grouping.studies`.
        exclude: Files or folders to leave out.
        settings: Limits and workers.
        progress: Progress bar of the files.
        hash_paths: Whether keyed hashes stand in the place of names.

    Returns:
        One entry per file, and the studies.

    Raises:
        MedclipError: MISSING_FILE, TABLE_INVALID, WRONG_USE (unknown modality).

    Example:
        >>> import tempfile
        >>> scan_files(tempfile.mkdtemp()).files
        ()
    """
    settings = settings or Settings()
    chosen = as_modality(modality)
    manifest = table if isinstance(table, Manifest) or table is None else read_manifest(table)
    refs = discover(Path(root), exclude=exclude, follow_links=settings.follow_links)
    facts = inspect_files(refs, settings, progress)
    pairs, key = list(zip(refs, facts, strict=True)), load_key(settings)
    studies = group(
        pairs,
        manifest=manifest,
        modality=chosen,
        key=key,
        group_by=group_by,
        uneven=settings.policy.uneven_slices,
    )
    if hash_paths:
        hashed = {ref.name: replace(ref, name=hashed_path(ref.name, key)) for ref in refs}
        refs, studies = tuple(hashed.values()), tuple(_renamed(study, hashed) for study in studies)
        pairs = list(zip(refs, facts, strict=True))
    home = {ref.name: study for study in studies for ref in study.files}
    problems = {ref.name: unit.problem for study in studies for unit in study.units for ref in unit.files}
    files = tuple(
        ScannedFile(
            ref,
            fact,
            home[ref.name].modality if ref.name in home else modality_of(fact),
            home[ref.name].key if ref.name in home else None,
            problems.get(ref.name),
        )
        for ref, fact in pairs
    )
    return Scan(Path(root), files, studies, exams_of(studies, {ref.name: fact for ref, fact in pairs}))


def _renamed(study: Study, hashed: Mapping[str, FileRef]) -> Study:
    def renamed(files: Sequence[FileRef]) -> tuple[FileRef, ...]:
        return tuple(hashed[ref.name] for ref in files)

    units = tuple(replace(unit, files=renamed(unit.files), copy_of=_name(unit.copy_of, hashed)) for unit in study.units)
    return replace(study, files=renamed(study.files), units=units)


def _name(name: str, hashed: Mapping[str, FileRef]) -> str:
    return hashed[name].name if name else ""


def unit_dict(unit: Unit) -> dict[str, Any]:
    """Return plain data of a unit for JSON."""
    return {
        "kind": str(unit.kind),
        "files": [ref.name for ref in unit.files],
        "notes": list(unit.notes),
        "reason": str(unit.problem.reason) if unit.problem else None,
        "message": unit.problem.message if unit.problem else None,
    }


def as_modality(modality: Modality | str | None) -> Modality | None:
    """Return the modality of a name.

    Raises:
        MedclipError: WRONG_USE if there is none of that name.
    """
    return None if modality is None else parse_modality(modality)


def inspect_files(refs: Sequence[FileRef], settings: Settings, progress: Progress | None = None) -> list[FileFacts]:
    """Inspect many files, in processes where that pays; results in the order given."""
    progress = progress or Silent()
    progress.stage("Reading headers", len(refs))
    alone = len(refs) < _POOL_FROM or settings.workers < 2
    inspected: list[FileFacts] = []
    for facts in (_inspect(ref, settings) for ref in refs) if alone else _pooled(refs, settings, progress):
        inspected.append(facts)
        progress.step()
    return inspected


def _pooled(refs: Sequence[FileRef], settings: Settings, progress: Progress) -> Iterator[FileFacts]:
    jobs = ((ref, settings) for ref in refs)
    with ReadingPool.of(settings, note=progress.note) as pool:
        for future in pool.map(_inspect, jobs, ahead=4 * settings.workers):
            try:
                yield future.result()
            except MedclipError as error:
                yield FileFacts("", Format.UNKNOWN, None, error.problem())


def _inspect(ref: FileRef, settings: Settings) -> FileFacts:
    if ref.problem is not None:
        return FileFacts("", Format.UNKNOWN, None, ref.problem)
    return inspect_file(ref.path, settings)

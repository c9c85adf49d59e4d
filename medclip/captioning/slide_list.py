"""The slides of a folder with all that is asked and known of each: files, scale, patient, organ, findings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.captioning.selection.prompts import SelectionPrompts, prompts_for
from medclip.errors import MedclipError, Problem, Reason, Status
from medclip.files.pseudonyms import keyed_hash
from medclip.files.recognise.sniff import Format
from medclip.files.recognise.tiff import ends_early
from medclip.files.scan import ScannedFile, scan_files
from medclip.files.tables.manifest import CAPTION_SEPARATOR, Manifest, read_manifest
from medclip.progress import Progress
from medclip.sample import Kind, Modality
from medclip.settings import Settings

ORGAN, FINDINGS = "organ", "findings"
"""Columns of the table, beside file, patient and mpp_um. Several findings stand on lines of their own."""
SOURCE, LICENSE = "source", "license"
_SLIDE_FORMATS = frozenset({Format.SLIDE, Format.TIFF})
"""What may be a slide where it cannot be read."""


@dataclass(frozen=True)
class ListedSlide:
    """One slide."""

    key: str
    """Keyed hash of its content: stays when the file is moved or renamed."""
    name: str
    """Of its first file, relative to the folder."""
    paths: tuple[Path, ...]
    sha256: str
    """Of the file's bytes; of several files the hash of their hashes."""
    patient: str
    """Unhashed: decides the split, and is written nowhere. A slide of nobody is a patient of its own."""
    mpp_um: float | None
    """What the table says."""
    prompts: SelectionPrompts
    source: str = ""
    license: str = ""
    problem: Problem | None = None


def list_slides(
    folder: Path,
    *,
    table: Any,
    organ: str | None,
    attributes: Mapping[str, tuple[str, ...]] | None,
    key: bytes,
    settings: Settings,
    exclude: Path,
    progress: Progress,
) -> tuple[ListedSlide, ...]:
    """List the slides of a folder.

    Args:
        folder: A file or a folder; what is no slide is passed over.
        table: A manifest with the columns file, and if known patient, mpp_um, organ, findings, source, license.
        organ: Of the slides that the table names none of.
        attributes: Of organs, beside those of medclip.
        key: Key of the hashes.
        settings: Limits.
        exclude: The output folder.
        progress: Counts the files.

    Returns:
        By key. Copies of one slide are one.

    Raises:
        MedclipError: NOTHING_TO_DO without a slide; WRONG_USE for an unknown organ; what scanning and tables raise.
    """
    manifest = table if isinstance(table, Manifest) or table is None else read_manifest(table)
    prompts_for(organ, (), attributes)  # a slip in the option is no slide's fault
    scan = scan_files(
        folder,
        table=manifest,
        modality=Modality.PATHOLOGY,
        group_by="file",
        exclude=(exclude,),
        settings=settings,
        progress=progress,
    )
    facts = {file.ref.name: file for file in scan.files}
    slides: dict[str, ListedSlide] = {}
    for study in scan.studies:
        for unit in study.units:
            if unit.kind is not Kind.SLIDE:
                continue
            first, hashes = unit.files[0], [facts[ref.name].facts.sha256 for ref in unit.files]
            row = None if manifest is None else manifest.row_for(first.path) or manifest.row_for(first.name)
            extra: Mapping[str, str] = {} if row is None else row.extra
            sha256 = hashes[0] if len(hashes) == 1 else _hash_of(hashes)
            name = keyed_hash("slide", sha256, key)
            patient = (row.patient if row is not None else None) or study.patient or f"slide {sha256}"
            try:
                findings = extra.get(FINDINGS, "").split(CAPTION_SEPARATOR)
                prompts = prompts_for(extra.get(ORGAN) or organ, findings, attributes)
            except MedclipError as error:
                raise error.at(first.name) from None
            slides.setdefault(
                name,
                ListedSlide(
                    name,
                    first.name,
                    tuple(ref.path for ref in unit.files),
                    sha256,
                    patient,
                    None if row is None else row.mpp_um,
                    prompts,
                    extra.get(SOURCE, ""),
                    extra.get(LICENSE, ""),
                    unit.problem,
                ),
            )
    # What is cut or damaged belongs to no study; it must not go missing.
    for file in scan.files:
        problem = file.problem or _cut(file)
        if problem and file.facts.format in _SLIDE_FORMATS and problem.status is Status.FAILED:
            sha256 = file.facts.sha256
            name = keyed_hash("slide", sha256 or f"file {file.ref.name}", key)
            prompts, patient = prompts_for(organ, (), attributes), f"slide {file.ref.name}"
            lost = ListedSlide(name, file.ref.name, (file.ref.path,), sha256, patient, None, prompts, problem=problem)
            slides.setdefault(name, lost)
    if not slides:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"there is no slide among the {len(scan.files)} files.",
            where=folder,
            hint="`medclip scan` says what they are.",
        )
    return tuple(slides[name] for name in sorted(slides))


def _cut(file: ScannedFile) -> Problem | None:
    """Return the problem of a TIFF that ends too early: what is left of it may look like an image of another kind."""
    if file.facts.format is not Format.TIFF:
        return None
    try:
        with file.ref.path.open("rb") as content:
            if not ends_early(content):
                return None
    except OSError:
        return None
    return Problem(Reason.TRUNCATED, "the slide ends too early; copy it again from its source.")


def _hash_of(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()

"""The slides of a store of vectors, with all that is asked and known of each: files, scale, patient, organ, findings.

What became of a slide is what its row in the store says. A folder is listed beside it for what no store keeps: where
the files are, and whose they are, by which the records are split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.pseudonyms import keyed_hash
from medclip.files.scan import Scan, scan_files
from medclip.files.tables.manifest import CAPTION_SEPARATOR, Manifest, ManifestRow
from medclip.pairs.selection.patches import SelectionPrompts, prompts_for
from medclip.progress import Progress
from medclip.sample import Kind, Modality, Study, Unit
from medclip.settings import Settings
from medclip.slides.slide_store import DONE, SlideRow, SlideStore

ORGAN, FINDINGS = "organ", "findings"
"""Columns of the table, beside file, patient and mpp_um. Several findings stand on lines of their own."""
SOURCE, LICENSE = "source", "license"
OF_VECTORS = ("study", "modality", "mpp_um")
"""Columns that decide which files are read together, and how: the others may change while vectors stay."""
_GONE = Problem(Reason.MISSING_FILE, "the store has its vectors, and the folder has no such slide.")
_NEW = Problem(Reason.MISSING_FILE, "the store has no vectors of it: run medclip slides embed with --add first.")
_OTHER = Problem(Reason.CHANGED, "it is another file than the one that was embedded: embed it again.")


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
    row: SlideRow
    """What the store says of it."""
    source: str = ""
    license: str = ""
    problem: Problem | None = None
    """Why nothing is chosen of it."""


def check_prompts(
    manifest: Manifest | None, organ: str | None, attributes: Mapping[str, tuple[str, ...]] | None
) -> None:
    """Refuse organs that nothing is known to ask of, before a slide is read.

    Raises:
        MedclipError: WRONG_USE.
    """
    prompts_for(organ, (), attributes)
    for row in () if manifest is None else manifest.rows:
        _prompts(row, row.file, organ, attributes)


def list_slides(
    folder: Path,
    store: SlideStore,
    *,
    manifest: Manifest | None,
    organ: str | None,
    attributes: Mapping[str, tuple[str, ...]] | None,
    key: bytes,
    settings: Settings,
    exclude: Path,
    progress: Progress,
) -> tuple[ListedSlide, ...]:
    """List the slides of a store and of the folder that it was made of.

    Args:
        folder: A file or a folder; what is no slide is passed over.
        store: Vectors of its slides.
        manifest: A table with the columns file, and if known patient, mpp_um, organ, findings, source, license.
        organ: Organ of the slides that the table names none of.
        attributes: Attributes of organs, beside those of medclip.
        key: Key of the hashes.
        settings: Limits.
        exclude: The output folder.
        progress: Progress bar of the files.

    Returns:
        By key. Copies of one slide are one.

    Raises:
        MedclipError: NOTHING_TO_DO without a slide; WRONG_USE for an unknown organ; what scanning raises.
    """
    # The files that are read together must be those of the store: the same columns decide.
    scan = scan_files(
        folder,
        table=None if manifest is None else manifest.only(*OF_VECTORS),
        modality=Modality.PATHOLOGY,
        exclude=(exclude,),
        settings=settings,
        progress=progress,
    )
    present = {keyed_hash("slide", _name(unit), key): (study, unit) for study, unit in _slides(scan)}
    rows = {row.key: row for row in store.rows}
    for name, (_, unit) in present.items():
        if name not in rows and unit.problem is None:
            rows[name] = SlideRow(name, _name(unit), len(unit.files), "failed", _NEW.reason, _NEW.message)
    hashes = {file.ref.name: file.facts.sha256 for file in scan.files}
    slides: dict[str, ListedSlide] = {}
    for row in rows.values():
        study, unit = present.get(row.key, (None, None))
        name = row.file if unit is None else _name(unit)
        stated = None if manifest is None else _stated(manifest, name, unit)
        sha256 = _sha256(unit, hashes) if unit is not None else row.sha256 or ""
        problem = _problem(row, sha256, unit)
        content = keyed_hash("slide", sha256 or f"file {name}", key)
        extra: Mapping[str, str] = {} if stated is None else stated.extra
        listed = ListedSlide(
            content,
            name,
            () if unit is None else tuple(ref.path for ref in unit.files),
            sha256,
            (stated.patient if stated else None) or (study.patient if study else None) or f"slide {sha256 or name}",
            unit.mpp_um if unit is not None else None,
            _prompts(stated, name, organ, attributes),
            row,
            extra.get(SOURCE, ""),
            extra.get(LICENSE, ""),
            problem,
        )
        if content not in slides or (problem is None and slides[content].problem is not None):
            slides[content] = listed
    if not slides:
        raise MedclipError(
            Reason.NOTHING_TO_DO,
            f"there is no slide among the {len(scan.files)} files.",
            where=folder,
            hint="`medclip scan` says what they are.",
        )
    return tuple(slides[content] for content in sorted(slides))


def _slides(scan: Scan) -> list[tuple[Study, Unit]]:
    return [(study, unit) for study in scan.studies for unit in study.units if unit.kind is Kind.SLIDE]


def _name(unit: Unit) -> str:
    """Return the name that a slide's row and key are of: the first of its files by name."""
    return min((ref.name for ref in unit.files), key=lambda name: name.encode())


def _stated(manifest: Manifest, name: str, unit: Unit | None) -> ManifestRow | None:
    """Return the row of the table that names a file of a slide, the first one's before others."""
    files = () if unit is None else sorted(unit.files, key=lambda ref: ref.name != name)
    rows = (manifest.row_for(ref.path) or manifest.row_for(ref.name) for ref in files)
    return next((row for row in rows if row is not None), manifest.row_for(name))


def _prompts(
    stated: ManifestRow | None, name: str, organ: str | None, attributes: Mapping[str, tuple[str, ...]] | None
) -> SelectionPrompts:
    extra: Mapping[str, str] = {} if stated is None else stated.extra
    try:
        findings = extra.get(FINDINGS, "").split(CAPTION_SEPARATOR)
        return prompts_for(extra.get(ORGAN) or organ, findings, attributes)
    except MedclipError as error:
        raise error.at(name) from None


def _sha256(unit: Unit, hashes: Mapping[str, str]) -> str:
    """Hash a unit's bytes as its row in the store has it."""
    together = [hashes[ref.name] for ref in unit.files]
    return together[0] if len(together) == 1 else hashlib.sha256("".join(together).encode()).hexdigest()


def _problem(row: SlideRow, sha256: str, unit: Unit | None) -> Problem | None:
    if row.status != DONE:
        return Problem(Reason(row.reason), row.message or "")
    if unit is None or unit.problem is not None:
        return _GONE
    return _OTHER if sha256 != row.sha256 else None

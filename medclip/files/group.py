"""Tie files into studies: by table, by UID, by folder, or each on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

from medclip.errors import MedclipError, Reason
from medclip.files.dicom_header import modality_from_header
from medclip.files.identity import keyed_hash
from medclip.files.inspect import FileFacts
from medclip.files.support import SCORABLE_FORMATS
from medclip.files.tables import Manifest, ManifestRow
from medclip.sample import FileRef, Modality, ModalitySource, Study

MAX_FOLDER_STUDY = 16
"""A sub-folder with more images than this is a collection, not one examination. Projection studies have 1-4 images,
a mammography with extra views up to a dozen."""

GroupBy = Literal["auto", "folder", "file"]


@dataclass(frozen=True)
class _Member:
    ref: FileRef
    modality: Modality | None
    source: ModalitySource | None
    patient: str | None


def parse_modality(text: str) -> Modality:
    """Give the modality of a name, in whatever case it is written.

    Raises:
        MedclipError: WRONG_USE if there is none of that name.
    """
    try:
        return Modality(str(text).strip().lower())
    except ValueError:
        raise MedclipError(
            Reason.WRONG_USE, f"{str(text)!r} is no modality; the names are: {', '.join(Modality)}."
        ) from None


def group(
    files: Sequence[tuple[FileRef, FileFacts]],
    *,
    manifest: Manifest | None,
    modality: Modality | None,
    key: bytes,
    group_by: GroupBy | str = "auto",
) -> tuple[Study, ...]:
    """Tie the files that can be scored into studies.

    Rules of "auto", first that applies: the table's columns `study` and `patient`; the DICOM Study Instance UID; the
    folder. Files that lie directly in the named folder are one study each; so are the files of a sub-folder with more
    than 16 images; a smaller sub-folder is one study. A study holds one modality: where files differ, it is split.

    Args:
        files: Paths with their facts; those with a problem are left out.
        manifest: What a table says about the files.
        modality: What the caller says about the files that neither the table nor their header names.
        key: Key of the identity hashes.
        group_by: "folder" makes one study of every folder, "file" of every file, whatever headers say.

    Raises:
        MedclipError: WRONG_USE for another `group_by`.

    Returns:
        Studies in the order of their first file; files within a study in the order given.
    """
    if group_by not in get_args(GroupBy):
        raise MedclipError(Reason.WRONG_USE, f"files are grouped by auto, folder or file, not by '{group_by}'.")
    usable = [
        (ref, facts)
        for ref, facts in files
        if ref.problem is None and facts.problem is None and facts.format in SCORABLE_FORMATS
    ]
    rows = [_row(manifest, ref) for ref, _ in usable]
    counts = Counter(_folder(ref) for ref, _ in usable)
    groups: dict[tuple[str, str], list[_Member]] = {}
    for (ref, facts), row in zip(usable, rows, strict=True):
        patient = _patient(facts, row, key)
        name = _group_name(ref, facts, row, counts, group_by, patient)
        groups.setdefault(name, []).append(_Member(ref, *_modality(facts, row, modality), patient))
    position = {ref.name: index for index, (ref, _) in enumerate(usable)}
    studies = [study for name, members in groups.items() for study in _studies(name, members, key)]
    return tuple(sorted(studies, key=lambda study: position[study.files[0].name]))


def _row(manifest: Manifest | None, ref: FileRef) -> ManifestRow | None:
    if manifest is None:
        return None
    return manifest.row_for(ref.path) or manifest.row_for(ref.name)


def _folder(ref: FileRef) -> str:
    parent = str(PurePosixPath(ref.name).parent)
    return "" if parent == "." else parent


def _patient(facts: FileFacts, row: ManifestRow | None, key: bytes) -> str | None:
    """Hash the patient id: the table's, else the header's."""
    value = row.patient if row is not None and row.patient else None
    if value is None and facts.header is not None:
        value = facts.header.patient_id
    return keyed_hash("patient", value, key) if value else None


def _group_name(
    ref: FileRef,
    facts: FileFacts,
    row: ManifestRow | None,
    counts: Counter[str],
    group_by: str,
    patient: str | None,
) -> tuple[str, str]:
    """Say what ties a file to others: the kind of tie and its name."""
    folder = _folder(ref)
    if group_by == "file":
        return "file", ref.name
    if group_by == "folder":
        return "folder", folder
    if row is not None and row.study:
        return "table", f"{row.patient or ''}\0{row.study}"
    if facts.header is not None and facts.header.study_uid:
        return "uid", facts.header.study_uid
    if folder and counts[folder] <= MAX_FOLDER_STUDY:
        # A table that names two patients in one folder knows better than the folder.
        return "folder", f"{folder}\0{patient}" if patient else folder
    return "file", ref.name


def _modality(
    facts: FileFacts, row: ManifestRow | None, option: Modality | None
) -> tuple[Modality | None, ModalitySource | None]:
    """Decide the modality: table before header before option.

    A table's row is a statement about that very file, a header is one of the device; the option is about a whole
    folder and fills in what nothing else names.
    """
    if row is not None and row.modality is not None:
        return row.modality, ModalitySource.TABLE
    found = modality_from_header(facts.header) if facts.header is not None else None
    if found is not None:
        return found, ModalitySource.HEADER
    return option, ModalitySource.OPTION if option is not None else None


def _studies(name: tuple[str, str], members: Sequence[_Member], key: bytes) -> list[Study]:
    """Make one study per modality of a group."""
    grouping, value = name
    parts: dict[Modality | None, list[_Member]] = {}
    for member in members:
        parts.setdefault(member.modality, []).append(member)
    studies = []
    for modality, part in parts.items():
        # Only a study that was split carries its modality in the key, so that keys stay the same when it is not.
        suffix = f"\0{modality or ''}" if len(parts) > 1 else ""
        patients = {member.patient for member in part if member.patient}
        studies.append(
            Study(
                key=keyed_hash("study", f"{grouping}\0{value}{suffix}", key),
                # Views of one study that name different patients (a real quirk of CBIS-DDSM) name none.
                patient=patients.pop() if len(patients) == 1 else None,
                files=tuple(member.ref for member in part),
                modality=modality,
                modality_source=part[0].source,
                grouping=grouping,
                file_sources=tuple(member.source for member in part),
            )
        )
    return studies

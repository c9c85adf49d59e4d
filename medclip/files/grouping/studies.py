"""Tie files into units and units into studies: by table, by UID, by folder, or each on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import PurePosixPath
from typing import Literal, get_args

from medclip.errors import MedclipError, Problem, Reason, did_you_mean
from medclip.files.grouping.mammography_exam import twins_for_processing
from medclip.files.grouping.series import Uneven
from medclip.files.grouping.units import kind_of, modality_of, units_of
from medclip.files.pseudonyms import keyed_hash
from medclip.files.recognise.inspect import SCORABLE_FORMATS, FileFacts, other_modality
from medclip.files.recognise.sniff import Format
from medclip.files.tables.cells import day_of
from medclip.files.tables.manifest import Manifest, ManifestRow
from medclip.sample import (
    UNKNOWN,
    FileRef,
    Kind,
    Modality,
    ModalitySource,
    Study,
    Unit,
    every_modality,
    modality_of_name,
)

MAX_FOLDER_STUDY = 16
"""A sub-folder with more images or series than this is a collection, not one examination, though they be of one
patient. Projection studies have 1-4 images, a mammography with extra views up to a dozen."""

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
"""Transfer syntaxes whose pixels are not compressed."""

GroupBy = Literal["auto", "folder", "file"]
COPY = Problem(
    Reason.DUPLICATE,
    "the file holds the same image as another file of its study, which counts; the column copy_of names that one.",
)
_TWIN = Problem(
    Reason.COMPANION,
    "the mammogram is for processing (raw detector values), and its study has the same view for presentation, which is "
    "read instead.",
)


@dataclass(frozen=True)
class _Member:
    """One unit with what ties it to others."""

    unit: Unit
    modality: Modality | None
    sources: tuple[ModalitySource | None, ...]
    patients: frozenset[str]


@dataclass(frozen=True)
class _File:
    ref: FileRef
    facts: FileFacts
    row: ManifestRow | None
    modality: Modality | None
    source: ModalitySource | None
    patient: str | None


def parse_modality(text: str, *, or_unknown: bool = False) -> Modality:
    """Return the modality of a name, as the field writes it.

    Args:
        text: The name.
        or_unknown: Whether "unknown" is one: where vectors are computed and nothing is asked.

    Raises:
        MedclipError: WRONG_USE if there is none of that name.
    """
    is_unknown = str(text).strip().casefold() == UNKNOWN
    modality = UNKNOWN if is_unknown else modality_of_name(str(text))
    if modality is None:
        names = [*every_modality(), *([UNKNOWN] if or_unknown else [])]
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no modality {str(text)!r}.",
            hint=did_you_mean(str(text), names, "Modalities are"),
        )
    if is_unknown and not or_unknown:
        raise MedclipError(
            Reason.WRONG_USE,
            "nothing but vectors is computed of images whose modality nobody knows.",
            hint="`medclip embed --modality unknown` keeps them, and `medclip search` looks through them.",
        )
    return modality


def group(
    files: Sequence[tuple[FileRef, FileFacts]],
    *,
    manifest: Manifest | None,
    modality: Modality | None,
    key: bytes,
    group_by: GroupBy | str = "auto",
    uneven: Uneven = "reject",
    only: Modality | None = None,
) -> tuple[Study, ...]:
    """Tie the files that can be read into units, and units into studies.

    What is read together (the slices of a series, a record's header and signals) is never torn apart but by a table.
    Rules of "auto" for each unit, first that applies: the table's columns `study` and `patient`; the DICOM Study
    Instance UID; the folder, for up to 16 images or series below the named one of which table or header name the same
    patient; one study each. Nothing else makes strangers one examination. A study holds one modality: where files
    differ, it is split. A mammogram for processing is left out where its study has the same view for presentation, and
    so is a copy of an image of the same study: the first by name counts.

    Args:
        files: Paths with their facts; those with a problem are left out.
        manifest: Table that says something about the files; None where there is none.
        modality: Modality that the caller states for the files of which neither the table nor their header names one.
        key: Key of the identity hashes.
        group_by: "folder" makes one study of every folder, "file" of every image, series or record, whatever headers
            say. By "file", mammograms for processing are read beside those for presentation.
        uneven: Whether gaps between slices are a problem of the unit or a note.
        only: Only modality that the model knows, if there is just one: single images that nobody names are taken for
            it.

    Raises:
        MedclipError: WRONG_USE for another `group_by`.

    Returns:
        Studies in the order of their first file; files within a study in the order given.
    """
    if group_by not in get_args(GroupBy):
        raise MedclipError(
            Reason.WRONG_USE,
            f"files are grouped by auto, folder or file, not by '{group_by}'.",
            hint=did_you_mean(group_by, get_args(GroupBy)),
        )
    usable: dict[str, _File] = {}
    buckets: dict[tuple[str, ...], list[tuple[FileRef, FileFacts]]] = {}
    for ref, facts in files:
        if ref.problem is not None or facts.problem is not None or facts.format not in SCORABLE_FORMATS:
            continue
        row = _row(manifest, ref)
        file = _File(ref, facts, row, *_modality(facts, row, modality, only), _patient(facts, row, key))
        usable[ref.name] = file
    copies = _copies(usable.values(), group_by)
    for file in usable.values():
        if file.ref.name not in copies:
            buckets.setdefault(_bucket(file, group_by), []).append((file.ref, file.facts))
    units = [_with_stated(unit, usable) for members in buckets.values() for unit in units_of(members, uneven=uneven)]
    counts = Counter(
        _folder(unit.files[0])
        for unit in units
        if unit.problem is None and not _alone(unit, usable[unit.files[0].name])
    )
    position = {name: index for index, name in enumerate(usable)}
    groups: dict[tuple[str, str], list[_Member]] = {}
    group_of: dict[str, tuple[str, str]] = {}
    for unit in sorted(units, key=lambda unit: min(position[ref.name] for ref in unit.files)):
        members = [usable[ref.name] for ref in unit.files]
        patients = frozenset(file.patient for file in members if file.patient)
        name = _group_name(unit, members[0], counts, group_by)
        groups.setdefault(name, []).append(_member(unit, members, patients))
        group_of.update(dict.fromkeys((ref.name for ref in unit.files), name))
    for copied, original in copies.items():
        file = usable[copied]
        unit = Unit(kind_of(file.facts), (file.ref,), COPY, copy_of=original)
        groups[group_of[original]].append(_member(unit, [file], frozenset()))
    studies = [
        study
        for name, members in groups.items()
        for study in _studies(name, _without_twins(members, usable), key, position)
    ]
    return tuple(sorted(studies, key=lambda study: position[study.files[0].name]))


def _member(unit: Unit, files: Sequence[_File], patients: frozenset[str]) -> _Member:
    return _Member(unit, _unit_modality(files), tuple(file.source for file in files), patients)


def _copies(files: Iterable[_File], group_by: str) -> dict[str, str]:
    """Find the files that hold the same image as another of their study: equal bytes, or one SOP instance.

    A transfer that broke off leaves a smaller file than the one that was sent again, so that of one instance in one
    transfer syntax the largest counts.

    Returns:
        Name of the copy -> name of the file that counts, of equal ones the first by name.
    """
    files = list(files)
    largest: dict[tuple[str, str], int] = {}
    for file in files:
        largest[_instance(file)] = max(file.ref.size_bytes, largest.get(_instance(file), 0))
    first: dict[tuple[str, ...], str] = {}
    copies: dict[str, str] = {}
    for file in sorted(files, key=lambda file: (_is_smaller(file, largest), file.ref.name.encode())):
        study = _known_tie(file, group_by)
        if study is None:
            continue
        names = [(*study, "bytes", file.facts.sha256)]
        header = file.facts.header
        if header is not None and header.instance_uid and not _is_cut(file):
            # Some exports give one UID to many images; those differ in something else.
            names.append((*study, "instance", repr(replace(header, transfer_syntax="", photometric="", lossy=False))))
        original = next((first[name] for name in names if name in first), None)
        if original is None:
            first.update(dict.fromkeys(names, file.ref.name))
        else:
            copies[file.ref.name] = original
    return copies


def _instance(file: _File) -> tuple[str, str]:
    header = file.facts.header
    return ("", "") if header is None else (header.instance_uid, header.transfer_syntax)


def _is_smaller(file: _File, largest: Mapping[tuple[str, str], int]) -> bool:
    instance = _instance(file)
    return bool(instance[0]) and file.ref.size_bytes < largest[instance]


def _is_cut(file: _File) -> bool:
    """Return whether a file is smaller than the uncompressed pixels that its header states: no copy of a whole one."""
    header = file.facts.header
    if header is None or header.transfer_syntax not in _NATIVE:
        return False
    num_values = header.rows * header.columns * header.frames * header.samples_per_pixel
    return file.ref.size_bytes < num_values * header.bits_allocated // 8


def _known_tie(file: _File, group_by: str) -> tuple[str, str] | None:
    """Return what ties a file to others, as far as it says so itself."""
    row, header = file.row, file.facts.header
    if group_by == "file":
        return None
    if group_by == "folder":
        return "folder", _folder(file.ref)
    if row is not None and row.study:
        return "table", f"{row.patient or ''}\0{row.study}"
    return ("uid", header.study_uid) if header is not None and header.study_uid else None


def _bucket(file: _File, group_by: str) -> tuple[str, ...]:
    """Return what may tear a DICOM series apart: a table that puts its files elsewhere, or grouping by folder.

    Of other files only neighbours in one folder are read together, and the header speaks for its signals.
    """
    if file.facts.format is not Format.DICOM:
        return ()
    folder = _folder(file.ref) if group_by == "folder" else ""
    study, patient = "", ""
    if file.row is not None and file.row.study:
        study, patient = file.row.study, file.patient or ""
    return folder, study, patient, str(file.modality or "")


def _with_stated(unit: Unit, usable: Mapping[str, _File]) -> Unit:
    """Add what a table states of a slide's pixel size and of a mammogram's view, and the day of the latter."""
    files = [usable[ref.name] for ref in unit.files]
    if unit.kind is Kind.SLIDE:
        sizes = (file.row.mpp_um for file in files if file.row is not None and file.row.mpp_um)
        return replace(unit, mpp_um=next(sizes, None))
    first = files[0]
    if unit.kind is Kind.IMAGE and first.modality is Modality.MAMMOGRAPHY:
        view = None if first.row is None else first.row.mammography_view
        return replace(unit, stated_view=view, exam_date=_exam_date(first))
    return unit


def _exam_date(file: _File) -> date | None:
    """Return the day that a table states, else the header; a header's that is none does not matter."""
    if file.row is not None and file.row.exam_date is not None:
        return file.row.exam_date
    try:
        return day_of("" if file.facts.header is None else file.facts.header.study_date)
    except ValueError:
        return None


def _alone(unit: Unit, first: _File) -> bool:
    """Return whether a unit is an examination by itself: a record, a slide, a volume in one file."""
    return unit.kind in (Kind.SIGNAL, Kind.SLIDE) or (
        unit.kind is Kind.VOLUME and first.facts.format is not Format.DICOM
    )


def _unit_modality(members: Sequence[_File]) -> Modality | None:
    return next((file.modality for file in members if file.modality is not None), None)


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


def _group_name(unit: Unit, file: _File, counts: Counter[str], group_by: str) -> tuple[str, str]:
    """Return what ties a unit to others: the kind of tie and its name."""
    folder, tie = _folder(file.ref), _known_tie(file, group_by)
    if tie is not None:
        return tie
    alone = group_by == "file" or not folder or file.patient is None or _alone(unit, file)
    if alone or counts[folder] > MAX_FOLDER_STUDY:
        return "file", file.ref.name
    return "folder", f"{folder}\0{file.patient}"


def _modality(
    facts: FileFacts, row: ManifestRow | None, option: Modality | None, only: Modality | None
) -> tuple[Modality | None, ModalitySource | None]:
    """Decide the modality: table before header before option.

    A table's row is a statement about that very file, a header is one of the device; the option is about a whole
    folder and fills in what nothing else names.
    """
    if row is not None and row.modality is not None:
        return row.modality, ModalitySource.TABLE
    modality = modality_of(facts)
    if modality is not None:
        return modality, ModalitySource.HEADER
    is_image = kind_of(facts) is Kind.IMAGE
    if option is not None and (is_image or option is not UNKNOWN):
        return option, ModalitySource.OPTION
    is_open = facts.header is None or other_modality(facts.header) is None
    if only is not None and is_open and is_image:
        return only, ModalitySource.PACK
    return None, None


def _without_twins(members: Sequence[_Member], usable: Mapping[str, _File]) -> list[_Member]:
    """Return mammograms for processing a problem where the study has the same view for presentation."""
    files = [usable[ref.name] for member in members for ref in member.unit.files]
    twins = twins_for_processing([(file.ref, file.facts) for file in files])
    return [
        replace(member, unit=replace(member.unit, problem=_TWIN))
        if member.unit.problem is None and member.unit.files[0].name in twins
        else member
        for member in members
    ]


def _studies(name: tuple[str, str], members: Sequence[_Member], key: bytes, position: Mapping[str, int]) -> list[Study]:
    """Make one study per modality of a group."""
    grouping, value = name
    parts: dict[Modality | None, list[_Member]] = {}
    for member in members:
        parts.setdefault(member.modality, []).append(member)
    studies = []
    for modality, part in parts.items():
        # Only a study that was split carries its modality in the key, so that keys stay the same when it is not.
        suffix = f"\0{modality or ''}" if len(parts) > 1 else ""
        patients = {patient for member in part for patient in member.patients}
        files = sorted(
            ((ref, source) for member in part for ref, source in zip(member.unit.files, member.sources, strict=True)),
            key=lambda pair: position[pair[0].name],
        )
        studies.append(
            Study(
                key=keyed_hash("study", f"{grouping}\0{value}{suffix}", key),
                tie=keyed_hash("study", f"{grouping}\0{value}", key),
                # Views of one study that name different patients (a real quirk of CBIS-DDSM) name none.
                patient=patients.pop() if len(patients) == 1 else None,
                files=tuple(ref for ref, _ in files),
                modality=modality,
                modality_source=files[0][1],
                grouping=grouping,
                file_sources=tuple(source for _, source in files),
                units=tuple(member.unit for member in part),
            )
        )
    return studies

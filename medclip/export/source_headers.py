"""The headers that results go back with: who, which study, which images; read once more when results are written.

A study's results are encoded beside them, in a reading process.

A run keeps none of this: tables and ledger have hashes. What is read here goes into the files that were asked for and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from medclip.dicom.header.elements import quiet
from medclip.export.formats import Format
from medclip.export.study_result import Algorithm, StudyResult
from medclip.lazy import import_name
from medclip.runs.rows import FileRow

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


NO_HEADER = "no DICOM header"
GONE = "a file cannot be read any more"
NO_UIDS = "a header without UIDs"
SEVERAL_STUDIES = "files of several DICOM studies"
SEVERAL_PATIENTS = "files of several patient IDs"
NO_MAP = "no heat map"
NO_MASK = "nothing that was asked for as a map"
SEVERAL_SIZES = "images of several sizes or series, whose masks no one object holds"
NO_ANSWER = "no answer but maps"
UNFIT = "a header that cannot be copied"
UNREAD = "an earlier result cannot be read"
WAVEFORM = "waveforms, which an image library does not hold"
_WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
"""What the SOP classes of ECGs and other waveforms begin with (PS3.4, B.5)."""

_UID = re.compile(r"(?=.{3,64}$)\d+(\.\d+)+")
"""Digits and dots: images have UIDs with leading zeros, too, and are referred to by what they have."""
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_COPIED = (
    *_UIDS,
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "DeidentificationMethodCodeSequence", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
    *("ReferringPhysicianName", "ProcedureCodeSequence"),
    *("Modality", "Rows", "Columns", "NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient", "FrameOfReferenceUID"),
    *("PatientOrientation", "SharedFunctionalGroupsSequence"),
)
"""What results may hold of a header, and what describes an image to a reader of them."""
_TYPE_2 = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
"""Attributes that every DICOM object has, empty where nothing is known."""


@dataclass(frozen=True)
class Headers:
    """The headers of a study's images; where there are none, why."""

    images: tuple[Dataset, ...]
    """Of each image that was scored, cut down to what results may hold and checked, in the order of file names."""
    lacking: str = ""
    uids: Mapping[str, str] = field(default_factory=dict)
    """SOP Instance UID by `FileRow.path`; two files may hold one image."""

    def of_files(self, paths: Sequence[str]) -> tuple[Dataset, ...]:
        """Return the images of some files, each once, in the order of file names."""
        named = {self.uids.get(path) for path in paths}
        return tuple(image for image in self.images if str(image.SOPInstanceUID) in named)

    @property
    def first(self) -> Dataset:
        """Patient and study."""
        return self.images[0]


def read_headers(files: Sequence[FileRow], path_of: Callable[[str], Path]) -> Headers:
    """Read the headers of a study's files.

    Args:
        files: Files that were scored.
        path_of: Function that gives the place of a file by its `FileRow.path`.

    Returns:
        The headers of all images, one for each SOP instance. None where a file is not DICOM, is gone or lacks its UIDs,
        and where the files do not belong to one study of one patient: results must not go to the wrong one.
    """
    if any(file.format != "dicom" for file in files):
        return Headers((), NO_HEADER)
    images: dict[str, Dataset] = {}
    uids: dict[str, str] = {}
    for file in files:
        header = _read(path_of(file.path))
        if header is None:
            return Headers((), GONE)
        if not all(_is_uid(header.get(name)) for name in _UIDS):
            return Headers((), NO_UIDS)
        uids[file.path] = str(header.SOPInstanceUID)
        images.setdefault(uids[file.path], header)
    for names, lacking in (("PatientID", SEVERAL_PATIENTS), ("StudyInstanceUID", SEVERAL_STUDIES)):
        if len({str(header.get(names) or "").strip() for header in images.values()}) > 1:
            return Headers((), lacking)
    return Headers(tuple(images.values()), uids=uids)


def _read(path: Path) -> Dataset | None:
    import pydicom
    from pydicom.dataset import Dataset

    try:
        with quiet("pydicom"):
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            kept = Dataset()
            for name in _COPIED:
                with suppress(Exception):  # a value that cannot be read is none; pydicom raises many types
                    if name in header:
                        kept.add(header[name])
            return _checked(kept)
    except Exception:  # the same of whole files; the texts may quote header values
        return None


def _checked(header: Dataset) -> Dataset:
    """Empty what may not stand in an object of ours: values that are no dates, times or sexes."""
    from pydicom.valuerep import DA, TM

    for name in _TYPE_2:
        if header.get(name) is None:
            setattr(header, name, "")
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            kind(header.get(name))
        except Exception:
            setattr(header, name, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    if header.get("PatientIdentityRemoved") == "YES" and not header.get("DeidentificationMethodCodeSequence"):
        header.DeidentificationMethod = header.get("DeidentificationMethod") or "not stated in the images"
    for name in ("Rows", "Columns"):
        if not isinstance(header.get(name), int) and name in header:
            del header[name]
    return header


def _is_uid(value: Any) -> bool:
    return _UID.fullmatch(str(value or "")) is not None


def encode_study(
    result: StudyResult,
    paths: Mapping[str, Path],
    forms: Mapping[str, Format],
    algorithm: Algorithm,
    created: datetime,
    earlier: Mapping[str, Sequence[Path]] = MappingProxyType({}),
) -> dict[str, bytes | str]:
    """Read the headers of a study's files and write its answers in some forms; called in a reading process.

    Args:
        result: The answers.
        paths: Path of each file of the study, by name.
        forms: Forms by name; rows and not names alone, for the process may have another table.
        algorithm: Algorithm that answered.
        created: Time at which the results count as made.
        earlier: Files of earlier results by form, which these replace.

    Returns:
        By form the content of its file, or in words why there is none.
    """
    headers = read_headers(result.files, paths.__getitem__)
    contents: dict[str, bytes | str] = {}
    for name, form in forms.items():
        lacking = headers.lacking or (WAVEFORM if any(map(_is_waveform, headers.images)) else "")
        if form.needs_header and lacking:
            contents[name] = lacking
            continue
        if form.needs_map and result.drawn is None:
            contents[name] = NO_MAP
            continue
        if form.needs_masks != bool(result.masks) and (form.needs_masks or not result.answers):
            contents[name] = NO_MASK if form.needs_masks else NO_ANSWER
            continue
        if form.needs_masks and len({_place_of(header) for header in headers.images}) > 1:
            contents[name] = SEVERAL_SIZES
            continue
        try:
            replaced = {"earlier": [path.read_bytes() for path in earlier[name]]} if earlier.get(name) else {}
        except OSError:
            contents[name] = UNREAD
            continue
        try:
            contents[name] = import_name(form.target)(result, headers, algorithm, created, **replaced)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            contents[name] = UNFIT  # highdicom raises them of headers that break their standard
    return contents


def _place_of(header: Dataset) -> tuple[Any, ...]:
    return str(header.SeriesInstanceUID), header.get("Rows"), header.get("Columns")


def _is_waveform(header: Dataset) -> bool:
    return str(header.SOPClassUID).startswith(_WAVEFORMS)

"""Headers of slices, built by code: no file is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from medclip.dicom.header.read import DicomHeader
from medclip.files.grouping.series import Slice
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.sample import FileRef

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
BASE = DicomHeader(
    modality="CT",
    sop_class="1.2.840.10008.5.1.4.1.1.2",
    study_uid="1.2.3",
    series_uid="1.2.3.4",
    rows=64,
    columns=64,
    has_pixels=True,
    photometric="MONOCHROME2",
    spacing_mm=(1.0, 1.0),
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    image_orientation=AXIAL,
)


def header(z: float | None = 0.0, **values: Any) -> DicomHeader:
    """Give the header of one CT slice at a height."""
    place = {} if z is None else {"image_position": (0.0, 0.0, float(z))}
    return dataclasses.replace(BASE, **(place | values))


def piece(name: str, z: float | None = 0.0, **values: Any) -> Slice:
    """Give a slice for `series.stacks`; its hash is its name unless given."""
    sha256 = values.pop("sha256", name)
    return Slice(name, header(z, **values), sha256)


def dicom(name: str, z: float | None = 0.0, **values: Any) -> tuple[FileRef, FileFacts]:
    """Give a DICOM file with its facts."""
    sha256 = values.pop("sha256", name)
    return FileRef(Path("/data") / name, name), FileFacts(sha256, Format.DICOM, header(z, **values))


def plain(name: str, fmt: Format, *parts: str) -> tuple[FileRef, FileFacts]:
    """Give another file with its facts."""
    return FileRef(Path("/data") / name, name), FileFacts(name, fmt, parts=parts)

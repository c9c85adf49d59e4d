"""Look at one file: hash it, name its format, read its header. Runs in a reading worker and never raises."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from medclip.dicom.codecs.transfer_syntax import JPEG_XL, OTHER, VIDEO
from medclip.dicom.header.codes import TO_BE_INFERRED, WAVEFORMS
from medclip.dicom.header.read import DicomHeader, modality_code, modality_from_header, read_header
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.worker import passing_error
from medclip.files.recognise.companions import Placed, may_be_part, place
from medclip.files.recognise.sniff import HEAD_BYTES, Format, sniff_open
from medclip.sample import NO_STAMP, Stamp
from medclip.settings import Settings

# What this version reads, and the sentence for everything it does not.

READS = (
    "this version reads DICOM, PNG, JPEG, TIFF, GIF, BMP, WebP, JPEG 2000, NIfTI, Analyze, MINC, MetaImage, "
    "whole-slide files, MP4, AVI and ECGs as WFDB, EDF, SCP-ECG, XML or MATLAB"
)
SCORABLE_FORMATS = frozenset(
    {
        Format.DICOM,
        Format.PNG,
        Format.JPEG,
        Format.TIFF,
        Format.GIF,
        Format.BMP,
        Format.WEBP,
        Format.JPEG2000,
        Format.SLIDE,
        Format.NIFTI,
        Format.VOLUME_DATA,
        Format.MINC,
        Format.METAIMAGE,
        Format.METAIMAGE_2D,
        Format.WFDB,
        Format.WFDB_SIGNAL,
        Format.EDF,
        Format.SCP_ECG,
        Format.XML_ECG,
        Format.MATLAB,
        Format.MP4,
        Format.AVI,
    }
)
"""Formats that are read, alone or with the neighbour they belong to."""
PROJECTION_CODES = frozenset({"CR", "DX", "MG"}) | TO_BE_INFERRED
"""DICOM modality codes of projection images and of those that do not say."""

_NOT_YET: Mapping[Format, tuple[str, str]] = {
    Format.NRRD: ("an NRRD volume", "convert it to NIfTI"),
    Format.HDF5: ("an HDF5 file (MATLAB 7.3 and MINC 2 are such)", "write what it holds as NIfTI, PNG or WFDB"),
    Format.ZIP: ("a ZIP archive", "unpack it first"),
    Format.GZIP: ("a gzip archive", "unpack it first"),
}
_COMPANIONS: Mapping[Format, str] = {
    Format.PDF: "a PDF document",
    Format.HTML: "an HTML page",
    Format.XML: "an XML document",
    Format.JSON: "a JSON file",
    Format.CSV: "a table of text",
    Format.TEXT: "a text file",
}
_OTHER_MODALITIES: Mapping[str, str] = {
    "NM": "a nuclear medicine image",
    "PT": "a PET image",
    "XA": "an angiography image",
    "RF": "a fluoroscopy image",
    "IO": "an intra-oral X-ray image",
    "PX": "a panoramic dental X-ray image",
    "BI": "a biomagnetic image",
    "BDUS": "a bone densitometry ultrasound image",
    "BMD": "a bone density image",
    "AR": "an autorefraction record",
    "KER": "a keratometry record",
    "OAM": "an ophthalmic axial measurement",
    "OPM": "an ophthalmic map",
    "OPV": "a visual field",
    "OSS": "an optical surface scan",
    "LEN": "a lensometry record",
    "TG": "a thermogram",
    "RTIMAGE": "a radiotherapy portal image",
    "HC": "a hard copy",
    "HD": "a haemodynamic waveform",
    "EPS": "an electrophysiology waveform",
}
_ANY_PHOTOGRAPH = frozenset({"XC"})
"""Photographs: of skin, an eye, a wound; the code does not say, so the modality is inferred or named."""
_MAPS = frozenset({"SEG", "RTDOSE", "RWV", "REG"})
_SEGMENTATIONS = "1.2.840.10008.5.1.4.1.1.66."
_SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
_DOCUMENTS: Mapping[str, str] = {
    "SR": "a structured report",
    "KO": "a key object selection",
    "PR": "a presentation state",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTPLAN": "a radiotherapy plan",
    "DOC": "an encapsulated document",
}
_IMAGE_CLASS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:1|2|3|4|6|7|12|13|20|77|128|130|481\.1)(?:\.|$)")
"""SOP classes of images, by the first number behind the common stem (DICOM PS3.4, table B.5-1)."""


def format_problem(fmt: Format) -> Problem | None:
    """Return why a format is not read; None for the formats that are."""
    if fmt in SCORABLE_FORMATS:
        return None
    if fmt is Format.EMPTY:
        return Problem(Reason.EMPTY_FILE, "the file is empty (0 bytes).")
    if fmt is Format.DICOMDIR:
        return Problem(Reason.NO_PIXELS, "the file is a DICOMDIR, an index of other files, and holds no image.")
    if fmt in _NOT_YET:
        what, remedy = _NOT_YET[fmt]
        return Problem(Reason.NOT_SUPPORTED_YET, f"the file is {what}, which is not read; {remedy}.")
    if fmt in _COMPANIONS:
        return Problem(Reason.NOT_AN_IMAGE, f"the file is {_COMPANIONS[fmt]}, not an image.")
    return Problem(Reason.UNKNOWN_FORMAT, f"the file's bytes match no format known here; {READS}.")


def dicom_problem(header: DicomHeader) -> Problem | None:
    """Return why a DICOM object is not read; None for images of any modality and for waveforms."""
    code = modality_code(header)
    if header.cut and (header.rows or header.columns or not header.sop_class or _IMAGE_CLASS.match(header.sop_class)):
        return Problem(Reason.TRUNCATED, "the DICOM file ends inside its header, before any pixels.")
    if header.sop_class.startswith(WAVEFORMS):
        if header.cut:
            return Problem(Reason.TRUNCATED, "the DICOM waveform ends inside its header.")
        return None
    if not header.has_pixels:
        what = _DOCUMENTS.get(code)
        detail = f" ({what})" if what else ""
        return Problem(
            Reason.NO_PIXELS, f"the DICOM object{detail} holds no pixel data, so there is no image to score."
        )
    if code in _MAPS or header.sop_class.startswith(_SEGMENTATIONS):
        return Problem(Reason.NOT_AN_IMAGE, "the DICOM object is a map over other images, not an image itself.")
    if (unread := _syntax_problem(header)) is not None:
        return unread
    if header.rows < 1 or header.columns < 1:
        return Problem(Reason.CORRUPT, "the DICOM object holds pixels, but does not state how many rows and columns.")
    return None


def _syntax_problem(header: DicomHeader) -> Problem | None:
    """Return the sentence that pixels are stored in a way that no decoder here reads; None for all other ways."""
    uid = header.transfer_syntax
    if uid in VIDEO:
        return Problem(
            Reason.NOT_SUPPORTED_YET,
            f"the DICOM object holds a film as {VIDEO[uid].partition(' ')[0]}, which is not read; export it as MP4.",
        )
    title = OTHER.get(uid) or ("" if header.sop_class == _SLIDES else JPEG_XL.get(uid))
    if not title:
        return None
    return Problem(
        Reason.NOT_SUPPORTED_YET,
        f"the DICOM object's pixels are stored as {title}, which is not read; export it as JPEG 2000 or uncompressed.",
    )


def other_modality(header: DicomHeader) -> str | None:
    """Return what a DICOM object of a modality without an adapter is, such as "an angiography image".

    Returns:
        None where an adapter reads it or where the code leaves the modality open (OT, SC, XC, none), so that it may be
        named or inferred.
    """
    code = modality_code(header)
    if modality_from_header(header) is not None or code in TO_BE_INFERRED or code in _ANY_PHOTOGRAPH:
        return None
    return _OTHER_MODALITIES.get(code, "an object of another modality")


_IN_MEMORY_BYTES = 64 * 1024**2
"""Files up to this size are read once into memory for hashing, sniffing and header parsing; larger ones stream."""

_ALONE = frozenset({Format.DICOM, Format.PNG, Format.JPEG, Format.TIFF, Format.SLIDE, Format.EMPTY})
"""The common formats, which never belong to a neighbour, but for parts of slides (`may_be_part`)."""

_NO_IMAGES = frozenset({Format.TEXT, Format.HTML, Format.XML, Format.JSON, Format.CSV, Format.PDF, Format.UNKNOWN})
_IMAGE_SUFFIXES = (
    *(".dcm", ".dicom", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".mha", ".mhd"),
    *(".svs", ".ndpi", ".scn", ".bif", ".mp4", ".avi", ".edf"),
)


@dataclass(frozen=True)
class FileFacts:
    """What is known about a file before its pixels are decoded."""

    sha256: str
    """Hex digest of the bytes; empty if they could not be read."""
    format: Format
    header: DicomHeader | None = None
    problem: Problem | None = None
    """Set when the file cannot or need not be scored."""
    parts: tuple[str, ...] = ()
    """Names of the files beside it that are read with it: the signals of a record, the voxels of a header."""
    stamp: Stamp = NO_STAMP
    """Of the file whose bytes were hashed."""


def inspect_file(
    path: Path, settings: Settings, hashed: tuple[Stamp, str] | None = None, *, raise_passing: bool = False
) -> FileFacts:
    """Hash a file, sniff its format and read its header if it is DICOM.

    Args:
        path: The file.
        settings: Limits.
        hashed: Stamp and hash of the file when it was looked at before; where the stamp is the same, it is not read
            whole again.
        raise_passing: Whether the errors of a drive that may be gone in a moment are raised, for a caller that tries
            again.

    Returns:
        The facts; `problem` is set for everything that will not be scored. Nothing is raised for a bad file.

    Raises:
        OSError: As `passing_error` knows them, with `raise_passing`.
    """
    try:
        with path.open("rb") as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            if hashed is not None and hashed[0] == stamp:
                facts = _facts(path, file, hashed[1], stamp.size_bytes, settings)
            elif stamp.size_bytes > _IN_MEMORY_BYTES:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                facts = _facts(path, file, digest, stamp.size_bytes, settings)
            else:
                data = file.read()
                facts = _facts(path, io.BytesIO(data), hashlib.sha256(data).hexdigest(), len(data), settings)
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                return FileFacts("", Format.UNKNOWN, None, CHANGED)
            return replace(facts, stamp=stamp)
    except OSError as error:
        if raise_passing and passing_error(error) is not None:
            raise
        return FileFacts("", Format.UNKNOWN, None, os_problem(error))


_SLIDE = "SM"
"""Modality of DICOM slides."""
_TOO_LARGE = Problem(Reason.TOO_LARGE, "the file is larger than the limit for decoding.")
CHANGED = Problem(
    Reason.CHANGED,
    "the file was written to or replaced while it was read; medclip retry --reason changed tries it again.",
)


def is_unchanged(path: Path, facts: FileFacts) -> bool:
    """Return whether a path still leads to the very file that was looked at."""
    if facts.stamp == NO_STAMP:
        return True
    try:
        return Stamp.of(path.stat()) == facts.stamp
    except OSError:
        return False


def os_problem(error: OSError) -> Problem:
    """Turn an error of the operating system into a row's problem."""
    if isinstance(error, PermissionError):
        return Problem(Reason.PERMISSION_DENIED, "the file may not be read; check its permissions.")
    if isinstance(error, FileNotFoundError):
        return Problem(Reason.MISSING_FILE, "the file does not exist.")
    if isinstance(error, IsADirectoryError):
        return Problem(Reason.NOT_A_FILE, "the path is a folder, not a file.")
    return Problem(Reason.READ_ERROR, f"the file could not be read ({error.strerror or type(error).__name__}).")


def _broken_promise(path: Path, fmt: Format) -> Problem | None:
    """Recognise a file that only calls itself an image, such as the error page that a download saved as a .dcm file.

    The format is decided by the bytes alone; the name says only whether something else was meant to be there.
    """
    suffix = path.suffix.lower()
    if fmt not in _NO_IMAGES or suffix not in _IMAGE_SUFFIXES:
        return None
    held = "unknown bytes" if fmt is Format.UNKNOWN else f"{fmt.upper() if len(fmt) < 5 else fmt} data"
    return Problem(Reason.CORRUPT, f"the file's name ends in {suffix}, but it holds {held} and no image.")


def _facts(path: Path, file: BinaryIO, digest: str, size: int, settings: Settings) -> FileFacts:
    file.seek(0)
    fmt = sniff_open(file)
    placed = None
    if fmt not in _ALONE or may_be_part(path):
        file.seek(0)
        placed = place(path, fmt, file.read(HEAD_BYTES))
    if placed is None:
        placed = Placed(fmt, (), format_problem(fmt))
    fmt, problem = placed.format, placed.problem
    if problem is not None:
        return FileFacts(digest, fmt, None, _broken_promise(path, fmt) or problem)
    too_large = _TOO_LARGE if size > settings.max_file_bytes else None
    if fmt is not Format.DICOM:
        # Of a slide in tiles some are read at a time: what it takes to decode it does not grow with the file.
        if too_large is not None and fmt is not Format.SLIDE:
            return FileFacts(digest, fmt, None, too_large)
        return FileFacts(digest, fmt, parts=placed.parts)
    try:
        header = read_header(file)
    except MedclipError as error:
        return FileFacts(digest, fmt, None, error.problem())
    if too_large is not None and modality_code(header) != _SLIDE:
        return FileFacts(digest, fmt, None, too_large)
    return FileFacts(digest, fmt, header, dicom_problem(header))

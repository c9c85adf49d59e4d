"""Look at one file: hash it, name its format, read its header. Runs in a reading worker and never raises."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from medclip.dicom.header.read import DicomHeader, modality_code, read_header
from medclip.errors import MedclipError, Problem, Reason
from medclip.files.readers.passing_errors import passing_error
from medclip.files.recognise.companions import place
from medclip.files.recognise.slide_parts import Placed, may_be_part
from medclip.files.recognise.sniff import HEAD_BYTES, Format, sniff_open
from medclip.files.recognise.supported import dicom_problem, format_problem
from medclip.sample import NO_STAMP, Stamp
from medclip.settings import Settings

_IN_MEMORY_BYTES = 64 * 1024**2
"""Files up to this size are read once into memory for hashing, sniffing and header parsing; larger ones stream."""

_ALONE = frozenset({Format.DICOM, Format.PNG, Format.JPEG, Format.TIFF, Format.SLIDE, Format.EMPTY})
"""The common formats, which never belong to a neighbour, but for parts of slides (`may_be_part`)."""

_NO_IMAGES = frozenset({Format.TEXT, Format.HTML, Format.XML, Format.JSON, Format.CSV, Format.PDF, Format.UNKNOWN})
_IMAGE_SUFFIXES = (
    *(".dcm", ".dicom", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff"),
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
    path: Path, settings: Settings, known: tuple[Stamp, str] | None = None, *, raise_passing: bool = False
) -> FileFacts:
    """Hash a file, sniff its format and read its header if it is DICOM.

    Args:
        path: The file.
        settings: Limits.
        known: Stamp and hash of the file when it was looked at before; where the stamp is the same, it is not read
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
            if known is not None and known[0] == stamp:
                facts = _facts(path, file, known[1], stamp.size_bytes, settings)
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

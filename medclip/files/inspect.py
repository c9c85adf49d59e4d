"""Look at one file: hash it, name its format, read its header. Runs in a reading worker and never raises."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.dicom_header import DicomHeader, read_header
from medclip.files.sniff import HEAD_BYTES, Format, sniff_open
from medclip.files.support import READS, dicom_problem, format_problem
from medclip.settings import Settings

_IN_MEMORY_BYTES = 64 * 1024**2
"""Files up to this size are read once into memory for hashing, sniffing and header parsing; larger ones stream."""


@dataclass(frozen=True)
class FileFacts:
    """What is known about a file before its pixels are decoded."""

    sha256: str
    """Hex digest of the bytes; empty if they could not be read."""
    format: Format
    header: DicomHeader | None = None
    problem: Problem | None = None
    """Set when the file cannot or need not be scored."""


def inspect_file(path: Path, settings: Settings) -> FileFacts:
    """Hash a file, sniff its format and read its header if it is DICOM.

    Args:
        path: The file.
        settings: Limits.

    Returns:
        The facts; `problem` is set for everything that will not be scored. Nothing is raised for a bad file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if size > _IN_MEMORY_BYTES:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return _with_neighbour(path, _facts(file, digest, size, settings))
            data = file.read()
        return _with_neighbour(path, _facts(io.BytesIO(data), hashlib.sha256(data).hexdigest(), len(data), settings))
    except OSError as error:
        return FileFacts("", Format.UNKNOWN, None, os_problem(error))


def _with_neighbour(path: Path, facts: FileFacts) -> FileFacts:
    """Name the bare signals of a WFDB record, which nothing but the header beside them can tell."""
    if facts.problem is None or facts.problem.reason is not Reason.UNKNOWN_FORMAT:
        return facts
    try:
        with path.with_suffix(".hea").open("rb") as file:
            text = file.read(HEAD_BYTES)
    except OSError:
        return facts
    if sniff_open(io.BytesIO(text)) is Format.WFDB and path.name.encode("utf-8", "surrogateescape") in text.split():
        return replace(
            facts, problem=Problem(Reason.NOT_SUPPORTED_YET, f"The file is the signal file of a WFDB record; {READS}.")
        )
    return facts


def os_problem(error: OSError) -> Problem:
    """Turn an error of the operating system into a row's problem."""
    if isinstance(error, PermissionError):
        return Problem(Reason.PERMISSION_DENIED, "The file may not be read; check its permissions.")
    if isinstance(error, FileNotFoundError):
        return Problem(Reason.MISSING_FILE, "The file does not exist any more.")
    if isinstance(error, IsADirectoryError):
        return Problem(Reason.NOT_A_FILE, "The path is a folder, not a file.")
    return Problem(Reason.READ_ERROR, f"The file could not be read ({error.strerror or type(error).__name__}).")


def _facts(file: BinaryIO, digest: str, size: int, settings: Settings) -> FileFacts:
    file.seek(0)
    fmt = sniff_open(file)
    problem = format_problem(fmt)
    if problem is not None:
        return FileFacts(digest, fmt, None, problem)
    if size > settings.max_file_bytes:
        return FileFacts(
            digest, fmt, None, Problem(Reason.TOO_LARGE, "The file is larger than the limit for decoding.")
        )
    if fmt is not Format.DICOM:
        return FileFacts(digest, fmt)
    try:
        header = read_header(file)
    except MedclipError as error:
        return FileFacts(digest, fmt, None, error.problem())
    return FileFacts(digest, fmt, header, dicom_problem(header))

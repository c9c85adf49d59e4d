"""Files that are read together with a neighbour: WFDB records and their signals, headers and their voxels, slides of
several files.

A neighbour is looked for only where the bytes of a file ask for one, and it is told by its own bytes and by what it
names, not by its suffix alone.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medclip.errors import MedclipError, Problem, Reason
from medclip.files.recognise.metaimage_header import is_metaimage, read_metaimage_header
from medclip.files.recognise.sniff import HEAD_BYTES, SLIDE_TEXTS, Format, gunzip_head, is_nifti, sniff_open

# Slides of several files: MIRAX (a .mrxs and a folder of data) and Hamamatsu (a .vms or .vmu that names its images).
#
# A .mrxs is a JPEG by its bytes, an overview of the slide; only the folder beside it makes it a slide.

_OVERVIEW = ".mrxs"
_INDEX = "Slidedat.ini"
_LISTS = (".vms", ".vmu")
_LIST_BYTES = 64 * 1024
_TAKEN = frozenset({Format.TIFF, Format.SLIDE, Format.DICOM, Format.EMPTY})
"""What OpenSlide does not take for MIRAX either, whatever its name."""
_DATA = frozenset({".dat", ".ini"})
_IMAGES = frozenset({".jpg", ".jpeg", ".ngr", ".opt"})
_RAW = (".raw", ".zraw")
"""As ITK calls the voxels of a MetaImage."""
_NUMBERED = re.compile(r"(\(\d+,\d+(,\d+)?\)|_macro|_map\d*)$", re.IGNORECASE)
_PART = Problem(Reason.COMPANION, "the file is a part of the slide beside it and is not read on its own.")


@dataclass(frozen=True)
class Placed:
    """A file with its neighbours taken into account."""

    format: Format
    parts: tuple[str, ...] = ()
    """Names, in the same folder, of the files that are read with this one."""
    problem: Problem | None = None


def may_be_part(path: Path) -> bool:
    """Return whether, by its name alone, a file may belong to a slide or a MetaImage."""
    return path.suffix.lower() in (_OVERVIEW, *_DATA, *_IMAGES, *_RAW)


def slide_part(path: Path, fmt: Format) -> Placed | None:
    """Recognise the overview of a MIRAX slide, and the data of slides of several files.

    Returns:
        None for any other file.
    """
    suffix = path.suffix.lower()
    if suffix == _OVERVIEW and fmt not in _TAKEN:
        return _mirax(path)
    if suffix in _DATA and _belongs_to_mirax(path):
        return Placed(fmt, (), _PART)
    if suffix in _IMAGES and _is_listed(path):
        return Placed(fmt, (), _PART)
    return None


def _mirax(path: Path) -> Placed:
    if (path.with_suffix("") / _INDEX).is_file():
        return Placed(Format.SLIDE)
    message = (
        "the file is the overview of a MIRAX slide, and the folder of the same name with the slide itself is not "
        "beside it; put both into one folder."
    )
    return Placed(Format.SLIDE, (), Problem(Reason.MISSING_FILE, message))


def _belongs_to_mirax(path: Path) -> bool:
    folder = path.parent
    if not (folder / _INDEX).is_file():
        return False
    return any(folder.with_name(folder.name + suffix).is_file() for suffix in (_OVERVIEW, _OVERVIEW.upper()))


def _is_listed(path: Path) -> bool:
    """Return whether a Hamamatsu list of the same stem names a file."""
    stem = _NUMBERED.sub("", path.stem)
    for suffix in _LISTS:
        listing = path.with_name(stem + suffix)
        try:
            if not listing.is_file():  # a pipe would never end
                continue
            with listing.open("rb") as file:
                text = file.read(_LIST_BYTES)
        except OSError:
            continue
        if text.startswith(SLIDE_TEXTS):
            named = {line.partition("=")[2].strip().casefold() for line in text.decode("latin-1").splitlines()}
            if path.name.casefold() in named or path.suffix.lower() == ".opt":
                return True
    return False


_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STRUCT_CLASS = 2


def matlab_problem(path: Path, head: bytes) -> Problem | None:
    """Return why a MATLAB file without a WFDB header beside it is not read; None for a struct named ECG.

    Args:
        path: The file; its suffixes matter to no one.
        head: First bytes of the file.
    """
    if head.startswith(b"MATLAB 5.0"):
        if first_variable(head) == (_STRUCT_CLASS, "ECG"):
            return None
        message = "the MATLAB file holds no ECG struct; write what it holds as NIfTI, PNG or WFDB."
        return Problem(Reason.NOT_SUPPORTED_YET, message)
    if head[20:24] == b"val\0":
        message = (
            "the file looks like the signals of a WFDB record, and the header (.hea) that states leads and gain is not "
            "beside it; put both into one folder."
        )
        return Problem(Reason.MISSING_FILE, message)
    return Problem(Reason.NOT_SUPPORTED_YET, "the MATLAB file holds a bare matrix without units; write it as WFDB.")


def first_variable(head: bytes) -> tuple[int, str] | None:
    """Return class and name of the first variable of a MATLAB 5 file, or None where that cannot be read.

    Example:
        >>> first_variable(b"MATLAB 5.0") is None
        True
    """
    try:
        endian = {b"IM": "<", b"MI": ">"}[head[126:128]]
        body = head[_HEADER:]
        kind, _ = struct.unpack_from(f"{endian}II", body)
        if kind == _COMPRESSED:
            body = zlib.decompressobj().decompress(body[8:], 1024)
            kind, _ = struct.unpack_from(f"{endian}II", body)
        if kind != _MATRIX:
            return None
        # Tag of the matrix, then array flags (8 + 8 bytes), dimensions (8 + padded), name.
        (flags,) = struct.unpack_from(f"{endian}I", body, 16)
        (size,) = struct.unpack_from(f"{endian}I", body, 28)
        at = 32 + -(-size // 8) * 8
        (word,) = struct.unpack_from(f"{endian}I", body, at)
        small = word >> 16  # names of up to four letters sit inside their tag
        length = small or struct.unpack_from(f"{endian}I", body, at + 4)[0]
        start = at + (4 if small else 8)
        return flags & 0xFF, body[start : start + length].decode("ascii")
    except (KeyError, struct.error, zlib.error, UnicodeDecodeError):
        return None


_MAX_PARTS = 20_000
"""Segments of the longest records in public collections are some thousands."""
_HEADER_BYTES = 4 * 1024**2
_SIERRA = re.compile(rb"<\s*documenttype\s*>\s*([\w.-]{1,40})\s*<", re.IGNORECASE)
_OTHER_XML = re.compile(rb"<\s*(?:\w+:)?(?:CardiologyXML|ECGReport)\b", re.IGNORECASE)
_VOXELS = re.compile(r"\.img(\.gz)?$", re.IGNORECASE)
_ONE_FILE = (".nii", ".nii.gz")
_META_HEADERS = (".mhd", ".mha", ".MHD")
_OF_ANY_BYTES = frozenset({Format.UNKNOWN, Format.MATLAB, Format.TEXT, Format.CSV, Format.GZIP})
"""What bare voxels may look like."""
_LONGEST_HEADER = 1024
"""A file that is longer holds voxels itself; NIfTI-2 headers have 540 bytes."""
_PAIR_HEADER = re.compile(r"\.hdr(\.gz)?$", re.IGNORECASE)


def place(path: Path, fmt: Format, head: bytes) -> Placed | None:
    """Look at what lies beside a file, where its format asks for that.

    Returns:
        None where neighbours do not matter and what the bytes say stands.
    """
    part = slide_part(path, fmt)
    if part is not None:
        return part
    if fmt is Format.WFDB:
        return _record(path, head)
    if fmt is Format.NIFTI:
        return _pair(path, head)
    if fmt is Format.XML_ECG:
        return _xml(head)
    if fmt in (Format.METAIMAGE, Format.METAIMAGE_2D):
        return _metaimage(path, fmt)
    if (fmt in _OF_ANY_BYTES or path.suffix.lower() in _RAW) and _is_of_metaimage(path):
        return Placed(Format.VOLUME_DATA)
    if fmt in (Format.UNKNOWN, Format.MATLAB):
        placed = _signal_of_a_record(path) or (_voxels(path) if _VOXELS.search(path.name) else None)
        if placed is None and fmt is Format.MATLAB:
            return Placed(fmt, (), matlab_problem(path, head))
        return placed
    if fmt in (Format.TEXT, Format.CSV):  # samples that begin with -2 look like the mark of UTF-16
        placed = _signal_of_a_record(path)
        return placed if placed is not None and placed.format is Format.WFDB_SIGNAL else None
    return _voxels(path) if fmt is Format.GZIP and _VOXELS.search(path.name) else None


@dataclass(frozen=True)
class _Record:
    """What the text of a WFDB header names."""

    segments: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    layout: bool = False
    """Whether it describes the channels of a multi-segment record and holds no signal itself."""

    @property
    def parts(self) -> tuple[str, ...]:
        return self.segments or self.signals


def _parse(raw: bytes) -> _Record:
    lines = [line for line in raw.decode("utf-8", "replace").splitlines() if line.strip() and line.lstrip()[0] != "#"]
    if not lines:
        return _Record()
    words = [line.split() for line in lines]
    if "/" in words[0][0]:
        names = [word[0] for word in words[1:_MAX_PARTS] if word[0] != "~"]
        return _Record(segments=tuple(dict.fromkeys(f"{name}.hea" for name in names)))
    names = [word[0] for word in words[1:_MAX_PARTS]]
    signals = tuple(dict.fromkeys(name for name in names if name not in ("~", "-")))
    return _Record(signals=signals, layout=bool(names) and not signals)


def _record(path: Path, head: bytes) -> Placed:
    if len(head) >= HEAD_BYTES:
        head = _read(path, _HEADER_BYTES) or head
    record = _parse(head)
    if record.layout or path.stem.lower().endswith("_layout"):
        message = "the file describes the channels of a multi-segment WFDB record beside it and holds no signal itself."
        return Placed(Format.WFDB, (), Problem(Reason.COMPANION, message))
    if not record.parts:
        return Placed(Format.WFDB, (), Problem(Reason.NO_PIXELS, "the WFDB header names no signals."))
    parts = tuple(_beside(path, name) for name in record.parts)
    missing = parts.count(None)
    if missing:
        what = "segments" if record.segments else "signal files"
        message = (
            f"{missing} of the {len(parts)} {what} that the WFDB header names are not beside it; put them into the "
            "same folder."
        )
        return Placed(Format.WFDB, (), Problem(Reason.MISSING_FILE, message))
    return Placed(Format.WFDB, tuple(name for name in parts if name is not None))


def _signal_of_a_record(path: Path) -> Placed | None:
    """Recognise signals and annotations by the WFDB header of the same stem."""
    for suffix in (".hea", ".HEA"):
        raw = _read(path.with_suffix(suffix), _HEADER_BYTES)
        if raw is None:
            continue
        if sniff_open(io.BytesIO(raw[:HEAD_BYTES])) is not Format.WFDB:
            return None
        named = {name.casefold() for name in _parse(raw).signals}
        if path.name.casefold() in named:
            return Placed(Format.WFDB_SIGNAL)
        message = "the file belongs to the WFDB record beside it (beat marks or the like) and is not read on its own."
        return Placed(Format.UNKNOWN, (), Problem(Reason.COMPANION, message))
    return None


def _pair(path: Path, head: bytes) -> Placed | None:
    """Find the voxels of a header that holds none itself; None for a NIfTI in one file."""
    if not _is_pair_header(head):
        return None
    stem = _PAIR_HEADER.sub("", path.name)
    names = (f"{stem}.img", f"{stem}.img.gz")
    partner = next((name for candidate in names if (name := _beside(path, candidate)) is not None), None)
    if partner is None and (path.name.lower().endswith(_ONE_FILE) or len(head) > _LONGEST_HEADER):
        message = (
            "the volume's header says that its voxels lie in another file, and this one goes on behind the header."
        )
        return Placed(Format.NIFTI, (), Problem(Reason.CORRUPT, message))
    if partner is None:
        message = (
            "the file is the header of an Analyze or NIfTI pair, and its voxels (.img of the same name) are not beside "
            "it; put both into one folder."
        )
        return Placed(Format.NIFTI, (), Problem(Reason.MISSING_FILE, message))
    return Placed(Format.NIFTI, (partner,))


def _voxels(path: Path) -> Placed | None:
    """Recognise the voxels of a pair by the header of the same stem."""
    stem = _VOXELS.sub("", path.name)
    for suffix in (".hdr", ".hdr.gz", ".HDR"):
        head = _read(path.with_name(stem + suffix), HEAD_BYTES)
        if head is not None:
            return Placed(Format.VOLUME_DATA) if _is_pair_header(head) else None
    return None


def _metaimage(path: Path, fmt: Format) -> Placed:
    """Find the files of voxels that a MetaImage header names."""
    try:
        with path.open("rb") as file:
            names = read_metaimage_header(file).files
    except MedclipError as error:
        return Placed(fmt, (), error.problem())
    return voxels_beside(path, names, fmt)


def voxels_beside(path: Path, names: Sequence[str], fmt: Format = Format.METAIMAGE) -> Placed:
    """Look beside a MetaImage header for the files of voxels that it names: the problem says how many are missing."""
    beside = [None if name.casefold() == path.name.casefold() else _beside(path, name) for name in names]
    missing = beside.count(None)
    if missing:
        message = (
            f"{missing} of the {len(names)} files of voxels that the MetaImage header names are not beside it; put "
            "them into the same folder."
        )
        if len(names) == 1:
            message = (
                "the file of voxels that the MetaImage header names is not beside it; put it into the same folder."
            )
        return Placed(fmt, (), Problem(Reason.MISSING_FILE, message))
    return Placed(fmt, tuple(name for name in beside if name is not None))


def _is_of_metaimage(path: Path) -> bool:
    """Return whether a MetaImage header in the same folder names a file as its voxels: one of its stem, or any."""
    name = path.name.casefold()
    stem = re.sub(r"\.z?raw(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    if any(name in _voxel_names(path.with_name(stem + suffix)) for suffix in _META_HEADERS):
        return True
    try:
        return name in _voxel_names_of_folder(path.parent, path.parent.stat().st_mtime_ns)
    except OSError:
        return False


def _voxel_names(header: Path) -> frozenset[str]:
    try:
        if not header.is_file():
            return frozenset()
        with header.open("rb") as file:
            if not is_metaimage(file.read(HEAD_BYTES)):
                return frozenset()
            file.seek(0)
            return frozenset(name.casefold() for name in read_metaimage_header(file).files)
    except (OSError, MedclipError):
        return frozenset()


@lru_cache(maxsize=8)
def _voxel_names_of_folder(folder: Path, changed_ns: int) -> frozenset[str]:
    """Return the names of voxels in a folder; headers are looked at once, as long as nothing comes into it."""
    with os.scandir(folder) as entries:
        headers = [entry.name for entry in entries if entry.name.lower().endswith(_META_HEADERS[0])]
    return frozenset().union(*(_voxel_names(folder / name) for name in headers[:_MAX_PARTS]))


def _is_pair_header(head: bytes) -> bool:
    plain = gunzip_head(head) if head[:2] == b"\x1f\x8b" else head
    return is_nifti(plain) and plain[344:348] != b"n+1\0" and plain[4:8] != b"n+2\0"


def _xml(head: bytes) -> Placed | None:
    """Refuse the XML of makers and of kinds that no reader here knows."""
    text = head.decode("utf-16", "ignore").encode() if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head
    kind = _SIERRA.search(text)
    other = b"restingecgdata" in text and kind is not None and kind[1].lower() not in (b"sierraecg", b"philipsecg")
    if not other and not _OTHER_XML.search(text):
        return None
    message = "the file is an ECG in XML of a kind that is not read; HL7 aECG, GE MUSE and Philips Sierra are."
    return Placed(Format.XML_ECG, (), Problem(Reason.NOT_SUPPORTED_YET, message))


def _beside(path: Path, name: str) -> str | None:
    """Return the name of a file beside another as it is written on disk, whatever its case; None if there is none."""
    if Path(name).name != name:  # a header may not lead out of its folder
        return None
    if path.with_name(name).is_file():
        return name
    try:
        with os.scandir(path.parent) as entries:
            return next(
                (entry.name for entry in entries if entry.name.casefold() == name.casefold() and entry.is_file()), None
            )
    except OSError:
        return None


def _read(path: Path, size: int) -> bytes | None:
    """Read the beginning of a neighbour; None where there is none, or no ordinary file: a pipe would never end."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return None

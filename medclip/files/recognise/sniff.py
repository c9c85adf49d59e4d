"""Decide what a file is from its bytes, never from its name."""

from __future__ import annotations

import csv
import io
import re
import struct
import zlib
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from medclip.errors import MedclipError
from medclip.files.recognise.metaimage_header import is_metaimage, read_metaimage_header
from medclip.files.recognise.tiff_directories import is_slide

HEAD_BYTES = 4096
"""Bytes of the file's beginning that decide; enough for the DICOM preamble, a NIfTI header and an XML root element."""


class Format(StrEnum):
    """Formats that medclip tells apart. Whether one is read is said in `medclip.files.recognise.inspect`."""

    DICOM = "dicom"
    DICOMDIR = "dicomdir"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    SLIDE = "slide"
    GIF = "gif"
    BMP = "bmp"
    WEBP = "webp"
    JPEG2000 = "jpeg2000"
    NIFTI = "nifti"
    NRRD = "nrrd"
    METAIMAGE = "metaimage"
    """A volume."""
    METAIMAGE_2D = "metaimage_2d"
    """A MetaImage of one slice."""
    MINC = "minc"
    WFDB = "wfdb"
    """The text header of a record."""
    WFDB_SIGNAL = "wfdb_signal"
    """Signals of a record; only the header beside them can tell (`medclip.files.recognise.companions`)."""
    VOLUME_DATA = "volume_data"
    """Voxels (.img of an Analyze or NIfTI pair, .raw of a MetaImage); only the header beside them can tell."""
    EDF = "edf"
    SCP_ECG = "scp_ecg"
    XML_ECG = "xml_ecg"
    MATLAB = "matlab"
    HDF5 = "hdf5"
    MP4 = "mp4"
    AVI = "avi"
    ZIP = "zip"
    GZIP = "gzip"
    PDF = "pdf"
    HTML = "html"
    XML = "xml"
    JSON = "json"
    CSV = "csv"
    TEXT = "text"
    EMPTY = "empty"
    UNKNOWN = "unknown"


_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", Format.JPEG2000),
    (b"\xff\x4f\xff\x51", Format.JPEG2000),
    (b"NRRD000", Format.NRRD),
    (b"\x89HDF\r\n\x1a\n", Format.HDF5),
    (b"CDF\x01", Format.MINC),
    (b"CDF\x02", Format.MINC),
    (b"MATLAB 5.0 MAT-file", Format.MATLAB),
    (b"%PDF-", Format.PDF),
    (b"PK\x03\x04", Format.ZIP),
    (b"PK\x05\x06", Format.ZIP),
    (b"\xffBIOSEMI", Format.EDF),
)

# Value representations that open a data set in practice; two letters of these after a low tag are good evidence.
_VR = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
SLIDE_TEXTS = (b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]")
"""First lines of Hamamatsu's VMS and VMU, which name the images beside them."""
_XML_ECG = re.compile(
    rb"<\s*(?:\w+:)?(?:AnnotatedECG|RestingECG|restingecgdata|CardiologyXML|ECGReport)\b", re.IGNORECASE
)
# Fields are apart by spaces or tabs, as the wfdb package has it.
_WFDB = re.compile(
    rb"(?:#[^\n]*\n)*([\w./-]+)[ \t]+(\d+)(?:/\d+)?"
    rb"(?:[ \t]+[\d.]+(?:/[\d.]+)?(?:\([\d.-]+\))?(?:[ \t]+\d+)?[^\n]*)?[ \t]*\r?\n"
)
_WFDB_SIGNAL = re.compile(rb"^\S+[ \t]+(\d+)(?:x\d+)?(?::\d+)?(?:\+\d+)?(?:[ \t]|\r?$)", re.MULTILINE)
_WFDB_ALIGNED = re.compile(rb"[ \t]{2}|\t")
_WFDB_FORMATS = frozenset(b"8 16 24 32 61 80 160 212 310 311 508 516 524".split())


def sniff(path: Path) -> Format:
    """Name the format of a file from its bytes.

    Args:
        path: An ordinary, readable file.

    Returns:
        The format; `Format.UNKNOWN` if nothing fits.

    Raises:
        OSError: If the file cannot be opened or read.
    """
    with path.open("rb") as file:
        return sniff_open(file)


def sniff_open(file: BinaryIO) -> Format:
    """Name the format of an open binary file; moves its position."""
    head = file.read(HEAD_BYTES)
    if not head:
        return Format.EMPTY
    if head[128:132] == b"DICM":
        return Format.DICOMDIR if _is_dicomdir(head) else Format.DICOM
    for magic, fmt in _MAGIC:
        if head.startswith(magic):
            # MINC 2 is HDF5 with a root group of that name, which lies in the first pages.
            return Format.MINC if fmt is Format.HDF5 and b"minc-2.0" in head else fmt
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Format.SLIDE if is_slide(file) else Format.TIFF
    if is_metaimage(head):
        return _metaimage(file)
    return _by_structure(head) or _by_text(head) or Format.UNKNOWN


def _metaimage(file: BinaryIO) -> Format:
    """Distinguish an image of one slice from a volume; a damaged header is a volume's."""
    file.seek(0)
    try:
        return Format.METAIMAGE_2D if read_metaimage_header(file).is_image else Format.METAIMAGE
    except MedclipError:
        return Format.METAIMAGE


def _by_structure(head: bytes) -> Format | None:
    """Recognise formats that need more than their first bytes."""
    if head[:4] == b"RIFF":
        return {b"WEBP": Format.WEBP, b"AVI ": Format.AVI}.get(head[8:12])
    if head[4:8] == b"ftyp" or head[4:12] == b"moov\0\0\0l":
        return Format.MP4
    if (
        head[:2] == b"BM"
        and len(head) >= 26
        and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    ):
        return Format.BMP
    if head[:2] == b"\x1f\x8b":
        return Format.NIFTI if is_nifti(gunzip_head(head)) else Format.GZIP
    if is_nifti(head):
        return Format.NIFTI
    if head[16:22] == b"SCPECG":
        return Format.SCP_ECG
    if head[:8] == b"0       " and len(head) >= 256 and head[:256].isascii():
        return Format.EDF
    if _is_dicom_without_preamble(head):
        return Format.DICOM
    if _is_matlab4(head):
        return Format.MATLAB
    return None


def _by_text(head: bytes) -> Format | None:
    """Distinguish the text formats."""
    text = head.lstrip(b"\xef\xbb\xbf")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, as some ECG carts write their XML
        text = head.decode("utf-16", errors="ignore").encode()
    elif not _is_text(text):
        return None
    if text.startswith(SLIDE_TEXTS):
        return Format.SLIDE
    start = text.lstrip()[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return Format.HTML
    if start.startswith(b"<"):
        return Format.XML_ECG if _XML_ECG.search(text) else Format.XML
    if start[:1] in (b"{", b"[") and (b'"' in text or b"]" in text):
        return Format.JSON
    if _is_wfdb(text):
        return Format.WFDB
    return Format.CSV if _is_table(text) else Format.TEXT


def _is_wfdb(text: bytes) -> bool:
    """Recognise the header of a WFDB record."""
    match = _WFDB.match(text)
    if match is None:
        return False
    rest = text[match.end() :]
    if not _WFDB_ALIGNED.search(match[0] + rest.partition(b"\n")[0].rstrip()):
        return _WFDB_SIGNAL.match(rest) is not None or rest.lstrip()[:1] in (b"", b"#")
    # A table of names and numbers in columns looks like a header too: only one with as many lines as its first
    # line states, in formats that exist, is one.
    lines = [line for line in rest.splitlines() if line.strip() and not line.startswith(b"#")]
    segments = re.search(rb"/(\d+)$", match[1])
    stated = int(segments[1] if segments else match[2])
    complete = len(text) < HEAD_BYTES - 3
    if not lines or not (len(lines) == stated if complete else len(lines) <= stated):
        return False
    signals = [_WFDB_SIGNAL.match(line) for line in (lines if complete else lines[:-1])]
    return all(signal is not None and (segments or signal[1] in _WFDB_FORMATS) for signal in signals)


def _is_text(head: bytes) -> bool:
    """Return whether the bytes read as text: no control bytes beyond white space, few odd ones."""
    if b"\0" in head:
        return False
    controls = sum(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in head)
    if controls:
        return False
    try:
        head[: len(head) - 4 if len(head) == HEAD_BYTES else None].decode("utf-8")
        return True
    except UnicodeDecodeError:
        # Latin-1 text has a few high bytes; compressed or sample data has many.
        return sum(byte > 126 for byte in head) < 0.1 * len(head)


def _is_table(text: bytes) -> bool:
    """Return whether the first rows have the same number of cells, and at least two."""
    decoded = text.decode("utf-8", "replace")
    if len(text) >= HEAD_BYTES - 3:
        decoded = decoded.rpartition("\n")[0]  # the last line is cut off
    for mark in ",\t;":
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(decoded), delimiter=mark) if row][:6]
        except csv.Error:
            continue
        if len(widths) >= 2 and widths[0] >= 2 and len(set(widths)) == 1:
            return True
    return False


def _is_dicomdir(head: bytes) -> bool:
    return b"1.2.840.10008.1.3.10" in head[132:1024]


def _is_dicom_without_preamble(head: bytes) -> bool:
    """Recognise a data set that starts without the 128-byte preamble: two plausible elements in a row."""
    for endian in "<>":
        for explicit in (True, False):
            first = _element(head, 0, endian, explicit=explicit)
            if first is None or first[0] not in (0x0002, 0x0008) or first[1] > 0x3010:
                continue
            second = _element(head, first[2], endian, explicit=explicit)
            # Group lengths and a single element are too little evidence on their own.
            if second is not None and (first[0], first[1]) < (second[0], second[1]) and second[0] <= 0x0028:
                return True
    return False


def _element(head: bytes, at: int, endian: str, *, explicit: bool) -> tuple[int, int, int] | None:
    """Read (group, element, offset of the next element), or None if it is not a plausible one."""
    if at + 8 > len(head):
        return None
    group, element = struct.unpack_from(f"{endian}HH", head, at)
    if not explicit:
        (length,) = struct.unpack_from(f"{endian}I", head, at + 4)
        return (group, element, at + 8 + length) if length <= 1024 else None
    vr = head[at + 4 : at + 6]
    if vr not in _VR:
        return None
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"OL", b"UC", b"UR"):
        if at + 12 > len(head):
            return None
        (length,) = struct.unpack_from(f"{endian}I", head, at + 8)
        return (group, element, at + 12 + length) if length <= 1024 else None
    (length,) = struct.unpack_from(f"{endian}H", head, at + 6)
    return (group, element, at + 8 + length) if length <= 1024 else None


def is_nifti(head: bytes) -> bool:
    """Recognise NIfTI-1, NIfTI-2 and the ANALYZE header they grew from."""
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return True
    if len(head) < 348 or head[:4] not in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return False
    if head[38:39] == b"r":  # `regular`, which many writers leave empty
        return True
    order = "<" if head[0] else ">"
    axes, *lengths = struct.unpack_from(f"{order}8h", head, 40)
    kind, bits = struct.unpack_from(f"{order}2h", head, 70)
    return 1 <= axes <= 7 and min(lengths[:axes]) > 0 and kind > 0 and bits in (1, 8, 16, 24, 32, 64, 128)


def gunzip_head(head: bytes) -> bytes:
    """Return the first kilobyte of what a gzip file holds; nothing where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error:
        return b""


def _is_matlab4(head: bytes) -> bool:
    """Recognise a MATLAB 4 matrix, the container of WFDB .mat signals: five integers, then the variable's name."""
    if len(head) < 21:
        return False
    kind, rows, columns, imaginary, length = struct.unpack_from("<5I", head)
    name = head[20 : 20 + length]
    return (
        kind <= 52
        and kind % 10 <= 2
        and imaginary <= 1
        and 2 <= length <= 32
        and rows > 0
        and columns > 0
        and name[-1:] == b"\0"
        and name[:-1].isalnum()
    )

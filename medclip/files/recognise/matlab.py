"""Just enough of MATLAB files to tell the ECGs among them: a struct named ECG (CPSC 2018), or bare WFDB signals."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from medclip.errors import Problem, Reason

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STRUCT_CLASS = 2


def matlab_problem(path: Path, head: bytes) -> Problem | None:
    """Return why a MATLAB file without a WFDB header beside it is not read; None for a struct named ECG.

    Args:
        path: The file; its suffixes matter to no one.
        head: Its first bytes.
    """
    if head.startswith(b"MATLAB 5.0"):
        if first_variable(head) == (_STRUCT_CLASS, "ECG"):
            return None
        message = "The MATLAB file holds no ECG struct; write what it holds as NIfTI, PNG or WFDB."
        return Problem(Reason.NOT_SUPPORTED_YET, message)
    if head[20:24] == b"val\0":
        message = (
            "The file looks like the signals of a WFDB record, and the header (.hea) that states leads and gain is not "
            "beside it; put both into one folder."
        )
        return Problem(Reason.MISSING_FILE, message)
    return Problem(Reason.NOT_SUPPORTED_YET, "The MATLAB file holds a bare matrix without units; write it as WFDB.")


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

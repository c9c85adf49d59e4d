"""Read the size of a WebP picture from its header."""

from __future__ import annotations

from typing import BinaryIO

from medclip.errors import MedclipError, Reason


def webp_size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height as a WebP file's first chunk states them; the file's position is back at its start.

    Args:
        file: An open file that starts with RIFF....WEBP.

    Raises:
        MedclipError: CORRUPT if the first chunk is none of VP8, VP8L and VP8X.
    """
    file.seek(0)
    head = file.read(30)
    file.seek(0)
    chunk, body = head[12:16], head[20:]
    if len(head) == 30:
        if chunk == b"VP8X":
            return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        if chunk == b"VP8L" and body[0] == 0x2F:
            packed = int.from_bytes(body[1:5], "little")
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
            return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise MedclipError(Reason.CORRUPT, "The WEBP picture is damaged and cannot be decoded.")

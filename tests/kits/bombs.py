"""Small files that unpack to much, or claim to: made by code, harmless where they are refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np

MANY_BYTES = 400 * 2**20
"""What the bombs unpack to."""
CLAIMED_PX = 40_000


class Peak:
    """The most memory that the process held beyond what it had at the start."""

    num_bytes = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the most memory that is resident within, also of libraries in C (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, peak = _status("VmHWM"), Peak()
    try:
        yield peak
    finally:
        peak.num_bytes = _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def deflated(num_bytes: int = MANY_BYTES) -> bytes:
    """Return zeros, deflated: a thousandth of them."""
    packer, piece = zlib.compressobj(9), bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(num_bytes // len(piece))) + packer.flush()


def packed() -> dict[str, tuple[int, bytes]]:
    """Return TIFF's number of a compression and zeros in it, by name; none of these streams states a size."""
    zeros = bytes(MANY_BYTES)
    return {
        "deflate": (8, deflated()),
        "deflate of Adobe": (32946, deflated()),
        "LZMA": (34925, imagecodecs.lzma_encode(zeros, level=1)),
        "zstd": (50000, imagecodecs.zstd_encode(zeros)),
        "PackBits": (32773, b"\x81\0" * (MANY_BYTES // 128)),
        "LZW": (5, imagecodecs.lzw_encode(zeros[: 2**26])),
    }


def claiming() -> dict[str, tuple[int, bytes]]:
    """Return TIFF's number of a compression and a stream that claims `CLAIMED_PX` squared, by the codec's name."""
    small = np.zeros((64, 64, 3), np.uint8)
    jpeg = imagecodecs.jpeg8_encode(small)
    frame = jpeg.index(b"\xff\xc0")
    wavelets = bytearray(imagecodecs.jpeg2k_encode(small, level=0, codecformat="j2k"))
    siz = wavelets.index(b"\xff\x51")
    tiles = bytearray(wavelets)
    wavelets[siz + 6 : siz + 14] = tiles[siz + 6 : siz + 14] = struct.pack(">II", CLAIMED_PX, CLAIMED_PX)
    tiles[siz + 22 : siz + 30] = struct.pack(">II", CLAIMED_PX, CLAIMED_PX)
    png = bytearray(imagecodecs.png_encode(small))
    png[16:24] = struct.pack(">II", CLAIMED_PX, CLAIMED_PX)
    lerc = bytearray(imagecodecs.lerc_encode(small))
    lerc[14:22] = struct.pack("<ii", CLAIMED_PX, CLAIMED_PX)
    webp = bytearray(imagecodecs.webp_encode(small, lossless=True))
    webp[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)  # the most that it can state: 16,384
    jxl_head = 0 | 3 << 1 | (CLAIMED_PX - 1) << 3 | 1 << 33
    return {
        "JPEG": (7, jpeg[: frame + 5] + struct.pack(">HH", CLAIMED_PX, CLAIMED_PX) + jpeg[frame + 9 :]),
        "JPEG 2000": (33005, bytes(wavelets)),
        "JPEG 2000 of one tile": (33003, bytes(tiles)),
        "PNG": (34933, bytes(png)),
        "WebP": (50001, bytes(webp)),
        "JPEG XL": (50002, b"\xff\x0a" + jxl_head.to_bytes(8, "little") + bytes(64)),
        "JPEG XR": (22610, _jpeg_xr(small)),
        "LERC": (34887, bytes(lerc)),
    }


def _jpeg_xr(pixels: np.ndarray) -> bytes:
    stream = bytearray(imagecodecs.jpegxr_encode(pixels))
    start = int.from_bytes(stream[4:8], "little")
    for i in range(int.from_bytes(stream[start : start + 2], "little")):
        entry = start + 2 + 12 * i
        if stream[entry : entry + 2] in (b"\x80\xbc", b"\x81\xbc"):
            stream[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, CLAIMED_PX)
    return bytes(stream)


def write_tiff(path: Path, compression: int, data: bytes, *, side: int, samples: int, bits: int = 8) -> Path:
    """Write a TIFF of which one tile of 256 x 256 pixels holds `data`, and all others nothing.

    Args:
        path: The file.
        compression: The number of the compression.
        data: The tile.
        side: Of the image, in pixels.
        samples: Channels.
        bits: Of a sample.
    """
    tiles = (-(-side // 256)) ** 2
    tags = {256: side, 257: side, 259: compression, 262: 2 if samples == 3 else 1, 277: samples, 322: 256, 323: 256}
    arrays = {258: struct.pack(f"<{samples}H", *[bits] * samples)}
    head = 8 + 2 + 12 * (len(tags) + 3) + 4
    at_bits, at_offsets = head, head + len(arrays[258])
    at_counts = at_offsets + 4 * tiles
    at_data = at_counts + 4 * tiles
    offsets = struct.pack(f"<{tiles}I", at_data, *[0] * (tiles - 1))
    counts = struct.pack(f"<{tiles}I", len(data), *[0] * (tiles - 1))
    entries = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in tags.items()]
    entries.append((258, 3, samples, struct.pack("<HH", bits, 0) if samples == 1 else struct.pack("<I", at_bits)))
    for tag, place, block in ((324, at_offsets, offsets), (325, at_counts, counts)):
        entries.append((tag, 4, tiles, block if tiles == 1 else struct.pack("<I", place)))
    directory = b"".join(struct.pack("<HHI", tag, kind, num) + value for tag, kind, num, value in sorted(entries))
    start = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4)
    path.write_bytes(start + arrays[258] + offsets + counts + data)
    return path

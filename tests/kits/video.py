"""Small videos made by code."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scene(count: int = 12, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Give grey frames [F, H, W, 3]: a static gradient and a bright block that walks to the right."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:] = (40 + np.arange(width) // 4)[None, None, :, None]
    for number in range(count):
        frames[number, 24:48, 4 + 8 * number : 20 + 8 * number] = 220
    return frames


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    codec: str = "mpeg4",
    rate: int = 25,
    times: list[int] | None = None,
    **options: Any,
) -> Path:
    """Write frames as the container that the suffix names; `times` in units of 1 / rate."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = options.get("pix_fmt", "yuv420p")
        stream.bit_rate = 4_000_000
        if "aspect" in options:
            stream.codec_context.sample_aspect_ratio = Fraction(options["aspect"])
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write an MP4 that holds a second of silence and no images."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16_000)
        stream.layout = "mono"
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, quarter: int) -> Path:
    """Write a rotation by 90 degrees clockwise, `quarter` times, into the matrix of an MP4's track header."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    one = 0x10000
    matrix = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[quarter]
    struct.pack_into(">iiiiiiiii", raw, at, matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 0x40000000)
    path.write_bytes(raw)
    return path

"""Read MP4, QuickTime and AVI video: images only, with their times."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.header.elements import quiet
from medclip.dicom.pixels.decoded import check_size
from medclip.errors import MedclipError, Reason, opening
from medclip.files.recognise.sniff import Format, sniff
from medclip.sample import Step
from medclip.settings import Settings

# Choose frames of a loop.

MAX_VIEWS = 16
"""Frames of a loop that models see."""
DARK = 10
"""A frame whose brightest pixels (0.5 %) stay below this shows nothing: fades, lead-ins that hold a label only."""


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of `count` indices, evenly spaced: the middles of equal parts.

    Example:
        >>> spread(5, 16), spread(100, 4)
        ([0, 1, 2, 3, 4], [12, 37, 62, 87])
    """
    if count <= most:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * most) for part in range(most)]


def brightest(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the maximum of the channels of H x W x C pixels, as H x W; a maximum of a short last axis is ten times
    slower.
    """
    level = pixels[..., 0]
    for channel in range(1, pixels.shape[-1]):
        level = np.maximum(level, pixels[..., channel])
    return level


def shows_something(frame: NDArray[np.uint8]) -> bool:
    """Return whether a frame H x W x C is neither black nor constant."""
    stride = max(1, max(frame.shape[:2]) // 128)
    grid = brightest(frame[::stride, ::stride])
    low, high = np.percentile(grid, (0.5, 99.5), method="nearest")
    return bool(high > DARK and high > low)


def choose(frames: NDArray[Any], most: int = MAX_VIEWS) -> list[int]:
    """Return evenly spaced frames of those that show something.

    Args:
        frames: [F, H, W, C] uint8.
        most: Largest number of frames.

    Returns:
        Indices in order; empty if no frame shows anything.
    """
    numbers = [number for number, frame in enumerate(frames) if shows_something(frame)]
    return [numbers[index] for index in spread(len(numbers), most)]


_DEMUXERS: Mapping[Format, str] = {Format.MP4: "mp4", Format.AVI: "avi"}
_UNEVEN = 0.1
"""Frames are unevenly spaced if a distance differs from the median by more than this part."""


class VideoFacts(NamedTuple):
    """What is known of a video before it is decoded."""

    times: tuple[int, ...]
    """Time stamp of every frame in order of showing, in units of the stream."""
    unit_s: float
    """Seconds per unit."""
    height: int
    width: int
    aspect: float
    """Width of a pixel divided by its height."""
    codec: str

    @property
    def nbytes(self) -> int:
        """Bytes that all frames take when decoded to RGB."""
        return len(self.times) * self.height * self.width * 3


class Video(NamedTuple):
    """Decoded frames of a video."""

    frames: NDArray[np.uint8]
    """[F, H, W, 3] RGB, turned upright, pixels square."""
    times_ms: tuple[float, ...]
    """Time of each frame from the first of the file."""
    numbers: tuple[int, ...]
    """Which frame of the file each is."""
    total: int
    """Frames in the file."""
    frame_time_ms: float | None
    """Median distance between frames of the file; None for a single frame."""
    steps: tuple[Step, ...]
    decoder: str


def probe_video(path: Path, settings: Settings, *, fmt: Format | None = None) -> VideoFacts:
    """Count frames and read their times without decoding any."""
    with _opened(path, settings, fmt) as (container, stream):
        return _facts(container, stream, settings)


def read_video(path: Path, settings: Settings, *, max_frames: int | None = None, fmt: Format | None = None) -> Video:
    """Read the frames of a video's first image stream; sound is left out.

    Args:
        path: The file.
        settings: Limits: `max_pixels` for a frame, `max_volume_bytes` for all frames that are returned. Both are
            checked before anything is decoded.
        max_frames: Largest number of frames to decode, evenly spaced; None for all.
        fmt: MP4 or AVI where it is known; else it is sniffed. No other demuxer is tried.

    Returns:
        RGB frames with times.

    Raises:
        MedclipError: MISSING_CODEC without PyAV or a decoder, TRUNCATED, CORRUPT, TOO_LARGE, NO_PIXELS (sound only).
    """
    with _opened(path, settings, fmt) as (container, stream):
        facts = _facts(container, stream, settings)
        total = len(facts.times)
        numbers = spread(total, max_frames) if max_frames is not None else list(range(total))
        _check_bytes(facts, len(numbers), settings)
        container.seek(min(facts.times), stream=stream, backward=True)
        if len(numbers) == total:
            frames, steps = _all(container, stream, facts)
        else:
            frames, steps = _some(container, stream, facts, numbers)
    numbers = numbers[: len(frames)]
    distances = np.diff(np.asarray(facts.times, np.float64)) * facts.unit_s * 1000
    frame_time = float(np.median(distances)) if distances.size else None
    rate = f", {1000 / frame_time:.4g} Hz" if frame_time else ""
    if frame_time and (np.abs(distances - frame_time) > _UNEVEN * frame_time + 1).any():
        rate += " by the median; frames are unevenly spaced"
    chosen = f"{len(numbers)} of {total}" if len(numbers) < total else f"{total}"
    first = facts.times[0]
    return Video(
        frames,
        tuple((facts.times[number] - first) * facts.unit_s * 1000 for number in numbers),
        tuple(numbers),
        total,
        frame_time,
        (Step("decode", f"{chosen} frames{rate}"), *steps),
        f"PyAV {facts.codec}",
    )


def _check_bytes(facts: VideoFacts, count: int, settings: Settings) -> None:
    needed = count * facts.height * facts.width * 3
    if needed > settings.max_volume_bytes:
        raise MedclipError(
            Reason.TOO_LARGE,
            f"the video has {count} frames of {facts.width} x {facts.height} pixels: {needed:,} bytes when decoded, "
            f"more than the limit of {settings.max_volume_bytes:,}.",
            hint="A larger max_volume_bytes below [limits] in medclip.toml, or of medclip.Settings, raises the limit.",
        )


@contextmanager
def _opened(path: Path, settings: Settings, fmt: Format | None) -> Iterator[tuple[Any, Any]]:
    """Open a video's container and its first image stream; every way in which that fails becomes one reason."""
    try:
        import av
    except ImportError:
        raise MedclipError(
            Reason.MISSING_CODEC,
            "no installed package reads video.",
            hint="Run: pip install 'medclip-imaging[video]'",
        ) from None
    try:
        with opening():
            fmt = fmt or sniff(path)
        if fmt not in _DEMUXERS:
            raise MedclipError(Reason.NOT_SUPPORTED_YET, f"{fmt} is not read as a video; MP4 and AVI are.")
        with opening(), path.open("rb") as file, quiet("libav"):
            if _ends_early(file, fmt):
                raise MedclipError(Reason.TRUNCATED, "the video ends before its images do.")
            # An open file, not a path: FFmpeg then has no way to other files or to a network.
            with av.open(file, format=_DEMUXERS[fmt]) as container:
                if not container.streams.video:
                    raise MedclipError(Reason.NO_PIXELS, "the video file holds no images.")
                stream: Any = container.streams.video[0]
                if stream.codec_context is None:
                    raise MedclipError(Reason.MISSING_CODEC, "FFmpeg has no decoder for the video's codec.")
                stream.codec_context.thread_count = 1  # readers are processes
                stream.codec_context.options = {"max_pixels": str(settings.max_pixels), "err_detect": "explode"}
                yield container, stream
    except MedclipError:
        raise
    except MemoryError:
        raise MedclipError(Reason.TOO_LARGE, "the video does not fit into memory.") from None
    except Exception as error:
        if type(error).__name__ == "DecoderNotFoundError":
            raise MedclipError(Reason.MISSING_CODEC, "FFmpeg has no decoder for the video's codec.") from None
        raise MedclipError(Reason.CORRUPT, "the video is damaged and cannot be decoded.") from None


def _facts(container: Any, stream: Any, settings: Settings) -> VideoFacts:
    context = stream.codec_context
    height, width = int(context.height), int(context.width)
    check_size(width, height, settings)
    times: list[int] = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:  # an edit list may leave images out
            time = packet.pts if packet.pts is not None else packet.dts
            times.append(int(time) if time is not None else len(times))
    if not times:
        raise MedclipError(Reason.TRUNCATED, "the video holds no image.")
    ratio = stream.sample_aspect_ratio
    aspect = float(ratio) if ratio else 1.0
    if not 0.1 < aspect < 10:
        aspect = 1.0
    shown_width = round(width * aspect)
    check_size(shown_width, height, settings)
    return VideoFacts(tuple(sorted(times)), float(stream.time_base), height, shown_width, aspect, str(context.name))


def _all(container: Any, stream: Any, facts: VideoFacts) -> tuple[NDArray[np.uint8], tuple[Step, ...]]:
    frames: NDArray[np.uint8] | None = None
    count, turns = 0, 0
    for frame in container.decode(stream):
        if frames is None:
            turns = _quarter_turns(frame)
            frames = np.empty((len(facts.times), *_turned(facts, turns), 3), np.uint8)
        if count == len(frames):
            break
        frames[count] = _rgb(frame, facts, turns)
        count += 1
    if frames is None or not count:
        raise MedclipError(Reason.TRUNCATED, "the video holds no image.")
    steps = _steps(facts, turns)
    if count < len(frames):  # half-images (fields) are listed one by one; a cut file was refused before
        steps = (Step("images", f"{count} of {len(frames)} listed ones are shown"), *steps)
    return frames[:count], steps


def _some(
    container: Any, stream: Any, facts: VideoFacts, numbers: Sequence[int]
) -> tuple[NDArray[np.uint8], tuple[Step, ...]]:
    """Decode single frames, each from the key frame before it."""
    frames: list[NDArray[np.uint8]] = []
    turns = 0
    for number in numbers:
        wanted = facts.times[number]
        container.seek(wanted, stream=stream, backward=True)
        frame = next((one for one in container.decode(stream) if one.pts is None or one.pts >= wanted), None)
        if frame is None:
            raise MedclipError(Reason.TRUNCATED, "the video has fewer images than its index lists.")
        turns = _quarter_turns(frame) if not frames else turns
        frames.append(_rgb(frame, facts, turns))
    return np.stack(frames), _steps(facts, turns)


def _rgb(frame: Any, facts: VideoFacts, turns: int) -> NDArray[np.uint8]:
    if frame.is_corrupt:
        raise MedclipError(Reason.CORRUPT, "the video is damaged and cannot be decoded.")
    if frame.height != facts.height or abs(frame.width * facts.aspect - facts.width) > facts.aspect:
        raise MedclipError(Reason.CORRUPT, "the video changes its image size on the way.")
    if frame.width != facts.width:
        frame = frame.reformat(width=facts.width, height=facts.height, format="rgb24")
    pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, turns) if turns else pixels


def _quarter_turns(frame: Any) -> int:
    """Return the counter-clockwise quarter turns that the container asks for; slants are ignored."""
    return round(int(getattr(frame, "rotation", 0) or 0) / 90) % 4


def _turned(facts: VideoFacts, turns: int) -> tuple[int, int]:
    return (facts.width, facts.height) if turns % 2 else (facts.height, facts.width)


def _steps(facts: VideoFacts, turns: int) -> tuple[Step, ...]:
    steps: tuple[Step, ...] = ()
    if facts.aspect != 1:
        steps += (Step("square pixels", f"pixels are {facts.aspect:.4g} times as wide as high; width resampled"),)
    if turns:
        steps += (Step("orientation", f"turned by {turns * 90} degrees counter-clockwise"),)
    return steps


def _ends_early(file: BinaryIO, fmt: Format) -> bool:
    """Return whether the outermost boxes (MP4) or the first chunk (AVI) reach beyond the end of the file."""
    size = file.seek(0, 2)
    at, early = 0, False
    file.seek(0)
    if fmt is Format.AVI:
        head = file.read(8)
        early = len(head) < 8 or 8 + struct.unpack_from("<I", head, 4)[0] > size + 1
    else:
        while at < size and not early:
            file.seek(at)
            head = file.read(16)
            length = struct.unpack_from(">I", head)[0] if len(head) >= 8 else 0
            if length == 1 and len(head) == 16:
                length = struct.unpack_from(">Q", head, 8)[0]
            if length == 0:  # to the end of the file
                break
            early = length < 8 or at + length > size
            at += length
    file.seek(0)
    return early

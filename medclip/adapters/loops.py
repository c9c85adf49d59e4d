"""Base of the adapters that read images and loops alike: frames are decoded, one crop is planned, all get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import ImageAdapter, Source, luma, value_range
from medclip.adapters.depth import to_range
from medclip.dicom.header.read import DicomHeader, modality_code
from medclip.dicom.pixels.decoded import check_not_constant, check_not_small
from medclip.dicom.pixels.render import read_dicom, read_frames
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.geometry import Box
from medclip.imaging.intensity import scale_to_uint8
from medclip.imaging.raster import read_raster
from medclip.imaging.video import DARK, MAX_VIEWS, choose, probe_video, read_video, spread
from medclip.sample import Kind, Sample, Step, View
from medclip.settings import Settings

_CROP = "crop "
"""What the names of steps begin with that cut something off."""
VIDEOS = frozenset({Format.MP4, Format.AVI})
PHOTO_CODES = frozenset({"", "OT", "SC", "XC"})
"""DICOM modality codes of objects that may hold any image or photograph."""


class Loop(NamedTuple):
    """Frames of one object in order."""

    frames: NDArray[np.uint8]
    """[F, H, W, C], C = 1 or 3."""
    numbers: tuple[int, ...]
    """Which frame of the file each is, from 0."""
    total: int
    frame_time_ms: float | None
    spacing_mm: tuple[float, float] | None
    steps: tuple[Step, ...]
    decoder: str
    headers: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is done to every frame alike."""

    box: Box | None = None
    channels: int | None = None
    """1: colour becomes luma; 3: grey is repeated; None: as stored."""
    spacing_mm: tuple[float, float] | None = None
    steps: tuple[Step, ...] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)

    def under(self, settings: Settings) -> Plan:
        """Return the plan without its crop, where the policy leaves images whole."""
        if self.box is None or settings.policy.crop == "modality":
            return self
        steps = tuple(step for step in self.steps if not step.name.startswith(_CROP))
        headers = {name: None if name == "crop_from" else value for name, value in self.headers.items()}
        return replace(self, box=None, steps=steps, headers=headers)


def read_loop(source: Source, settings: Settings) -> Loop:
    """Decode the frames of a multi-frame DICOM object or a video.

    Args:
        source: One file of kind cine.
        settings: Limits and policy; where all frames would take more than `max_volume_bytes`, 16 evenly spaced ones are
            decoded.
    """
    path, facts = source.path, source.first
    if facts.format is Format.DICOM:
        header = facts.header or DicomHeader()
        wide = max(header.bits_allocated // 8, 1 if header.bits_stored <= 8 else 4)
        samples = 3 if header.photometric == "PALETTE COLOR" else header.samples_per_pixel
        total = header.frames
        fits = total * header.rows * header.columns * samples * wide <= settings.max_volume_bytes
        numbers = list(range(total)) if fits else spread(total, MAX_VIEWS)
        read = read_frames(path, settings, header=header, frames=None if fits else numbers)
        pixels = _to_uint8(read.pixels)
        return Loop(
            pixels,
            tuple(numbers),
            total,
            header.frame_time_ms,
            read.spacing_mm or header.spacing_mm,
            read.steps,
            read.decoder,
            read.headers,
        )
    fits = probe_video(path, settings, fmt=facts.format).nbytes <= settings.max_volume_bytes
    video = read_video(path, settings, max_frames=None if fits else MAX_VIEWS, fmt=facts.format)
    return Loop(video.frames, video.numbers, video.total, video.frame_time_ms, None, video.steps, video.decoder, {})


def _to_uint8(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Round frames to 8 bits one by one, which needs no second copy of all."""
    if frames.dtype == np.uint8:
        return frames
    out = np.empty(frames.shape, np.uint8)
    for number, frame in enumerate(frames):
        out[number] = scale_to_uint8(frame, 0, 1)
    return out


def apply(plan: Plan, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop frames [F, H, W, C] and turn them grey as planned."""
    if plan.box is not None:
        frames = frames[:, plan.box.top : plan.box.bottom, plan.box.left : plan.box.right]
    if plan.channels in (None, frames.shape[3]):
        return frames
    out = np.empty((*frames.shape[:3], plan.channels), np.uint8)
    for number, frame in enumerate(frames):
        out[number] = _with_channels(frame, plan)  # a grey frame spreads over three channels by itself
    return out


def _with_channels(pixels: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Return H x W x C pixels the channels that a plan states."""
    if plan.channels == 1 and pixels.shape[2] == 3:
        return luma(pixels)
    return np.repeat(pixels, 3, axis=2) if plan.channels == 3 and pixels.shape[2] == 1 else pixels


class LoopAdapter(ImageAdapter):
    """One image to one view, one loop to up to 16 views. A subclass sets the constants and `plan`."""

    kinds = frozenset({Kind.IMAGE, Kind.CINE})
    grey = False
    percentiles = (0.0, 100.0)
    """For images deeper than 8 bits outside DICOM."""
    frame_word = "frames"

    def parameters_of(self, kind: Kind) -> Mapping[str, Any]:
        """Constants that shape what it makes of a kind."""
        views = {"views": MAX_VIEWS, "dark_frame": DARK} if kind is Kind.CINE else {}
        return {**super().parameters_of(kind), **views}

    def accepts(self, source: Source) -> bool:
        """Return whether it reads a unit of this kind, formats and headers."""
        if source.kind is not Kind.CINE or len(source.paths) != 1:
            return super().accepts(source)
        facts = source.first
        if facts.format is Format.DICOM:
            return facts.header is not None and modality_code(facts.header) in self.dicom_codes
        return facts.format in VIDEOS

    def plan(self, frames: NDArray[np.uint8], facts: FileFacts, spacing_mm: tuple[float, float] | None) -> Plan:
        """Decide crop and colour.

        Args:
            frames: [F, H, W, C] uint8: the image, or the frames that become views.
            facts: Facts of the file.
            spacing_mm: Spacing of the decoded pixels, in mm.
        """
        raise NotImplementedError

    def read_unit(self, source: Source, settings: Settings) -> Sample:
        """Read an image or a loop."""
        return self._loop(source, settings) if source.kind is Kind.CINE else self._image(source, settings)

    def _image(self, source: Source, settings: Settings) -> Sample:
        path, facts = source.path, source.first
        if facts.format is Format.DICOM:
            decoded = read_dicom(path, settings, header=facts.header)
        else:
            decoded = read_raster(path, facts.format, settings)
        check_not_small(decoded.pixels)
        check_not_constant(decoded.pixels)
        pixels, steps = to_range(decoded, facts, self.percentiles)
        limits = value_range(pixels)
        header = facts.header or DicomHeader()
        spacing_mm = decoded.spacing_mm or header.spacing_mm
        plan = self.plan(scale_to_uint8(pixels, *limits)[None], facts, spacing_mm).under(settings)
        height, width = pixels.shape[:2]
        if plan.box is not None:
            pixels = pixels[plan.box.top : plan.box.bottom, plan.box.left : plan.box.right]
        view = View(
            _with_channels(pixels, plan),
            limits,
            spacing_mm=plan.spacing_mm,
            burned_in=header.burned_in,
            part=plan.box,
            part_of=(height, width),
        )
        steps = (*decoded.steps, *steps, *plan.steps)
        provenance = self.provenance(source, steps, decoded.decoder, settings)
        return Sample(self.modality, (view,), provenance, {**decoded.headers, **plan.headers})

    def _loop(self, source: Source, settings: Settings) -> Sample:
        loop = read_loop(source, settings)
        check_not_small(loop.frames[0])
        numbers = choose(loop.frames)
        if not numbers:
            raise MedclipError(Reason.CONSTANT_IMAGE, "no frame of the loop shows anything.")
        header = source.first.header or DicomHeader()
        plan = self.plan(loop.frames[numbers], source.first, loop.spacing_mm).under(settings)
        frames = apply(plan, loop.frames)
        views = tuple(
            View(frames[number], (0.0, 255.0), spacing_mm=plan.spacing_mm, burned_in=header.burned_in)
            for number in numbers
        )
        complete = len(loop.numbers) == loop.total
        steps = (*loop.steps, *plan.steps, *_about(loop, numbers, self.frame_word))
        headers = {
            **loop.headers,
            "frames": loop.total,
            "frame_time_ms": loop.frame_time_ms,
            "frames_are": self.frame_word,
            **plan.headers,
        }
        provenance = self.provenance(source, steps, loop.decoder, settings)
        return Sample(self.modality, views, provenance, headers, Kind.CINE, frames=frames if complete else None)


def _about(loop: Loop, chosen: list[int], word: str) -> tuple[Step, ...]:
    """Return which frames became views, and why others did not."""
    steps: tuple[Step, ...] = ()
    if len(loop.numbers) < loop.total:
        steps += (Step("frames", f"all {loop.total} {word} exceed the memory limit; {len(loop.numbers)} were decoded"),)
    numbers = ", ".join(str(loop.numbers[index]) for index in chosen)
    return (
        *steps,
        Step("views", f"{len(chosen)} of {loop.total} {word}, evenly spaced, empty ones left out: {numbers}"),
    )

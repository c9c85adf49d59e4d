"""A unit's pixels as they are stored, stretched from smallest to largest: what a naive converter would show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import RASTERS, Source
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.sniff import Format
from medclip.sample import Kind
from medclip.settings import Settings


def raw_image(source: Source, settings: Settings) -> NDArray[np.uint8]:
    """Show what is stored, without window, polarity, padding or crop.

    Args:
        source: The unit; of several files, frames or slices the middle one is shown.
        settings: Limits.

    Returns:
        uint8 [H, W, C], C = 1 or 3.

    Raises:
        MedclipError: Why it cannot be decoded.
    """
    if source.kind is Kind.SIGNAL:
        from medclip.adapters.ecg import EcgAdapter, raw_signal
        from medclip.imaging.ecg.sheet.draw_sheet import render

        return render(raw_signal(source, settings, seconds=EcgAdapter().options.seconds))[0]  # the leads a model has
    if source.kind is Kind.SLIDE:
        from medclip.imaging.slides import open_slide

        reader = open_slide(source.paths, settings)
        try:
            scale = max(reader.size_px) / 1024
            return reader.thumbnail(max(1.0, scale) * max(reader.mpp_um or (1.0,)))
        finally:
            reader.close()
    return _stretched(_middle(source, settings))


def _middle(source: Source, settings: Settings) -> NDArray[Any]:
    number = len(source.paths) // 2
    path, facts = source.paths[number], source.facts[number]
    if facts.format is Format.DICOM:
        from medclip.dicom.pixels.render import read_dicom

        frames = 1 if facts.header is None else facts.header.frames
        frame = frames // 2 if frames > 1 else None
        return read_dicom(path, settings, header=facts.header, mode="raw", frame=frame).pixels
    if facts.format in RASTERS:
        from medclip.imaging.raster import read_raster

        return read_raster(path, facts.format, settings, grey=False).pixels
    if facts.format in (Format.MP4, Format.AVI):
        from medclip.imaging.video import read_video

        frames_FHWC = read_video(path, settings, max_frames=3).frames
        return frames_FHWC[len(frames_FHWC) // 2]
    if source.kind is Kind.VOLUME:
        from medclip.imaging.volume.read import read_volume

        voxels = read_volume(source.paths, source.facts, settings).volume.voxels
        stack = voxels if voxels.ndim == 3 else voxels[len(voxels) // 2]
        return stack[len(stack) // 2][:, :, None]
    raise MedclipError(Reason.NOT_SUPPORTED_YET, f"there is no raw image of {facts.format} files.")


def _stretched(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)

"""Decide which values of deep images and of volumes become black and white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.dicom.pixels.decoded import Decoded
from medclip.errors import MedclipError, Reason
from medclip.files.recognise.inspect import FileFacts
from medclip.files.recognise.sniff import Format
from medclip.imaging.intensity import percentiles, stretch
from medclip.imaging.volume import resample as volume_grid
from medclip.sample import Step, Volume
from medclip.settings import Settings


def to_range(decoded: Decoded, facts: FileFacts, limits: tuple[float, float]) -> tuple[NDArray[Any], tuple[Step, ...]]:
    """Stretch a deep image between two of its percentiles.

    A 16-bit file does not say which of its values are white: 12-bit data in 16 bits is common. The image's own
    percentiles are robust against hot pixels and markers.

    Args:
        decoded: Pixels H x W x C.
        facts: DICOM pixels are in 0-1 already and pass unchanged.
        limits: Percentiles that become black and white.

    Returns:
        uint8 as it was, or float32 in 0-1; and the steps.

    Raises:
        MedclipError: NON_FINITE if there is no finite value.
    """
    pixels = decoded.pixels
    if pixels.dtype == np.uint8 or facts.format is Format.DICOM:
        return pixels, ()
    low, high = percentiles(pixels, *limits)
    if not high > low:
        low, high = percentiles(pixels, 0, 100)
    if not high > low:
        raise MedclipError(Reason.CONSTANT_IMAGE, "all pixels have the same value, so there is nothing to see.")
    step = Step("stretch", f"percentiles {limits[0]:g} to {limits[1]:g}: {low:g} to {high:g}")
    return stretch(pixels, low, high), (step,)


def asked_window(settings: Settings) -> tuple[float, float] | None:
    """Return the window that the policy asks for a volume, None for an adapter's own way.

    Raises:
        MedclipError: WRONG_USE for a window of the header: each slice may state others, and a volume is shown in one.
    """
    wanted = settings.policy.pixels.window
    if isinstance(wanted, tuple):
        return wanted
    if wanted in (0, "none"):
        return None
    raise MedclipError(
        Reason.WRONG_USE,
        "a volume is not shown in a window of its slices' headers.",
        hint="Name a centre and a width in the volume's values, such as 40,400.",
    )


def shown_range(
    volume: Volume, settings: Settings, limits: tuple[float, float], *, signal_only: bool
) -> tuple[float, float, Step]:
    """Return which values of a volume become black and white: one range for all slices, so that they can be compared.

    Args:
        volume: 3-D.
        settings: Settings, whose policy may ask for a window.
        limits: Percentiles that are taken otherwise.
        signal_only: Whether the percentiles are of the values above background, not of all.

    Returns:
        Black, white, and what was done.

    Raises:
        MedclipError: WRONG_USE (see `asked_window`); CONSTANT_IMAGE if all voxels have the same value.
    """
    window = asked_window(settings)
    if window is not None:
        centre, width = window
        step = Step("window", f"centre {centre:g} width {width:g}, as asked")
        return centre - width / 2, centre + width / 2, step
    low, high = volume_grid.levels(volume, limits, signal_only=signal_only)
    of = "of the series above background" if signal_only else "of the volume"
    return low, high, Step("stretch", f"percentiles {limits[0]:g} to {limits[1]:g} {of}: {low:g} to {high:g}")

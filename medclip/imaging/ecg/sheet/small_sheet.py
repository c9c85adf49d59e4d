"""A sheet small enough for a report: all twelve leads still legible, in 11 to 15 kB."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.sheet.render import SheetOptions, render
from medclip.sample import Signal

_DPI = 60
_COLOURS = 16
_LEFT_MM, _TOP_MM, _RIGHT_MM, _BOTTOM_MM = 8.0, 22.0, 274.0, 213.0
"""What is left of the page: leads, calibration pulses, and the lines below that state scale, rate and filters."""


def small_sheet(signal: Signal) -> NDArray[np.uint8]:
    """Draw three rows of four leads and a rhythm strip at 60 dpi; uint8 [451, 628, 3].

    Raises:
        MedclipError: WRONG_USE if the signal is not in mV.
    """
    page, _ = render(signal, SheetOptions(dpi=_DPI))
    left, top, right, bottom = (round(mm * _DPI / 25.4) for mm in (_LEFT_MM, _TOP_MM, _RIGHT_MM, _BOTTOM_MM))
    return page[top:bottom, left:right]


def small_sheet_png(signal: Signal) -> bytes:
    """Return it as a PNG."""
    return png_of(small_sheet(signal))


def png_of(sheet: NDArray[np.uint8]) -> bytes:
    """Write a sheet as a PNG of 16 colours without metadata: a quarter of a JPEG, which blurs thin lines."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sheet).quantize(_COLOURS).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

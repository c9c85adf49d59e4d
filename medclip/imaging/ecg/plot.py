"""Draw a twelve-lead ECG as the paper sheet that people read: 25 mm/s, 10 mm/mV, millimetre grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.sample import Signal

DPI = 200
MM_PER_S = 25.0
MM_PER_MV = 10.0
RHYTHM = "II"

_PAGE_MM = (279.4, 215.9)  # 11 x 8.5 inch, width and height
_SHEET_S = 10.0
_COLUMN_S = 2.5
_LEFT_MM = 20.0
_ROWS_MM = (45.0, 85.0, 125.0, 165.0)
"""Where 0 mV lies in each row: three rows of four leads, and the rhythm strip."""
_PULSE_S = 0.2
_LINE_PT = 0.75
_OVER = 2
"""The traces are drawn at twice the size and averaged, which smooths them."""
_PAPER = (255, 252, 250)
_MINOR = (250, 222, 220)
_MAJOR = (236, 170, 168)
_INK = (15, 15, 25)
_GREY = (120, 120, 130)


@dataclass(frozen=True)
class LeadBox:
    """Where a lead is drawn: what turns pixels back into time and voltage."""

    left_px: float
    """Column of the lead's first moment."""
    zero_px: float
    """Row of 0 mV."""
    start_s: float
    """Moment of the sheet that the left edge shows."""
    seconds: float


def pixels_per_second(dpi: int = DPI) -> float:
    """Return the width of one second: 196.85 at 200 dpi."""
    return MM_PER_S * dpi / 25.4


def pixels_per_millivolt(dpi: int = DPI) -> float:
    """Return the height of one millivolt: 78.74 at 200 dpi."""
    return MM_PER_MV * dpi / 25.4


def layout(dpi: int = DPI) -> Mapping[str, LeadBox]:
    """Return where each lead is drawn; the rhythm strip is "rhythm".

    Every column of three leads shows its own 2.5 s, one after the other, as carts print it.
    """
    mm = dpi / 25.4
    boxes = {}
    for position, lead in enumerate(TWELVE):
        column, row = divmod(position, 3)
        start = column * _COLUMN_S
        boxes[lead] = LeadBox((_LEFT_MM + start * MM_PER_S) * mm, _ROWS_MM[row] * mm, start, _COLUMN_S)
    boxes["rhythm"] = LeadBox(_LEFT_MM * mm, _ROWS_MM[3] * mm, 0.0, _SHEET_S)
    return MappingProxyType(boxes)


def render(signal: Signal, *, start_s: float | None = None, dpi: int = DPI) -> NDArray[np.uint8]:
    """Draw the sheet.

    Args:
        signal: The twelve leads in mV.
        start_s: First of the ten seconds that are drawn; None for the centre of the record.
        dpi: Dots per inch of the page of 11 x 8.5 inch, 50 to 400.

    Returns:
        uint8 [H, W, 3], 1700 x 2200 at 200 dpi. Leads without a usable signal say so. Nothing but leads, scale and
        rate is written on it.

    Raises:
        MedclipError: WRONG_USE if the signal is not in mV, or for another dpi.
    """
    if signal.unit != "mV" or not 50 <= dpi <= 400:
        raise MedclipError(Reason.WRONG_USE, "an ECG sheet needs a signal in mV, and 50 to 400 dpi.")
    if start_s is None:
        start_s = max(0.0, (signal.duration_s - _SHEET_S) / 2)
    page = Image.fromarray(_grid(dpi))
    ink = _traces(signal, start_s, page.size, dpi)
    page.paste(Image.new("RGB", page.size, _INK), mask=ink)
    _write(ImageDraw.Draw(page), signal, start_s, dpi)
    return np.asarray(page)


def _rhythm(signal: Signal) -> str:
    """Name the lead of the rhythm strip: II, or the first that was recorded where II was not."""
    if signal.mask[TWELVE.index(RHYTHM)] or not signal.mask.any():
        return RHYTHM
    return TWELVE[int(np.flatnonzero(signal.mask)[0])]


def _grid(dpi: int) -> NDArray[np.uint8]:
    mm = dpi / 25.4
    width, height = (round(side * mm) for side in _PAGE_MM)
    page = np.full((height, width, 3), _PAPER, np.uint8)
    for step, colour, thick in ((1.0, _MINOR, 1), (5.0, _MAJOR, max(1, round(dpi / 100)))):
        for axis, side in enumerate((_PAGE_MM[1], _PAGE_MM[0])):
            for number in range(int(side / step) + 1):
                at = round(number * step * mm)
                lines = slice(max(0, at - thick // 2), at - thick // 2 + thick)
                page[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = colour
    return page


def _traces(signal: Signal, start_s: float, size: tuple[int, int], dpi: int) -> Image.Image:
    """Draw pulses and leads, white on black, and average them down to the page's size."""
    ink = Image.new("L", (size[0] * _OVER, size[1] * _OVER))
    draw = ImageDraw.Draw(ink)
    thick = max(1, round(_LINE_PT / 72 * dpi * _OVER))
    x, y = pixels_per_second(dpi), pixels_per_millivolt(dpi)

    def line(points: NDArray[np.float64]) -> None:
        # Pillow counts from the middle of a pixel, the page from its edge.
        draw.line([(float(a), float(b)) for a, b in points * _OVER - 0.5], 255, thick, "curve")

    boxes = layout(dpi)
    for row in _ROWS_MM:
        zero, end = row * dpi / 25.4, (_LEFT_MM - 2.0) * dpi / 25.4
        up, down = end - (_PULSE_S + 0.08) * x, end - 0.08 * x
        corners = [(up - 0.08 * x, 0), (up, 0), (up, 1), (down, 1), (down, 0), (end, 0)]
        line(np.array([(a, zero - b * y) for a, b in corners]))
    for name, box in boxes.items():
        lead = TWELVE.index(_rhythm(signal) if name == "rhythm" else name)
        if not signal.mask[lead]:
            continue
        first = max(0, int(np.ceil((start_s + box.start_s) * signal.sampling_hz - 1e-6)))
        last = int(np.floor((start_s + box.start_s + box.seconds) * signal.sampling_hz + 1e-6))
        values = signal.values_mv[lead, first : last + 1].astype(np.float64)
        if values.size < 2:
            continue
        seconds = (first + np.arange(values.size)) / signal.sampling_hz - start_s - box.start_s
        line(np.stack([box.left_px + seconds * x, box.zero_px - values * y], axis=1))
    return ink.resize(size, Image.Resampling.BOX)


def _write(draw: ImageDraw.ImageDraw, signal: Signal, start_s: float, dpi: int) -> None:
    """Write lead names, the ticks between leads, and the scale."""
    mm = dpi / 25.4
    font, small = ImageFont.load_default(round(4.2 * mm)), ImageFont.load_default(round(3.4 * mm))
    for name, box in layout(dpi).items():
        lead = _rhythm(signal) if name == "rhythm" else name
        top = box.zero_px - 17 * mm
        if box.start_s:
            draw.line([(box.left_px, box.zero_px - 4 * mm), (box.left_px, box.zero_px + 4 * mm)], _GREY, round(mm / 4))
        draw.text((box.left_px + 1.5 * mm, top), lead, _INK, font)
        if not signal.mask[TWELVE.index(lead)]:
            draw.text((box.left_px + 16 * mm, box.zero_px - 2 * mm), "no usable signal", _GREY, small)
    shown = f"{start_s:.1f}-{min(start_s + _SHEET_S, signal.duration_s):.1f} s of {signal.duration_s:.1f} s"
    scale = f"{MM_PER_S:g} mm/s    {MM_PER_MV:g} mm/mV    {signal.sampling_hz:g} Hz    {shown}"
    draw.text((_LEFT_MM * mm, 201 * mm), scale, _INK, small)
    filters = "; ".join(step.detail for step in signal.steps if step.name in ("baseline", "notch"))
    computed = f"computed from the other leads: {', '.join(signal.derived)}" if signal.derived else ""
    line = "    ".join(text for text in (filters or "no filter", computed) if text)
    draw.text((_LEFT_MM * mm, 207 * mm), line, _INK, small)

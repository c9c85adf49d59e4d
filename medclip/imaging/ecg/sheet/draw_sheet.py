"""Draw a twelve-lead ECG as the paper sheet that people read: 25 mm/s, 10 mm/mV, millimetre grid."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.layouts import LAYOUTS, LEFT_MM, MM_PER_S, SHEET_S, Layout, SheetMap, sheet_map
from medclip.sample import Signal

SHEET_VERSION = 1
"""Raise when the same leads are drawn as other pixels: it enters the hash of packs that see records as sheets."""
_PULSE_S = 0.2
_LINE_PT, _LEAST_LINE_PX = 0.75, 0.8
_DAB_PX = 0.3
"""Between two dabs of the pen: at 200 dpi no edge is off by more than a hundredth of a pixel."""
_INK = (15, 15, 25)
_GREY = (120, 120, 130)
_LABEL_MM = 17.0
"""Of a lead's name above 0 mV; less where rows are close."""

Colour = tuple[int, int, int]
GRIDS: Mapping[str, tuple[Colour, Colour, Colour]] = MappingProxyType(
    {
        "red": ((255, 252, 250), (250, 222, 220), (236, 170, 168)),
        "pink": ((255, 250, 252), (251, 219, 232), (240, 160, 195)),
        "brown": ((253, 250, 243), (236, 222, 202), (205, 175, 138)),
        "blue": ((250, 252, 255), (214, 226, 246), (150, 180, 226)),
        "green": ((250, 254, 250), (212, 236, 214), (146, 200, 152)),
        "grey": ((255, 255, 255), (228, 228, 228), (188, 188, 188)),
    }
)
"""Red, green and blue of the paper, of the lines of a millimetre, and of those of five.

By the name of the colour; grey is a sheet that was copied in black and white."""


@dataclass(frozen=True)
class SheetOptions:
    """How a sheet is drawn."""

    layout: str = "3x4+1"
    """One of `LAYOUTS`: rows x columns, and strips of ten seconds below."""
    grid: str = "red"
    """One of `GRIDS`."""
    dpi: int = 200
    """Dots per inch, 50 to 400."""
    mm_per_mv: float = 10.0
    """Gain: 5, 10 or 20; the calibration pulse shows it."""
    start_s: float | None = None
    """First of the ten seconds that are drawn; None for the centre of the record."""
    header: str = ""
    """A line of text above the leads; nothing of a record's own header is ever written."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        for name, value, choices in (("layout", self.layout, LAYOUTS), ("grid", self.grid, GRIDS)):
            if value not in choices:
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"an ECG sheet has no {name} {value!r}.",
                    hint=f"{did_you_mean(value, choices)} There are: {', '.join(choices)}.".strip(),
                )
        if not 50 <= self.dpi <= 400 or self.mm_per_mv not in (5, 10, 20):
            raise MedclipError(Reason.WRONG_USE, "an ECG sheet has 50 to 400 dpi, and 5, 10 or 20 mm/mV.")


def render(signal: Signal, options: SheetOptions | None = None) -> tuple[NDArray[np.uint8], SheetMap]:
    """Draw the sheet.

    Args:
        signal: The twelve leads in mV.
        options: Layout, colours, size and gain; None is the default.

    Returns:
        uint8 [H, W, 3], 1700 x 2200 by default, and where its leads lie. Leads without a usable signal say so. Nothing
        but leads, scale, rate and the options' header is written on it.

    Raises:
        MedclipError: WRONG_USE if the signal is not in mV.
    """
    options = options or SheetOptions()
    if signal.unit != "mV":
        raise MedclipError(Reason.WRONG_USE, "an ECG sheet needs a signal in mV.")
    start_s = options.start_s
    if start_s is None:
        start_s = max(0.0, (signal.duration_s - SHEET_S) / 2)
    layout = LAYOUTS[options.layout]
    first, last = (second - start_s for second in _recorded_s(signal))
    part_s = max(0.0, first), min(SHEET_S, last)
    places = sheet_map(layout, _rhythm(signal, layout), options.dpi, options.mm_per_mv, start_s, part_s)
    page = Image.fromarray(_paper(places, options))
    page.paste(Image.new("RGB", page.size, _INK), mask=_traces(signal, places, layout))
    _write(ImageDraw.Draw(page), signal, places, layout, options.header)
    return np.asarray(page), places


def _recorded_s(signal: Signal) -> tuple[float, float]:
    """Return where the record begins and ends, without the zeros around it that reach the length asked for."""
    front, behind = signal.padded
    return front / signal.sampling_hz, (signal.values_mv.shape[1] - behind) / signal.sampling_hz


def _rhythm(signal: Signal, layout: Layout) -> tuple[str, ...]:
    """Name the leads of the strips: the layout's, or in place of one the first other that was recorded."""
    recorded = [lead for lead, present in zip(TWELVE, signal.mask, strict=True) if present]
    leads: list[str] = []
    for lead in layout.rhythm:
        spare = [other for other in recorded if other not in (*leads, *layout.rhythm)]
        leads.append(lead if lead in recorded or not spare else spare[0])
    return tuple(leads)


def _paper(places: SheetMap, options: SheetOptions) -> NDArray[np.uint8]:
    mm, (paper, minor, major) = places.px_per_mm, GRIDS[options.grid]
    page = np.full((places.height_px, places.width_px, 3), paper, np.uint8)
    for step, colour, thick in ((1.0, minor, 1), (5.0, major, max(1, round(options.dpi / 100)))):
        for axis, side in enumerate((places.height_px, places.width_px)):
            for number in range(int(side / mm / step) + 1):
                at = round(number * step * mm - thick / 2)
                lines = slice(max(0, at), at + thick)
                page[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = colour
    return page


def _traces(signal: Signal, places: SheetMap, layout: Layout) -> Image.Image:
    """Draw pulses and leads, white on black."""
    ink = np.zeros((places.height_px, places.width_px), np.float32)
    thick = max(_LEAST_LINE_PX, _LINE_PT / 72 * 25.4 * places.px_per_mm)
    mm, x, y = places.px_per_mm, places.px_per_s, places.px_per_mv

    for row in layout.rows_mm:
        zero, end = row * mm, (LEFT_MM - 2.0) * mm
        up, down = end - (_PULSE_S + 0.08) * x, end - 0.08 * x
        corners = [(up - 0.08 * x, 0), (up, 0), (up, 1), (down, 1), (down, 0), (end, 0)]
        _pen(ink, np.array([(a, zero - b * y) for a, b in corners]), thick)
    front, behind = signal.padded
    for box in places.boxes:
        lead = TWELVE.index(box.lead)
        if not signal.mask[lead]:
            continue
        first = max(front, int(np.ceil((places.start_s + box.start_s) * signal.sampling_hz - 1e-6)))
        last = int(np.floor((places.start_s + box.start_s + box.seconds) * signal.sampling_hz + 1e-6))
        last = min(last, signal.values_mv.shape[1] - behind - 1)
        values = signal.values_mv[lead, first : last + 1].astype(np.float64)
        if values.size < 2:
            continue
        seconds = (first + np.arange(values.size)) / signal.sampling_hz - places.start_s
        _pen(ink, places.to_pixels(box, seconds, values), thick)
    return Image.fromarray(np.rint(ink * 255).astype(np.uint8))


def _pen(ink: NDArray[np.float32], points: NDArray[np.float64], thick: float) -> None:
    """Draw a line with a round pen into the share of each pixel that ink covers.

    Pillow's own lines lie on whole pixels, and on another side of the true line where they rise than where they fall:
    at twice the size and averaged, steep strokes still were 0.85 px, or 4 ms, too early at 200 dpi.

    Args:
        ink: float32 [H, W], 0 to 1; changed.
        points: float64 [N, 2]: x and y from the corner of the first pixel; N at least 2.
        thick: Thickness of the pen, in pixels.
    """
    steps = np.maximum(1, np.ceil(np.hypot(*np.diff(points, axis=0).T) / _DAB_PX)).astype(int)
    number = np.repeat(np.arange(len(steps)), steps)
    share = (np.arange(len(number)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[number]
    dabs = points[number] + share[:, None] * (points[number + 1] - points[number])
    dabs = np.concatenate([dabs, points[-1:]])
    height, width = ink.shape
    reach = int(np.ceil(thick / 2 + 0.5))
    corner = np.floor(dabs).astype(int)
    for right in range(-reach, reach + 1):
        column = corner[:, 0] + right
        for down in range(-reach, reach + 1):
            row = corner[:, 1] + down
            away = np.hypot(column + 0.5 - dabs[:, 0], row + 0.5 - dabs[:, 1])
            covered = thick / 2 + 0.5 - away
            hit = (covered > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            np.maximum.at(ink, (row[hit], column[hit]), np.minimum(covered[hit], 1).astype(np.float32))


def _write(draw: ImageDraw.ImageDraw, signal: Signal, places: SheetMap, layout: Layout, header: str) -> None:
    """Write lead names, the ticks between leads, the scale, and the header that was asked for."""
    mm = places.px_per_mm
    font, small = ImageFont.load_default(round(4.2 * mm)), ImageFont.load_default(round(3.4 * mm))
    up = min(_LABEL_MM, 0.45 * layout.spacing_mm) * mm
    for box in places.boxes:
        if box.left_px > LEFT_MM * mm + 1:
            draw.line([(box.left_px, box.zero_px - 4 * mm), (box.left_px, box.zero_px + 4 * mm)], _GREY, round(mm / 4))
        draw.text((box.left_px + 1.5 * mm, box.zero_px - up), box.lead, _INK, font)
        if not signal.mask[TWELVE.index(box.lead)]:
            draw.text((box.left_px + 16 * mm, box.zero_px - 2 * mm), "no usable signal", _GREY, small)
    first, last = _recorded_s(signal)
    begin, end = max(first, places.start_s), min(places.start_s + SHEET_S, last)
    span = f"{begin - first:.1f}-{end - first:.1f} s of {last - first:.1f} s"
    starts = sorted({box.start_s + places.start_s - first for box in places.boxes if not box.rhythm})
    if layout.columns > 1 and end - begin <= SHEET_S - 0.05:
        span += f", columns from {', '.join(f'{start:.1f}' for start in starts)} s"
    scale = f"{MM_PER_S:g} mm/s    {places.mm_per_mv:g} mm/mV    {signal.sampling_hz:g} Hz    {span}"
    below = layout.page_mm[1]
    draw.text((LEFT_MM * mm, (below - 14.9) * mm), scale, _INK, small)
    filters = "; ".join(step.detail for step in signal.steps if step.name in ("baseline", "notch"))
    computed = f"computed from the other leads: {', '.join(signal.derived)}" if signal.derived else ""
    line = "    ".join(text for text in (filters or "no filter", computed) if text)
    draw.text((LEFT_MM * mm, (below - 8.9) * mm), line, _INK, small)
    if header:
        draw.text((LEFT_MM * mm, 6 * mm), header, _INK, font)


# Spoil a sheet as printers, hands, scanners and cameras do, and keep the map of where its leads are.

_INK_OF_HAND = (30, 40, 120)


@dataclass(frozen=True)
class Distortion:
    """What is done to a sheet, in plain values: the same values spoil it in the same way."""

    degrees: float = 0.0
    """Turned clockwise."""
    corners: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * 4
    """By how much each corner (upper left, upper right, lower right, lower left) moves right and down, as shares of the
    sides: a camera that looks at an angle."""
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Shares of the image cut off at the top, right, bottom and left."""
    warmth: float = 0.0
    """Light from -1 (blue) over 0 (white) to 1 (yellow)."""
    shadow: float = 0.0
    """How much darker the darkest side is, 0 to 1."""
    shadow_degrees: float = 0.0
    creases: tuple[float, ...] = ()
    """Where folds run across the sheet, as shares of its width; each is a blurred darker line."""
    wrinkle: float = 0.0
    """Depth of a slow unevenness of the light, 0 to 1."""
    handwriting: str = ""
    """Written with a pen at the upper edge of the leads."""
    blur_px: float = 0.0
    noise: float = 0.0
    """Standard deviation, in grey levels."""
    jpeg_quality: int | None = None
    background: int = 90
    """Grey level of the table that the sheet lies on."""
    seed: int = 0
    """Of the noise and the wrinkle."""


def draw_distortion(seed: int, *, strength: float = 1.0) -> Distortion:
    """Draw what a telephone's photograph does to a sheet that was pressed flat.

    Args:
        seed: Seed of all that is drawn.
        strength: Factor of what is done: 0 leaves the sheet as it is; 1 turns it by up to 8 degrees and moves corners
            by up to 5 %.
    """
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.05, 0.05, (4, 2)) * strength
    return Distortion(
        degrees=float(rng.uniform(-8, 8) * strength),
        corners=tuple((float(x), float(y)) for x, y in corners),
        warmth=float(rng.uniform(-0.3, 0.6) * strength),
        shadow=float(rng.uniform(0, 0.35) * strength),
        shadow_degrees=float(rng.uniform(0, 360)),
        creases=tuple(float(x) for x in rng.uniform(0.1, 0.9, rng.integers(0, 3))) if strength else (),
        wrinkle=float(rng.uniform(0, 0.08) * strength),
        blur_px=float(rng.uniform(0, 0.8) * strength),
        noise=float(rng.uniform(0, 6) * strength),
        jpeg_quality=int(rng.integers(70, 96)) if strength else None,
        seed=seed,
    )


def distort(pixels: NDArray[np.uint8], places: SheetMap, distortion: Distortion) -> tuple[NDArray[np.uint8], SheetMap]:
    """Spoil a sheet.

    Args:
        pixels: uint8 [H, W, 3].
        places: Map of where the sheet's leads lie.
        distortion: Distortion that is applied, in the order of paper (writing, folds), camera (angle, light, blur) and
            file.

    Returns:
        The spoilt image, uint8 [H', W', 3], and where the leads lie in it.
    """
    rng = np.random.default_rng(distortion.seed)
    page = _creased(_written_on(pixels, places, distortion.handwriting), places, distortion.creases)
    to_image, size = _view(places, distortion)
    image = Image.fromarray(page)
    back = np.linalg.inv(to_image)
    table = (distortion.background,) * 3
    image = image.transform(
        size,
        Image.Transform.PERSPECTIVE,
        (back / back[2, 2]).ravel()[:8].tolist(),
        Image.Resampling.BICUBIC,
        fillcolor=table,
    )
    values = np.asarray(image, np.float32)
    values = values * _light(values.shape[:2], distortion, rng)[..., None]
    values *= 1 + distortion.warmth * np.array([0.04, 0.0, -0.22], np.float32)
    if distortion.blur_px:
        soft = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        values = np.asarray(soft.filter(ImageFilter.GaussianBlur(distortion.blur_px)), np.float32)
    if distortion.noise:
        values = values + rng.normal(0, distortion.noise, values.shape).astype(np.float32)
    spoilt = np.clip(np.round(values), 0, 255).astype(np.uint8)
    if distortion.jpeg_quality is not None:
        buffer = io.BytesIO()
        Image.fromarray(spoilt).save(buffer, "JPEG", quality=distortion.jpeg_quality)
        spoilt = np.asarray(Image.open(buffer).convert("RGB"))
    return spoilt, places.moved(to_image, size[0], size[1])


def _view(places: SheetMap, distortion: Distortion) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the homography from the page to the image, and the image's width and height."""
    width, height = places.width_px, places.height_px
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    moved = square + np.array(distortion.corners) * (width, height)
    angle = np.radians(distortion.degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = moved @ turn.T
    low, high = moved.min(0), moved.max(0)
    top, right, bottom, left = distortion.crop
    span = high - low
    low, high = low + span * (left, top), high - span * (right, bottom)
    size = int(np.ceil(high[0] - low[0])), int(np.ceil(high[1] - low[1]))
    return _homography(square, moved - low), size


def _homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the homography that takes four points to four others."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1.0).reshape(3, 3)


def _light(shape: tuple[int, int], distortion: Distortion, rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = shape
    angle = np.radians(distortion.shadow_degrees)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    light = 1 - distortion.shadow * np.clip(along + 0.5, 0, 1)
    if distortion.wrinkle:
        coarse = Image.fromarray(rng.normal(0, 1, (7, 9)).astype(np.float32))
        light = light * (1 - distortion.wrinkle * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
    return light.astype(np.float32)


def _creased(page: NDArray[np.uint8], places: SheetMap, creases: tuple[float, ...]) -> NDArray[np.uint8]:
    if not creases:
        return page
    x = np.arange(page.shape[1], dtype=np.float32)
    thick = 0.6 * places.px_per_mm
    dark = sum(0.18 * np.exp(-(((x - at * page.shape[1]) / thick) ** 2)) for at in creases)
    return np.clip(page * (1 - np.minimum(dark, 0.5))[None, :, None], 0, 255).astype(np.uint8)


def _written_on(pixels: NDArray[np.uint8], places: SheetMap, text: str) -> NDArray[np.uint8]:
    if not text:
        return pixels
    page = Image.fromarray(pixels)
    box = places.boxes[0]
    font = ImageFont.load_default(round(7 * places.px_per_mm))
    ImageDraw.Draw(page).text((box.left_px + 0.4 * page.width, 8 * places.px_per_mm), text, _INK_OF_HAND, font)
    return np.asarray(page)


# A sheet small enough for a report: all twelve leads still legible, in 11 to 15 kB.

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

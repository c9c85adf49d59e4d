"""A map drawn over its slide: the slide, the map in the colours of all heat maps, a scale, and what it is not."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.intensity import blend
from medclip.slides.heat_maps.patch_map import PatchMap

_LONGEST_PX = 900
_PALE = 0.5
_DPI = 110
_PANEL_IN = 5.0
_GREY = np.array([0.299, 0.587, 0.114])
_BLANK = 235
"""Grey of a slide whose pixels are not at hand."""
NOTE = (
    "Model attention evidence: what of the patches moves this answer. No localisation, no cause, no diagnosis. Pale: "
    "no patch was read. The line is half of the largest value; each slide has a scale of its own."
)


def blank_slide(one: PatchMap, longest_px: int = _LONGEST_PX) -> NDArray[np.uint8]:
    """Return an empty image of a slide's shape, uint8 [H, W, 3], for a map whose slide is not at hand."""
    height, width = one.slide_um
    scale = longest_px / max(height, width)
    return np.full((max(1, round(height * scale)), max(1, round(width * scale)), 3), _BLANK, np.uint8)


def paint(one: PatchMap, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a map over a small image of its slide.

    Args:
        one: The map.
        image: uint8 [H, W, 3], the whole slide at any size.

    Returns:
        uint8 [H, W, 3]; where patches overlap the mean of their values.
    """
    height, width = image.shape[:2]
    total, times = np.zeros((height, width), np.float32), np.zeros((height, width), np.int32)
    scale = height / one.slide_um[0], width / one.slide_um[1]
    for value, (top, left) in zip(one.strengths(), one.corners_um_N2, strict=True):
        rows = _span(top, top + one.patch_um[0], scale[0], height)
        columns = _span(left, left + one.patch_um[1], scale[1], width)
        total[rows, columns] += value
        times[rows, columns] += 1
    grey = np.repeat((image @ _GREY / 255).astype(np.float32)[:, :, None], 3, axis=2)
    drawn = blend(grey, total / np.maximum(times, 1).astype(np.float32))
    pale = (_PALE + (1 - _PALE) * grey) * 255
    return np.where(times[:, :, None] > 0, drawn, pale).astype(np.uint8)


def draw_map(one: PatchMap, image: NDArray[np.uint8], *, with_slide: bool = True) -> bytes:
    """Draw slide and map side by side; the PNG's bytes, with no word about file or patient.

    Args:
        one: The map.
        image: uint8 [H, W, 3], the whole slide at any size.
        with_slide: Whether `image` shows it; False for `blank_slide`.
    """
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panel_height = _PANEL_IN * min(2.0, max(0.25, image.shape[0] / image.shape[1]))
    width, height = 2 * _PANEL_IN + 0.3, panel_height + 1.15
    page = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(page)
    slide = "the slide" if with_slide else "the slide, whose pixels are not at hand"
    for number, (words, panel) in enumerate(((slide, image), (one.title, paint(one, image)))):
        left = 0.1 + number * (_PANEL_IN + 0.1)
        axes = page.add_axes((left / width, 0.8 / height, _PANEL_IN / width, panel_height / height))
        axes.imshow(panel, interpolation="antialiased")
        axes.set_axis_off()
        axes.set_title("\n".join(textwrap.wrap(words, 68)[:2]), fontsize=9, loc="left", pad=3)
    ramp = blend(np.full((16, 256, 3), 0.35, np.float32), np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(16, 0))
    bar = page.add_axes((1.75 / width, 0.56 / height, 1.5 / width, 0.13 / height))
    bar.imshow(ramp, aspect="auto")
    bar.set_axis_off()
    page.text(1.7 / width, 0.62 / height, "does not speak for it", fontsize=7.5, va="center", ha="right")
    page.text(3.3 / width, 0.62 / height, "speaks for it most", fontsize=7.5, va="center")
    page.text(0.1 / width, 0.45 / height, "\n".join(textwrap.wrap(NOTE, 165)), fontsize=7.5, va="top")
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", metadata={"Software": "medclip"})
    return buffer.getvalue()


def _span(start_um: float, end_um: float, scale: float, most: int) -> slice:
    start = min(max(0, round(start_um * scale)), most - 1)
    return slice(start, min(most, max(start + 1, round(end_um * scale))))

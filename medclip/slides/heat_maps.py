"""The files of one slide's map: an image, GeoJSON for QuPath, and a DICOM parametric map where it is asked for.

The image is the slide, the map in the colours of all heat maps, a scale, and what it is not.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.imaging.intensity import blend
from medclip.imaging.slides.readers.open import DAMAGED, readable_overview
from medclip.settings import Settings
from medclip.slides.parametric_map import PatchMap, blank_header, slide_header, write_parametric_map
from medclip.slides.slide_features import SlideFeatures
from medclip.slides.slide_store import SlideRow, embedded_paths, open_embedded

if TYPE_CHECKING:
    from medclip.imaging.slides.readers.pyramid import SlideReader

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


VALUE, STRENGTH = "value", "strength"


@dataclass(frozen=True)
class MapFiles:
    """Which files are written, and from what."""

    images: Path | None
    """Folder of the slides."""
    dicom: bool
    software: str
    """What answered, in a few words."""
    settings: Settings


def write_maps(folder: Path, one: PatchMap, row: SlideRow, features: SlideFeatures, files: MapFiles) -> str:
    """Write KEY.png, KEY.geojson and perhaps KEY.dcm.

    Args:
        folder: Folder that the files are written to.
        one: The map.
        row: The slide in the store.
        features: Features of the slide, for scale and key.
        files: Files that are wanted, and what they are made from.

    Returns:
        What could not be drawn or written, in sentences; blank where nothing is missing.

    Raises:
        MedclipError: MISSING_CODEC without highdicom.
    """
    image, origin_px, note = _read(row, one, files)
    mpp = features.slide_mpp_um or features.effective_mpp_um
    drawn = blank_slide(one, _LONGEST_PX) if image is None else image
    write_file(folder / f"{row.key}.png", draw_map(one, drawn, with_slide=image is not None))
    document = map_geojson(one, mpp, origin_px)
    write_file(folder / f"{row.key}.geojson", json.dumps(document))
    if files.dicom:
        header = None
        if image is not None and files.images is not None:
            header = slide_header(*embedded_paths(files.images, row))
        header = blank_header(one, row.key, mpp) if header is None else header
        try:
            write_parametric_map(folder / f"{row.key}.dcm", one, header, row.key, files.software)
        except MedclipError as error:
            if error.reason is not Reason.CORRUPT:
                raise
            note = f"{note} There is no DICOM map: the slide's header does not say where the slide lies.".strip()
    return note


def _read(row: SlideRow, one: PatchMap, files: MapFiles) -> tuple[NDArray[np.uint8] | None, tuple[int, int], str]:
    """Read a small image of the slide and its origin; None with the reason where it is not there, or is another one."""
    if files.images is None:
        return None, (0, 0), "No folder of slides was named: the map is drawn by itself."
    try:
        with open_embedded(files.images, row, one.slide_um, files.settings) as reader:
            image, note = _thumbnail(reader)
            return image, reader.facts.origin_px, note
    except (MedclipError, OSError) as e:
        reason = e.reason if isinstance(e, MedclipError) else "read error"
        if reason is Reason.CHANGED:
            return None, (0, 0), "The slide there has another size: the map is drawn by itself."
        return None, (0, 0), f"The slide cannot be read ({reason}): the map is drawn by itself."


def _thumbnail(reader: SlideReader) -> tuple[NDArray[np.uint8], str]:
    coarsest = max(reader.size_um) / _LONGEST_PX
    wanted = max(coarsest, reader.stored_mpp()[0], max(reader.mpp_um or (0.0, 0.0)))
    try:
        return reader.thumbnail(wanted), ""
    except MedclipError as error:
        if error.reason not in DAMAGED:
            raise
    image, num_damaged = readable_overview(reader, wanted)
    return image, f"Damaged parts of the slide, which are drawn white: {num_damaged}."


def map_geojson(
    one: PatchMap, slide_mpp_um: tuple[float, float], origin_px: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Write a map as a FeatureCollection of detections that QuPath opens, in pixels of the finest resolution.

    Args:
        one: The map.
        slide_mpp_um: Row and column µm/px of the slide's finest resolution.
        origin_px: Row and column of QuPath's origin in the slide (`SlideReader.facts.origin_px`).

    Returns:
        Plain data, ready for `json.dump`; each detection has the measurements `value` and `strength` (0 to 1).
    """
    features = []
    for value, strength, (top, left) in zip(one.values_N, one.strengths(), one.corners_um_N2, strict=True):
        rows = [round(y / slide_mpp_um[0] - origin_px[0], 2) for y in (top, top + one.patch_um[0])]
        columns = [round(x / slide_mpp_um[1] - origin_px[1], 2) for x in (left, left + one.patch_um[1])]
        corners = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[columns[x], rows[y]] for x, y in corners]]},
                "properties": {
                    "objectType": "detection",
                    "name": one.title,
                    "measurements": {VALUE: float(value), STRENGTH: round(float(strength), 4)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}

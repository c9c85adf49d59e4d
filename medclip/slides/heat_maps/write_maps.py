"""The files of one slide's map: an image, GeoJSON for QuPath, and a DICOM parametric map where it is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file
from medclip.imaging.slides.readers.open import DAMAGED, readable_overview
from medclip.settings import Settings
from medclip.slides.heat_maps.overlay import blank_slide, draw_map
from medclip.slides.heat_maps.parametric_map import blank_header, slide_header, write_parametric_map
from medclip.slides.heat_maps.patch_map import PatchMap
from medclip.slides.store.embedded_slide import embedded_paths, open_embedded
from medclip.slides.store.slide_features import SlideFeatures
from medclip.slides.store.slide_store import SlideRow

if TYPE_CHECKING:
    from medclip.imaging.slides.readers.pyramid import SlideReader


VALUE, STRENGTH = "value", "strength"
_LONGEST_PX = 900


@dataclass(frozen=True)
class MapFiles:
    """Which files are written, and from what."""

    images: Path | None
    """Folder of the slides."""
    dicom: bool
    software: str
    """What answered, in a few words."""
    settings: Settings


@dataclass(frozen=True, eq=False)
class _Slide:
    image: NDArray[np.uint8]
    origin_px: tuple[int, int]
    paths: tuple[Path, ...]


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
        MedclipError: MISSING_CODEC without highdicom; as `medclip.files.output.disk_errors`.
    """
    slide, note = _read(row, one, files)
    mpp = features.slide_mpp_um or features.effective_mpp_um
    image = blank_slide(one, _LONGEST_PX) if slide is None else slide.image
    write_file(folder / f"{row.key}.png", draw_map(one, image, with_slide=slide is not None))
    document = map_geojson(one, mpp, (0, 0) if slide is None else slide.origin_px)
    write_file(folder / f"{row.key}.geojson", json.dumps(document))
    if files.dicom:
        header = None if slide is None else slide_header(*slide.paths)
        header = blank_header(one, row.key, mpp) if header is None else header
        try:
            write_parametric_map(folder / f"{row.key}.dcm", one, header, row.key, files.software)
        except MedclipError as error:
            if error.reason is not Reason.CORRUPT:
                raise
            note = f"{note} There is no DICOM map: the slide's header does not say where the slide lies.".strip()
    return note


def _read(row: SlideRow, one: PatchMap, files: MapFiles) -> tuple[_Slide | None, str]:
    """Read a small image of the slide; None with the reason where it is not there, or is another one."""
    if files.images is None:
        return None, "No folder of slides was named: the map is drawn by itself."
    try:
        with open_embedded(files.images, row, one.slide_um, files.settings) as reader:
            image, note = _thumbnail(reader)
            return _Slide(image, reader.facts.origin_px, tuple(embedded_paths(files.images, row))), note
    except (MedclipError, OSError) as e:
        reason = e.reason if isinstance(e, MedclipError) else "read error"
        if reason is Reason.CHANGED:
            return None, "The slide there has another size: the map is drawn by itself."
        return None, f"The slide cannot be read ({reason}): the map is drawn by itself."


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

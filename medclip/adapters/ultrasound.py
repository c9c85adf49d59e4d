"""Ultrasound: images and loops, from DICOM, video and exported images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.loops import PHOTO_CODES, LoopAdapter, Plan
from medclip.dicom.header.read import DicomHeader, UltrasoundRegion
from medclip.dicom.pixels.decoded import MIN_SIDE
from medclip.files.recognise.inspect import FileFacts
from medclip.imaging.crop import lit_area as lit
from medclip.imaging.geometry import Box
from medclip.sample import Kind, Modality, Step

RULE = lit.LitRule(dark=8, opening=3, share=0.1, margin=0.005, depth=True)
_TWO_D, _M_MODE, _SPECTRAL = 1, 2, 3
_TISSUE, _COLOUR_FLOW = 1, 2
_LEAST = 0.02
"""Regions that cover less of the image than this are not believed."""


class Regions(NamedTuple):
    """What the header's regions say."""

    box: Box
    spacing_mm: tuple[float, float] | None
    what: str
    colour_flow: bool


class UltrasoundAdapter(LoopAdapter):
    """One image to one view, one loop to up to 16 views, cropped to the sector.

    Grey (C = 1), but RGB (C = 3) where colour flow is seen: elsewhere colour is only that of markers and tints.
    """

    name = "ultrasound"
    modality = Modality.ULTRASOUND
    version = 1
    dicom_codes = frozenset({"US", "IVUS", "BMUS"}) | PHOTO_CODES

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Constants that shape the pixels."""
        crop = {
            "grid": lit.GRID,
            "keep": lit.KEEP,
            "moves": [lit.MOVES, lit.MOVING_PART],
            "text": list(lit.TEXT),
            **RULE._asdict(),
        }
        colour = {"saturated": lit.SATURATED, "flow": lit.FLOW, "tint": lit.TINT}
        return {**super().parameters, "sector": crop, "colour": colour, "least_region": _LEAST}

    def describe(self, kind: Kind) -> str:
        """Describe in one line what is read for a kind."""
        each = "H x W x 1 (x 3 where colour flow is seen), cropped to the sector"
        if kind is Kind.CINE:
            return f"up to 16 views of one size, {each}, uint8 0-255; frames [F, H, W, C] of the same crop"
        return f"1 view, {each}, uint8 0-255 or float32 0-1"

    def plan(self, frames: NDArray[np.uint8], facts: FileFacts, spacing_mm: tuple[float, float] | None) -> Plan:
        """Crop to the header's regions, else to the lit sector; keep colour where colour flow is seen."""
        header = facts.header or DicomHeader()
        height, width = frames.shape[1:3]
        regions = find_regions(header, height, width)
        steps: tuple[Step, ...] = ()
        origin = None
        if regions is not None:
            box, spacing_mm, origin = regions.box, regions.spacing_mm or spacing_mm, "regions of the header"
            steps += (Step("crop regions", f"{regions.what}: {box}"),)
        else:
            box = lit.find_lit(frames, RULE)
            if box is not None:
                origin = "lit sector"
                steps += (Step("crop sector", f"lit area: {box}"),)
        inside = frames if box is None else frames[:, box.top : box.bottom, box.left : box.right]
        flow, why = colour_doppler(inside, header, regions)
        if inside.shape[3] == 3 and not flow:
            steps += (Step("luma", "RGB to grey: no colour flow"),)
        headers: dict[str, Any] = {"colour_doppler": flow, "colour_doppler_from": why, "crop_from": origin}
        if header.burned_in is None:
            headers["burned_in_risk"] = "usual for ultrasound"
        return Plan(box, None if flow else 1, spacing_mm, steps, headers)


def colour_doppler(
    frames: NDArray[np.uint8], header: DicomHeader, regions: Regions | None
) -> tuple[bool | None, str | None]:
    """Return whether frames show colour flow, and how that is known.

    UltrasoundColorDataPresent is believed when it says no. When it says yes it may mean an ECG trace or a coloured
    logo; so may a flow region be an empty box. Then the pixels of the crop decide.

    Args:
        frames: [F, H, W, C] inside the crop.
        header: The file's header.
        regions: Regions of the header, from `find_regions`.

    Returns:
        True, False, or None where a grey file says that it holds colour; and the source of it.
    """
    if header.ultrasound_colour is False:
        return False, "UltrasoundColorDataPresent"
    claimed = regions is not None and regions.colour_flow
    if frames.shape[3] == 1:
        return (None, "RegionDataType") if claimed else (False, "grey pixels")
    if any(lit.coloured(frame) for frame in frames):
        return True, "RegionDataType" if claimed else "saturation"
    return False, "saturation"


def find_regions(header: DicomHeader, height: int, width: int) -> Regions | None:
    """Return the union of the header's 2-D tissue and colour-flow regions, in pixels as decoded.

    Args:
        header: Header, whose regions count in stored pixels with inclusive ends; decoding may have made pixels square.
        height: Rows as decoded.
        width: Columns as decoded.

    Returns:
        The box inside the image, or None if there is no region to go by. Where there are only M-mode or spectral
        regions, these count.
    """
    visible = [one for one in header.ultrasound_regions if _visible(one, header)]
    chosen = [one for one in visible if one.spatial_format == _TWO_D and one.data_type in (_TISSUE, _COLOUR_FLOW)]
    what = "2-D"
    if not chosen:
        chosen = [one for one in visible if one.spatial_format in (_M_MODE, _SPECTRAL)]
        what = "M-mode or spectral"
    if not chosen:
        return None
    rows, columns = header.rows, header.columns
    down, across = height / rows, width / columns
    box = Box(
        round(min(one.top for one in chosen) * down),
        round(min(one.left for one in chosen) * across),
        round(min(rows, max(one.bottom for one in chosen) + 1) * down),
        round(min(columns, max(one.right for one in chosen) + 1) * across),
    )
    if min(box.height, box.width) < MIN_SIDE or box.height * box.width < _LEAST * height * width:
        return None
    spacings = {one.spacing_mm for one in chosen if one.spacing_mm is not None}
    spacing = next(iter(spacings)) if len(spacings) == 1 and what == "2-D" else None
    if spacing is not None:
        spacing = (spacing[0] / down, spacing[1] / across)
    flow = any(one.data_type == _COLOUR_FLOW for one in chosen)
    count = "1 region" if len(chosen) == 1 else f"{len(chosen)} regions"
    return Regions(box, spacing, f"{count} ({what})", flow)


def _visible(region: UltrasoundRegion, header: DicomHeader) -> bool:
    return region.left < header.columns and region.top < header.rows

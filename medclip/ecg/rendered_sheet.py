"""`medclip.ecg.render`: a record drawn as a paper sheet, and the map of where its leads lie."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from medclip.files.output import write_file
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.distort import distort, draw_distortion
from medclip.imaging.ecg.sheet.layouts import SheetMap
from medclip.imaging.ecg.sheet.render import SheetOptions, render
from medclip.result import Result
from medclip.sample import Signal
from medclip.wording import count


@dataclass(frozen=True, repr=False)
class RenderedSheet(Result):
    """A sheet that was drawn."""

    out: Path
    map: SheetMap
    """Where every lead lies in the image: pixels to seconds and millivolts."""
    missing_leads: tuple[str, ...]
    """Leads without a usable signal; the sheet says so where they would be."""
    duration_s: float
    """Of the record."""
    number: int
    """Which of the records found there it is, from 1."""
    num_found: int

    def _facts(self) -> dict[str, object]:
        shown = self.map
        return {
            "layout": shown.layout,
            "size": f"{shown.width_px} x {shown.height_px} px, {shown.px_per_mm:.2f} px/mm, {shown.mm_per_mv:g} mm/mV",
            "record": f"{self.duration_s:.3g} s, {self.number} of {count(self.num_found, 'record')}",
            "leads without a signal": ", ".join(self.missing_leads) or "none",
            "image": self.out,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [vars(box) for box in self.map.boxes][:most]


def write_sheet(
    signal: Signal, drawn: SheetOptions, out: Path, *, photograph: int | None, map_out: Path | None
) -> SheetMap:
    """Draw a record, write the image and perhaps the map of where its leads lie, and return that map.

    Args:
        signal: The record.
        drawn: Layout, colours and scale of the sheet.
        out: The PNG.
        photograph: Seed of what a photograph does to it; None leaves it clean.
        map_out: The JSON file.
    """
    pixels, places = render(signal, drawn)
    if photograph is not None:
        pixels, places = distort(pixels, places, draw_distortion(photograph))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", dpi=(drawn.dpi, drawn.dpi))
    write_file(out, buffer.getvalue())
    if map_out is not None:
        write_file(map_out, places.to_json() + "\n")
    return places


def missing_leads(signal: Signal) -> tuple[str, ...]:
    """Return the leads that have no usable signal."""
    return tuple(lead for lead, present in zip(TWELVE, signal.mask, strict=True) if not present)

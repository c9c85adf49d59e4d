"""`medclip.ecg.render`: a record drawn as a paper sheet, and the map of where its leads lie."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from medclip.ecg.one_unit import find_one, read_apart, record_signal
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file, write_file
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.distort import distort, draw_distortion
from medclip.imaging.ecg.sheet.layouts import SheetMap
from medclip.imaging.ecg.sheet.render import SheetOptions, render
from medclip.inspecting.image_file import check_target, refuse_input
from medclip.result import Result
from medclip.sample import Kind
from medclip.settings import Settings
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


def render_record(
    path: str | Path,
    out: str | Path,
    *,
    layout: str = "3x4+1",
    grid: str = "red",
    dpi: int = 200,
    mm_per_mv: float = 10.0,
    start_s: float | None = None,
    filtered: bool = False,
    header: str = "",
    photograph: int | None = None,
    map_out: str | Path | None = None,
    number: int = 1,
    settings: Settings | None = None,
    overwrite: bool = False,
) -> RenderedSheet:
    """Draw ten seconds of a record as the sheet that people read: 25 mm/s, on a millimetre grid.

    Nothing of the record's header but its sampling rate is written on the sheet: no name, no date.

    Args:
        path: A record of any ECG format, or a folder with one.
        out: The PNG to write.
        layout: Rows x columns of leads, and strips of ten seconds below: 3x4, 3x4+1, 3x4+3, 6x2 or 12x1.
        grid: Colour of the paper's grid: red, pink, brown, blue, green or grey.
        dpi: Dots per inch, 50 to 400.
        mm_per_mv: Gain: 5, 10 or 20.
        start_s: Moment of the record that the sheet begins with; None draws its middle ten seconds.
        filtered: Take out the wander of the baseline, as models have it taken out; otherwise as recorded.
        header: A line of text above the leads.
        photograph: Seed of what a telephone's photograph would do to the sheet: turned, at an angle, with shadows,
            noise and JPEG; None leaves it clean.
        map_out: A JSON file for the map of where every lead lies in the image.
        number: Which of the records found there, from 1.
        settings: Limits and policy.
        overwrite: Replace existing files, but never one of the record.

    Returns:
        The sheet's map, and what was drawn.

    Raises:
        MedclipError: Why the record cannot be read; WRONG_USE for what cannot be drawn, or an output that is not .png,
            is a folder or is the input; OUTPUT_IN_USE where a file is there.
    """
    path, out, settings = Path(path), Path(out), settings or Settings()
    options = SheetOptions(layout, grid, dpi, mm_per_mv, start_s, header)
    check_target(out, path, overwrite=overwrite)
    if map_out is not None and Path(map_out).suffix.lower() != ".json":
        raise MedclipError(Reason.WRONG_USE, "the map is JSON; its name ends in .json.", where=map_out)
    source, num_found = find_one(path, Kind.SIGNAL, number, settings)
    for file in [out] if map_out is None else [out, Path(map_out)]:
        refuse_input(file, source.paths)
        claim_file(file, overwrite=overwrite)
    signal = read_apart(record_signal, source, settings, filtered)
    if start_s is not None and not 0 <= start_s < signal.duration_s:
        raise MedclipError(
            Reason.WRONG_USE, f"the sheet cannot begin at {start_s:g} s: the record lasts {signal.duration_s:g} s.",
            where=path,
        )  # fmt: skip
    pixels, places = render(signal, options)
    if photograph is not None:
        pixels, places = distort(pixels, places, draw_distortion(photograph))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", dpi=(dpi, dpi))
    write_file(out, buffer.getvalue())
    if map_out is not None:
        write_file(Path(map_out), places.to_json() + "\n")
    missing = tuple(lead for lead, present in zip(TWELVE, signal.mask, strict=True) if not present)
    return RenderedSheet(out, places, missing, signal.duration_s, number, num_found)

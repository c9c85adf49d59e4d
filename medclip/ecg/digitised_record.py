"""`medclip.ecg.digitise`: the image of a sheet read back into a record, with what is not sure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.ecg.one_unit import find_one, read_apart, sheet_pixels
from medclip.ecg.record_files import WRITERS, check_record_name, files_of
from medclip.errors import MedclipError, Reason
from medclip.files.output import claim_file
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.digitise import DigitisedSheet, digitise
from medclip.imaging.ecg.sheet.layouts import LAYOUTS
from medclip.inspecting.image_file import refuse_input
from medclip.result import Result
from medclip.sample import Kind
from medclip.settings import Settings
from medclip.wording import list_of


@dataclass(frozen=True)
class DigitisedLead:
    """What was read of one lead."""

    lead: str
    seconds: float
    """That are shown and were read; 0 for a lead that was not found."""
    confidence: float
    """Mean over what was read, 0 to 1."""
    sure: bool
    """Whether so little of it is in doubt that it may be taken for the lead."""


@dataclass(frozen=True, repr=False, eq=False)
class DigitisedRecord(Result):
    """What was read of a sheet, and written."""

    out: Path
    layout: str
    rhythm: tuple[str, ...]
    """Leads of the strips of ten seconds."""
    leads: tuple[DigitisedLead, ...]
    """All twelve."""
    notes: tuple[str, ...]
    """What was assumed, corrected or could not be read, in sentences."""
    px_per_mm: float
    degrees: float
    """By which the sheet lay turned, clockwise; a note says so where it lay on its side or upside down."""
    sampling_hz: float
    values_mv: NDArray[np.float32] = field(hash=False)
    """float32 [12, T] in mV, as written: NaN where nothing was read."""
    confidence: NDArray[np.float32] = field(hash=False)
    """float32 [12, T], 0 to 1."""
    number: int = 1
    num_found: int = 1

    @property
    def all_sure(self) -> bool:
        """Whether all twelve leads were read and none is in doubt."""
        return all(lead.sure for lead in self.leads)

    def _facts(self) -> dict[str, object]:
        doubtful = [lead.lead for lead in self.leads if not lead.sure]
        return {
            "layout": f"{self.layout}, strips of {list_of(self.rhythm)}" if self.rhythm else self.layout,
            "scale": f"{self.px_per_mm:.2f} px/mm, turned by {self.degrees:.1f} degrees",
            "record": f"{self.values_mv.shape[1] / self.sampling_hz:g} s at {self.sampling_hz:g} Hz",
            "not sure of": ", ".join(doubtful) or "none",
            "notes": " ".join(self.notes) or "none",
            "written": self.out,
        }

    def _rows(self, most: int | None = None) -> list[dict[str, Any]]:
        return [vars(lead) for lead in self.leads][:most]


def digitise_sheet(
    path: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    together: bool = False,
    least_confidence: float = 0.0,
    number: int = 1,
    settings: Settings | None = None,
    overwrite: bool = False,
) -> DigitisedRecord:
    """Read the leads of a printed ECG back into millivolts.

    The paper must show its millimetre grid; 25 mm/s is taken for granted, the gain is read off the calibration pulses.
    Text on the sheet is not read: leads are named by where they stand.

    Args:
        path: Image of a sheet: scanned, photographed, or drawn by `render`.
        out: Table (.csv or .parquet: seconds, millivolts and confidence of every lead, empty where nothing was read) or
            WFDB record (.hea, with a .dat beside it) to write, at 500 Hz.
        layout: How the leads stand: 3x4, 3x4+1, 3x4+3, 6x2 or 12x1; None finds it.
        together: Write the part of the lead that every column shows as if they had been recorded together, as a record
            as long as a column: for models of signals, which take twelve leads of the same moment.
        least_confidence: Leave out what is less sure than this, 0 to 1.
        number: Which of the images found there, from 1.
        settings: Limits and policy.
        overwrite: Replace existing files, but never the sheet.

    Returns:
        Every lead with its confidence, and notes on what was assumed.

    Raises:
        MedclipError: Why the image cannot be read; TOO_SMALL; NO_SCALE without a millimetre grid or on a sheet that
            does not lie flat; NOT_AN_IMAGE without traces; NOT_SUPPORTED_YET for another arrangement of leads;
            WRONG_USE for an unknown layout or ending; OUTPUT_IN_USE where a file is there.
    """
    path, out, settings = Path(path), Path(out), settings or Settings()
    check_record_name(out)
    if not 0 <= least_confidence <= 1:
        raise MedclipError(Reason.WRONG_USE, f"least_confidence is {least_confidence:g}; it lies between 0 and 1.")
    for file in files_of(out):
        claim_file(file, overwrite=overwrite)
    source, num_found = find_one(path, Kind.IMAGE, number, settings)
    for file in files_of(out):
        refuse_input(file, source.paths)
    pixels = read_apart(sheet_pixels, source, settings)
    try:
        sheet = digitise(pixels, layout=layout)
    except MedclipError as error:
        raise error.at(source.path) from None
    values, sure = _written(sheet, together, least_confidence)
    WRITERS[out.suffix.lower()](out, values, sure, sheet.signal.sampling_hz, sheet.layout)
    return DigitisedRecord(
        out, sheet.layout, sheet.rhythm, _leads(sheet), sheet.notes, sheet.grid.px_per_mm, sheet.grid.degrees,
        sheet.signal.sampling_hz, values, sure, number, num_found,
    )  # fmt: skip


def _leads(sheet: DigitisedSheet) -> tuple[DigitisedLead, ...]:
    seconds = sheet.shown.sum(1) / sheet.signal.sampling_hz
    means, sure = sheet.lead_confidence, sheet.sure_leads
    return tuple(
        DigitisedLead(lead, round(float(seconds[n]), 3), round(means[lead], 3), lead in sure)
        for n, lead in enumerate(TWELVE)
    )


def _written(
    sheet: DigitisedSheet, together: bool, least_confidence: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what is written: mV, NaN where nothing was read, and confidence."""
    shown = sheet.shown & (sheet.confidence >= least_confidence)
    values = np.where(shown, sheet.signal.values_mv, np.float32(np.nan))
    confidence = np.where(shown, sheet.confidence, np.float32(0))
    if not together:
        return values, confidence
    layout, hz = LAYOUTS[sheet.layout], sheet.signal.sampling_hz
    length = round(layout.column_s * hz)
    starts = {lead: round(sheet.column_starts_s[column] * hz) for lead, _, column in layout.cells}
    parts = [slice(starts[lead], starts[lead] + length) for lead in TWELVE]
    return (
        np.stack([line[part] for line, part in zip(values, parts, strict=True)]),
        np.stack([line[part] for line, part in zip(confidence, parts, strict=True)]),
    )

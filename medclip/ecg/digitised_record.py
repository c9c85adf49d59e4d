"""`medclip.ecg.digitise`: the image of a sheet read back into a record, with what is not sure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.sheet.digitise import DigitisedSheet
from medclip.imaging.ecg.sheet.layouts import LAYOUTS
from medclip.result import Result
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


def leads_of(sheet: DigitisedSheet) -> tuple[DigitisedLead, ...]:
    """Return what was read of each lead."""
    seconds = sheet.shown.sum(1) / sheet.signal.sampling_hz
    means, sure = sheet.lead_confidence, sheet.sure_leads
    return tuple(
        DigitisedLead(lead, round(float(seconds[n]), 3), round(means[lead], 3), lead in sure)
        for n, lead in enumerate(TWELVE)
    )


def written_values(
    sheet: DigitisedSheet, together: bool, min_confidence: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what is written: mV, NaN where nothing was read, and confidence."""
    shown = sheet.shown & (sheet.confidence >= min_confidence)
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

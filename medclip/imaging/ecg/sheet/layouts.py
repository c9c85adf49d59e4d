"""How twelve leads are arranged on a page, and where each lies: what turns pixels back into time and voltage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from medclip.imaging.ecg.lead_names import TWELVE

MM_PER_S = 25.0
SHEET_S = 10.0
"""Seconds that a row shows."""
LEFT_MM = 20.0
"""Where the leads begin; calibration pulses stand to the left of it."""


@dataclass(frozen=True)
class Layout:
    """Rows and columns of leads, and rhythm strips below them."""

    name: str
    columns: int
    """Each row of leads shows this many, one after the other: every column its own part of the ten seconds, and of a
    shorter record parts that overlap."""
    rows_mm: tuple[float, ...]
    """Where 0 mV of each row lies below the page's upper edge; the strips are the last rows."""
    rhythm: tuple[str, ...] = ()
    """Leads of the strips of ten seconds."""
    page_mm: tuple[float, float] = (279.4, 215.9)
    """Width and height; 11 x 8.5 inch."""

    @property
    def cells(self) -> tuple[tuple[str, int, int], ...]:
        """Lead, row and column of every lead, without the strips."""
        rows = len(self.rows_mm) - len(self.rhythm)
        return tuple((lead, n % rows, n // rows) for n, lead in enumerate(TWELVE))

    @property
    def column_s(self) -> float:
        """Seconds of one column."""
        return SHEET_S / self.columns

    @property
    def spacing_mm(self) -> float:
        """Between two rows."""
        return self.rows_mm[1] - self.rows_mm[0]


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("3x4", 4, (50.0, 100.0, 150.0)),
            Layout("3x4+1", 4, (45.0, 85.0, 125.0, 165.0), ("II",)),
            Layout("3x4+3", 4, (35.0, 65.0, 95.0, 125.0, 155.0, 185.0), ("V1", "II", "V5")),
            Layout("6x2", 2, (35.0, 65.0, 95.0, 125.0, 155.0, 185.0)),
            Layout("12x1", 1, tuple(30.0 + 25.0 * n for n in range(12)), page_mm=(279.4, 355.6)),
        )
    }
)
"""The rows lie on lines of the grid, as carts print them. Twelve rows need a page of 11 x 14 inch: on a smaller one the
leads would run through each other."""


@dataclass(frozen=True)
class LeadBox:
    """Where a lead is drawn on the flat page."""

    lead: str
    rhythm: bool
    """Whether it is a strip of ten seconds below the leads."""
    left_px: float
    """Column of the lead's first moment."""
    zero_px: float
    """Row of 0 mV."""
    start_s: float
    """Moment of the sheet that the left edge shows."""
    seconds: float


@dataclass(frozen=True)
class SheetMap:
    """Where everything lies in the image of a sheet. Coordinates count from the corner of the first pixel."""

    layout: str
    width_px: int
    height_px: int
    px_per_mm: float
    mm_per_mv: float
    start_s: float
    """Moment of the record that the sheet begins with."""
    boxes: tuple[LeadBox, ...]
    transform: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    """From the flat page to the image, as a homography of (x, y, 1): the identity for a sheet as it was drawn."""

    @property
    def px_per_s(self) -> float:
        """Width of one second on the flat page: 196.85 at 200 dpi."""
        return MM_PER_S * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        """Height of one millivolt on the flat page: 78.74 at 200 dpi and 10 mm/mV."""
        return self.mm_per_mv * self.px_per_mm

    def box_of(self, lead: str, *, rhythm: bool = False) -> LeadBox:
        """Return the box of a lead, or of its strip."""
        return next(box for box in self.boxes if box.lead == lead and box.rhythm == rhythm)

    def to_pixels(
        self, box: LeadBox, seconds: NDArray[np.floating], millivolts: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return where points of a lead lie in the image.

        Args:
            box: Box of the lead.
            seconds: Time of each point in seconds of the sheet, 0 to 10; float [N].
            millivolts: Voltage of each point in mV, float [N].

        Returns:
            float64 [N, 2]: x and y in pixels.
        """
        x = box.left_px + (np.asarray(seconds, np.float64) - box.start_s) * self.px_per_s
        y = box.zero_px - np.asarray(millivolts, np.float64) * self.px_per_mv
        return apply_homography(np.array(self.transform), np.stack(np.broadcast_arrays(x, y), axis=-1))

    def moved(self, transform: NDArray[np.float64], width_px: int, height_px: int) -> SheetMap:
        """Return the map of the image after a homography from its pixels to those of another image."""
        joined = transform @ np.array(self.transform)
        rows = tuple((float(a), float(b), float(c)) for a, b, c in joined / joined[2, 2])
        return replace(self, transform=rows, width_px=width_px, height_px=height_px)

    def to_json(self) -> str:
        """Return it as text, to lie beside the image."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SheetMap:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        boxes = tuple(LeadBox(**box) for box in fields["boxes"])
        return cls(**{**fields, "boxes": boxes, "transform": tuple(tuple(row) for row in fields["transform"])})


def apply_homography(transform: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where a homography of (x, y, 1) takes points: float64 [..., 2]."""
    moved = points @ transform[:, :2].T + transform[:, 2]
    return moved[..., :2] / moved[..., 2:]


def sheet_map(
    layout: Layout, rhythm: tuple[str, ...], dpi: int, mm_per_mv: float, start_s: float, part_s: tuple[float, float]
) -> SheetMap:
    """Return where a sheet that is drawn flat has its leads.

    Args:
        layout: Layout of the sheet, one of `LAYOUTS`.
        rhythm: Leads of its strips, as many as the layout has.
        dpi: Dots per inch.
        mm_per_mv: Gain in mm/mV.
        start_s: Moment of the record that the sheet begins with.
        part_s: First and last moment of the sheet at which there is a record.
    """
    mm = dpi / 25.4
    boxes = []
    for lead, row, column in layout.cells:
        start = column_start(layout, column, *part_s)
        left = (LEFT_MM + column * layout.column_s * MM_PER_S) * mm
        boxes.append(LeadBox(lead, False, left, layout.rows_mm[row] * mm, start, layout.column_s))
    for lead, row_mm in zip(rhythm, layout.rows_mm[len(layout.rows_mm) - len(rhythm) :], strict=True):
        boxes.append(LeadBox(lead, True, LEFT_MM * mm, row_mm * mm, 0.0, SHEET_S))
    width, height = (round(side * mm) for side in layout.page_mm)
    return SheetMap(layout.name, width, height, mm, mm_per_mv, start_s, tuple(boxes))


def column_start(layout: Layout, column: int, first_s: float, last_s: float) -> float:
    """Return the moment that a column begins with.

    Columns of a record that fills the sheet follow each other. Those of a shorter one overlap, as sheets of strips of
    2.5 s are printed: where they followed each other, the last leads would be empty, as if nobody had recorded them.
    """
    if layout.columns == 1 or last_s - first_s > SHEET_S - 0.05:
        return column * layout.column_s
    return first_s + column * max(0.0, last_s - first_s - layout.column_s) / (layout.columns - 1)

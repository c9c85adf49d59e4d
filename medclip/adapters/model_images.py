"""What a model that takes images is shown of a sample: its views, or its ECG as it is drawn on paper."""

from __future__ import annotations

from dataclasses import asdict

from medclip.adapters.base import preprocessing_hash
from medclip.sample import Sample, View

DRAWN = "ecg:drawn"
"""Name of how an ECG record is drawn, in shard indexes and pack manifests, beside that of how it is read."""
DRAWN_OF = "ecg:signal"
ECG_DPI = 100
_COLUMN_MM = (19.5, 25.0, 62.5, 120.0)
"""Left, top, width and height of the first column of three leads on the sheet; the others follow it."""
_COLUMN_STEP_MM = 62.5
_RHYTHM_MM = (18.0, 147.0, 255.0, 36.0)


def drawing_hash() -> str:
    """Hash what decides the pixels that an ECG record is drawn as: equal hash and equal record, equal pixels."""
    from medclip.imaging.ecg.sheet.render import SHEET_VERSION, SheetOptions

    cuttings = {"first_column_mm": _COLUMN_MM, "column_step_mm": _COLUMN_STEP_MM, "rhythm_mm": _RHYTHM_MM}
    return preprocessing_hash(DRAWN, SHEET_VERSION, {**asdict(SheetOptions(dpi=ECG_DPI)), **cuttings})


def images_of(sample: Sample) -> tuple[View, ...]:
    """Return the views of a sample; of an ECG five cuttings of its sheet (25 mm/s, 10 mm/mV, millimetre grid).

    The whole sheet would lose its traces at the few hundred pixels that models take. Four cuttings hold three leads
    and 2.5 s each, the fifth the rhythm strip.

    Returns:
        uint8 RGB views for ECGs; else `sample.views`, which may be empty.
    """
    if sample.signal is None:
        return sample.views
    from medclip.imaging.ecg.sheet.render import SheetOptions, render

    sheet = render(sample.signal, SheetOptions(dpi=ECG_DPI))[0]
    left, top, width, height = _COLUMN_MM
    boxes = [(left + n * _COLUMN_STEP_MM, top, width, height) for n in range(4)] + [_RHYTHM_MM]
    views = []
    for box in boxes:
        x, y, w, h = (round(mm * ECG_DPI / 25.4) for mm in box)
        views.append(View(sheet[y : y + h, x : x + w], (0.0, 255.0)))
    return tuple(views)

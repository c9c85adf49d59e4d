"""What a model that takes images is shown of a sample: its views, or its ECG as it is drawn on paper."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medclip.adapters.base import preprocessing_hash
from medclip.sample import Kind, Modality, Sample, View

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
    from medclip.imaging.ecg.sheet.draw_sheet import SHEET_VERSION, SheetOptions

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
    from medclip.imaging.ecg.sheet.draw_sheet import SheetOptions, render

    sheet = render(sample.signal, SheetOptions(dpi=ECG_DPI))[0]
    left, top, width, height = _COLUMN_MM
    boxes = [(left + n * _COLUMN_STEP_MM, top, width, height) for n in range(4)] + [_RHYTHM_MM]
    views = []
    for box in boxes:
        x, y, w, h = (round(mm * ECG_DPI / 25.4) for mm in box)
        views.append(View(sheet[y : y + h, x : x + w], (0.0, 255.0)))
    return tuple(views)


# Which channels of a view a person is shown: three HU windows of a CT slice are no colours.

T = TypeVar("T", bound=np.generic)
_NAMED = re.compile(r"(\w+) centre")


def channel_names(sample: Sample) -> tuple[str, ...]:
    """Name the channels of a sample's views where they are windows on one slice, as the step "window" has them.

    Returns:
        Lung, soft tissue, bone for CT volumes; () where the channels are a colour, or one grey value three times.
    """
    if not _is_ct_volume(sample):
        return ()
    matches = [_NAMED.findall(step.detail) for step in sample.provenance.steps if step.name == "window"]
    names = tuple(name.replace("_", " ") for name in matches[0]) if matches else ()
    return names if len(names) == 3 else ()


def as_shown(sample: Sample, pixels: NDArray[T]) -> NDArray[T]:
    """Return the pixels H x W x C of a view as a person looks at them.

    Of CT volumes the middle channel in grey: the soft tissue window, or the slice itself between its neighbours. Put
    together as red, green and blue they would make a lung red and a bone white.
    """
    return pixels[:, :, 1:2] if _is_ct_volume(sample) and pixels.shape[2] == 3 else pixels


def _is_ct_volume(sample: Any) -> bool:
    return sample.modality is Modality.CT and sample.kind is Kind.VOLUME

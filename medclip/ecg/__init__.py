"""ECGs on paper as `medclip.ecg`: draw a record as the sheet that people read, and read a sheet back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.ecg.digitised_record import DigitisedRecord
    from medclip.ecg.digitised_record import digitise_sheet as digitise
    from medclip.ecg.rendered_sheet import RenderedSheet
    from medclip.ecg.rendered_sheet import render_record as render
    from medclip.imaging.ecg.sheet.layouts import SheetMap

__all__ = [
    "DigitisedRecord",
    "RenderedSheet",
    "SheetMap",
    "digitise",
    "render",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DigitisedRecord": "medclip.ecg.digitised_record:DigitisedRecord",
        "RenderedSheet": "medclip.ecg.rendered_sheet:RenderedSheet",
        "SheetMap": "medclip.imaging.ecg.sheet.layouts:SheetMap",
        "digitise": "medclip.ecg.digitised_record:digitise_sheet",
        "render": "medclip.ecg.rendered_sheet:render_record",
    },
)

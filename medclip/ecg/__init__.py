"""ECGs on paper as `medclip.ecg`: draw a record as the sheet that people read, and read a sheet back.

`render` and `digitise` are verbs of `medclip.api`; type checkers find all names in `__init__.pyi`.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["DigitisedRecord", "RenderedSheet", "SheetMap", "digitise", "render"]  # pyright: ignore[reportUnsupportedDunderAll] (they stand in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DigitisedRecord": "medclip.ecg.sheets:DigitisedRecord",
        "RenderedSheet": "medclip.ecg.sheets:RenderedSheet",
        "SheetMap": "medclip.imaging.ecg.sheet.layouts:SheetMap",
        "digitise": "medclip.api.ecg:digitise",
        "render": "medclip.api.ecg:render",
    },
)

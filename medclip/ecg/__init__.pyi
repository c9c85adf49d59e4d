"""What type checkers see of `medclip.ecg`: every public name as the class or function that it is.

The namespace is a face for users, and its verbs stand in `medclip.api`, above this room. No file of the room may import
them; this stub, which is never run, may name them, so that each has one signature.
"""

from medclip.api.ecg import digitise, render
from medclip.ecg.sheets import DigitisedRecord, RenderedSheet
from medclip.imaging.ecg.sheet.layouts import SheetMap

__all__ = ["DigitisedRecord", "RenderedSheet", "SheetMap", "digitise", "render"]

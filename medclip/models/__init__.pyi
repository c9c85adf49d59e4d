"""What type checkers see of `medclip.models`: every public name as the function that it is.

The namespace is a face for users, and some of its verbs stand in `medclip.api`, above this room. No file of the room
may import them; this stub, which is never run, may name them, so that each has one signature.
"""

from medclip.api.calibrate import calibrate
from medclip.api.distil import distil
from medclip.api.merge_packs import merge_packs as merge
from medclip.api.models import cite, presets, set_thresholds, show, verify
from medclip.api.models import export_model as export
from medclip.api.models import import_model as import_
from medclip.api.models import list_packs as list
from medclip.models.interchange.load_start import load_hub
from medclip.models.packs.pack import load_model as load

__all__ = [
    "calibrate",
    "cite",
    "distil",
    "export",
    "import_",
    "list",
    "load",
    "load_hub",
    "merge",
    "presets",
    "set_thresholds",
    "show",
    "verify",
]

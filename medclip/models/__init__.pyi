"""What type checkers see of `medclip.models`: every public name as the function that it is.

The namespace is a face for users, and some of its verbs stand in `medclip.api`, above this room. No file of the room
may import them; this stub, which is never run, may name them, so that each has one signature.
"""

from medclip.api.calibrate import calibrate
from medclip.api.merge_packs import merge_packs as merge
from medclip.api.verify import verify
from medclip.models.interchange.import_export import export_model as export
from medclip.models.interchange.import_export import import_model as import_
from medclip.models.interchange.load_hub import load_hub
from medclip.models.interchange.presets import list_presets as presets
from medclip.models.packs.cite import cite
from medclip.models.packs.pack import list_packs as list
from medclip.models.packs.pack import load_model as load
from medclip.models.packs.pack import pack_card as show
from medclip.models.packs.set_thresholds import set_thresholds

__all__ = [
    "calibrate",
    "cite",
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

"""Towers, model packs and cards; as `medclip.models`, what can be done to a pack.

`list`, `show`, `verify`, `calibrate`, `presets`, `import_` and `export` do what `medclip models` does; `load` and
`load_hub` return a model.
`verify` and `calibrate` ask all that scoring asks of a pack, so they are verbs of the rooms above; for type checkers
they are `check_pack` and `backends.verb.calibrate`, which have their signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.models.backends.verb import calibrate
    from medclip.models.interchange.import_export import export_model as export
    from medclip.models.interchange.import_export import import_model as import_
    from medclip.models.interchange.load_hub import load_hub
    from medclip.models.interchange.presets import list_presets as presets
    from medclip.models.packs.pack import check_pack as verify
    from medclip.models.packs.pack import list_packs as list
    from medclip.models.packs.pack import load_model as load
    from medclip.models.packs.pack import pack_card as show

__all__ = ["calibrate", "export", "import_", "list", "load", "load_hub", "presets", "show", "verify"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "calibrate": "medclip.api.calibrate:calibrate",
        "export": "medclip.models.interchange.import_export:export_model",
        "import_": "medclip.models.interchange.import_export:import_model",
        "list": "medclip.models.packs.pack:list_packs",
        "load": "medclip.models.packs.pack:load_model",
        "load_hub": "medclip.models.interchange.load_hub:load_hub",
        "presets": "medclip.models.interchange.presets:list_presets",
        "show": "medclip.models.packs.pack:pack_card",
        "verify": "medclip.api.verify:verify",
    },
)

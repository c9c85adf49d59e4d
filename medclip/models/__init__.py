"""Towers, packs, cards, and as `medclip.models` what can be done to a pack; how a tower is trained is in `training`.

`list`, `show`, `cite`, `verify`, `calibrate`, `distil`, `merge`, `set_thresholds`, `presets`, `import_` and `export` do
what the commands do, and are verbs of `medclip.api`; `load` and `load_hub` return a model. Type checkers find all names
in `__init__.pyi`.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = [  # they stand in __init__.pyi
    "calibrate",
    "cite",
    "distil",
    "export",
    "import_",
    "list",
    "load",
    "load_hub",  # pyright: ignore[reportUnsupportedDunderAll]
    "merge",
    "presets",
    "set_thresholds",
    "show",
    "verify",  # pyright: ignore[reportUnsupportedDunderAll]
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "calibrate": "medclip.api.calibrate:calibrate",
        "cite": "medclip.api.models:cite",
        "distil": "medclip.api.distil:distil",
        "export": "medclip.api.models:export_model",
        "import_": "medclip.api.models:import_model",
        "list": "medclip.api.models:list_packs",
        "load": "medclip.models.packs.pack:load_model",
        "load_hub": "medclip.models.interchange.load_start:load_hub",
        "merge": "medclip.api.merge_packs:merge_packs",
        "presets": "medclip.api.models:presets",
        "set_thresholds": "medclip.api.models:set_thresholds",
        "show": "medclip.api.models:show",
        "verify": "medclip.api.models:verify",
    },
)

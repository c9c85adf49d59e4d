"""Towers, model packs and cards; as `medclip.models`, what can be done to a pack.

`list`, `show`, `cite`, `verify`, `calibrate`, `merge`, `set_thresholds`, `presets`, `import_` and `export` do what the
commands do; `load` and `load_hub` return a model.
`verify`, `calibrate` and `merge` ask for more of medclip than a pack, so they are verbs of the rooms above; type
checkers find all names in `__init__.pyi`.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = [  # they stand in __init__.pyi
    "calibrate", "cite", "export", "import_", "list", "load", "load_hub",  # pyright: ignore[reportUnsupportedDunderAll]
    "merge", "presets", "set_thresholds", "show", "verify",  # pyright: ignore[reportUnsupportedDunderAll]
]  # fmt: skip

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "calibrate": "medclip.api.calibrate:calibrate",
        "cite": "medclip.models.packs.cite:cite",
        "export": "medclip.models.interchange.import_export:export_model",
        "import_": "medclip.models.interchange.import_export:import_model",
        "list": "medclip.models.packs.pack:list_packs",
        "load": "medclip.models.packs.pack:load_model",
        "load_hub": "medclip.models.interchange.load_hub:load_hub",
        "merge": "medclip.api.merge_packs:merge_packs",
        "presets": "medclip.models.interchange.presets:list_presets",
        "set_thresholds": "medclip.models.packs.set_thresholds:set_thresholds",
        "show": "medclip.models.packs.pack:pack_card",
        "verify": "medclip.api.verify:verify",
    },
)

"""Where image-text pairs come from, are chosen and get their words; what training draws of them is in `text`.

As `medclip.pairs`: what the commands `medclip pairs` do, by their names. `medclip.pathgen` makes patches of slides with
captions.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = [  # they stand in __init__.pyi
    "captions",  # pyright: ignore[reportUnsupportedDunderAll]
    "cluster",  # pyright: ignore[reportUnsupportedDunderAll]
    "from_articles",  # pyright: ignore[reportUnsupportedDunderAll]
    "intersect",  # pyright: ignore[reportUnsupportedDunderAll]
    "label",  # pyright: ignore[reportUnsupportedDunderAll]
    "look",  # pyright: ignore[reportUnsupportedDunderAll]
    "reinforce",  # pyright: ignore[reportUnsupportedDunderAll]
    "rewrite",  # pyright: ignore[reportUnsupportedDunderAll]
    "select",  # pyright: ignore[reportUnsupportedDunderAll]
    "synthesize",  # pyright: ignore[reportUnsupportedDunderAll]
    "union",  # pyright: ignore[reportUnsupportedDunderAll]
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "captions": "medclip.api.captions:captions",
        "intersect": "medclip.api.select_pairs:intersect",
        "select": "medclip.api.select_pairs:select",
        "union": "medclip.api.select_pairs:union",
        "cluster": "medclip.api.clusters:cluster",
        "label": "medclip.api.clusters:label",
        "look": "medclip.api.look:look",
        "reinforce": "medclip.api.reinforce:reinforce",
        "synthesize": "medclip.api.synthesize:synthesize",
        "rewrite": "medclip.api.rewrite:rewrite",
        "from_articles": "medclip.api.from_articles:from_articles",
    },
)

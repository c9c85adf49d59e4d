"""Where image-text pairs come from, are chosen and get their words; what training draws of them is in `text`.

As `medclip.pairs`: `captions`, `from_articles`, `cluster` and `label` do what the commands do. `medclip.pathgen` makes
patches of slides with captions.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["captions", "cluster", "from_articles", "label"]  # pyright: ignore[reportUnsupportedDunderAll] (it stands in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "captions": "medclip.api.captions:captions",
        "cluster": "medclip.api.clusters:cluster",
        "label": "medclip.api.clusters:label",
        "from_articles": "medclip.api.from_articles:from_articles",
    },
)

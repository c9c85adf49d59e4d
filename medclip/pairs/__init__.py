"""Where image-text pairs come from, are chosen and get their words; what training draws of them is in `text`.

As `medclip.pairs`: `captions` does what the command does. `medclip.pathgen` makes patches of slides with captions.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["captions", "rewrite"]  # pyright: ignore[reportUnsupportedDunderAll] (it stands in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__, {"captions": "medclip.api.captions:captions", "rewrite": "medclip.api.rewrite:rewrite"}
)

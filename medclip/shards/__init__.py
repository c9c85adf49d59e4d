"""Samples to WebDataset-compatible tar shards and back; captions are written in `pairs`, and drawn by `text`.

As `medclip.shards`, what can be done to a shard folder: `build`, `index` and `check` do what the commands do, and
`open` reads samples.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["build", "check", "index", "open"]  # pyright: ignore[reportUnsupportedDunderAll] (they stand in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": "medclip.api.shards:build",
        "check": "medclip.api.shards:check",
        "index": "medclip.api.shards:index",
        "open": "medclip.shards.reading.samples:ShardReader",
    },
)

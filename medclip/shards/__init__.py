"""Samples to WebDataset-compatible tar shards and back; as `medclip.shards`, what can be done to a shard folder.

`build`, `index`, `check`, `captions_from_labels`, `captions_from_mammography` and `captions_from_ecg` do what the
commands do, and `open` reads samples.
"""

from __future__ import annotations

from medclip.lazy import lazy_names

__all__ = ["build", "captions_from_ecg", "captions_from_labels", "captions_from_mammography", "check", "index", "open"]  # pyright: ignore[reportUnsupportedDunderAll] (they stand in __init__.pyi)

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": "medclip.api.shards:build",
        "captions_from_ecg": "medclip.api.captions:captions_from_ecg",
        "captions_from_labels": "medclip.api.captions:captions_from_labels",
        "captions_from_mammography": "medclip.api.captions:captions_from_mammography",
        "check": "medclip.api.shards:check",
        "index": "medclip.api.shards:index",
        "open": "medclip.shards.reading.samples:ShardReader",
    },
)

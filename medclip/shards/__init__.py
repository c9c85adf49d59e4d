"""Samples to WebDataset-compatible tar shards and back; as `medclip.shards`, what can be done to a shard folder.

`build`, `index`, `check`, `captions_from_labels`, `captions_from_mammography` and `captions_from_ecg` do what the
commands do; `plan` is `build --dry-run`, and `open` reads samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclip.lazy import lazy_names

if TYPE_CHECKING:
    from medclip.shards.check_shards import check
    from medclip.shards.reading.index_tars import index_shards as index
    from medclip.shards.reading.samples import ShardReader as open
    from medclip.shards.writing.build import build_shards as build
    from medclip.shards.writing.captions import captions_from_labels
    from medclip.shards.writing.ecg_captions import captions_from_ecg
    from medclip.shards.writing.mammography_captions import captions_from_mammography
    from medclip.shards.writing.summary import plan_shards as plan

__all__ = [
    "build",
    "captions_from_ecg",
    "captions_from_labels",
    "captions_from_mammography",
    "check",
    "index",
    "open",
    "plan",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": "medclip.shards.writing.build:build_shards",
        "captions_from_ecg": "medclip.shards.writing.ecg_captions:captions_from_ecg",
        "captions_from_labels": "medclip.shards.writing.captions:captions_from_labels",
        "captions_from_mammography": "medclip.shards.writing.mammography_captions:captions_from_mammography",
        "check": "medclip.shards.check_shards:check",
        "index": "medclip.shards.reading.index_tars:index_shards",
        "open": "medclip.shards.reading.samples:ShardReader",
        "plan": "medclip.shards.writing.summary:plan_shards",
    },
)

"""What type checkers see of `medclip.shards`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.captions import captions_from_ecg, captions_from_labels, captions_from_mammography
from medclip.api.shards import build, check, index
from medclip.shards.reading.samples import ShardReader as open

__all__ = ["build", "captions_from_ecg", "captions_from_labels", "captions_from_mammography", "check", "index", "open"]

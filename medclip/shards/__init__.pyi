"""What type checkers see of `medclip.shards`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.shards import build, check, index
from medclip.shards.reading.samples import ShardReader as open

__all__ = ["build", "check", "index", "open"]

"""What type checkers see of `medclip.pairs`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.captions import captions
from medclip.api.rewrite import rewrite

__all__ = ["captions", "rewrite"]

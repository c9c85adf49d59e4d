"""What type checkers see of `medclip.pairs`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.captions import captions
from medclip.api.select_pairs import intersect, select, union

__all__ = ["captions", "intersect", "select", "union"]

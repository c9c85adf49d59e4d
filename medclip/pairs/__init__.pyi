"""What type checkers see of `medclip.pairs`: every public name as what it is; see `medclip/runs/__init__.pyi`."""

from medclip.api.captions import captions
from medclip.api.clusters import cluster, label
from medclip.api.from_articles import from_articles
from medclip.api.look import look
from medclip.api.reinforce import reinforce
from medclip.api.rewrite import rewrite
from medclip.api.select_pairs import intersect, select, union
from medclip.api.synthesize import synthesize

__all__ = [
    "captions",
    "cluster",
    "from_articles",
    "intersect",
    "label",
    "look",
    "reinforce",
    "rewrite",
    "select",
    "synthesize",
    "union",
]

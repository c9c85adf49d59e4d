"""What type checkers see of `medclip.runs`: every public name as the function that it is.

The namespace is a face for users, and some of its verbs stand in `medclip.api`, above this room. No file of the room
may import them; this stub, which is never run, may name them, so that each has one signature.
"""

from medclip.api.export import export
from medclip.api.report import report
from medclip.api.runs import merge, purge, status
from medclip.embeddings.open_embeddings import open_embeddings
from medclip.runs.outputs.score_run import read_run as read

__all__ = ["export", "merge", "open_embeddings", "purge", "read", "report", "status"]

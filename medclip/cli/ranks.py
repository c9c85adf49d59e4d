"""Commands that `torchrun` starts as several ranks: one of them speaks, and all leave at once."""

from __future__ import annotations

import os
import sys


def speaks() -> bool:
    """Return whether this process prints: the only one, or the first of several. What one rank meets all raise."""
    return os.environ.get("RANK", "0") == "0"


def leave(code: int) -> int:
    """End a rank with an exit code; return it where this process is the only one."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # torch 2.13 sometimes aborts a rank that ends in the usual way ("terminate called without an active
        # exception"), once in some thirty runs of two ranks; torchrun would then report a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code

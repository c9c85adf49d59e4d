"""How large soaks, simulations and fuzz are: whole at night, a tenth of it in CI, with the same seeds."""

from __future__ import annotations

import os


def is_nightly() -> bool:
    """Return whether this is a run at night: `make test-nightly` sets MEDCLIP_NIGHTLY=1."""
    return os.environ.get("MEDCLIP_NIGHTLY") == "1"


def sized(full: int, *, least: int = 1) -> int:
    """Return a number of runs, kills or files: `full` at night, else a tenth of it, but not less than `least`."""
    return full if is_nightly() else max(least, full // 10)

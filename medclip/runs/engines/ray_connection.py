"""The Ray cluster of a run: the caller's, that of RAY_ADDRESS, or one of the run's own on the loopback address.

Ray's usage statistics and dashboard are off. A cluster of a run's own keeps its logs in a temporary folder, which goes
with it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.temporary_folder import TemporaryFolder

_STORE_BYTES = 256 << 20
"""Of the object store of a cluster of our own: plans and rows are small, and pixels never cross."""
_LONGEST_TEMP = 18
"""A longer folder leaves no room for Ray's names of sockets, which end at 107 bytes."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its other meaning: a node of our own listens on the loopback only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@contextmanager
def connected() -> Iterator[Any]:
    """Yield Ray, connected to the caller's cluster, to that of RAY_ADDRESS, or to one of our own on the loopback."""
    address = os.environ.get("RAY_ADDRESS", "")
    own = {name: text for name, text in _SETTINGS.items() if name not in os.environ}
    if "ray" not in sys.modules:
        os.environ.update(own if not address else {"RAY_USAGE_STATS_ENABLED": "0"})
    import ray
    import ray.exceptions

    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "configure_logging": False}
    folder = None
    if not address:
        how |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        if len(tempfile.gettempdir()) <= _LONGEST_TEMP:  # Ray keeps its logs; those of our own end with the run
            folder = TemporaryFolder("ray")
            how["_temp_dir"] = str(folder.path / "r")  # Ray opens its folder to everybody; the one above stays shut
    try:
        try:
            ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError) as e:
            raise MedclipError(
                Reason.WRONG_USE,
                f"no Ray cluster can be reached ({type(e).__name__}).",
                where=address or None,
                hint="Check RAY_ADDRESS, or leave it out for a cluster of this run's own.",
            ) from e
        yield ray
    finally:
        with suppress(Exception):
            ray.shutdown()
        if folder is not None:
            folder.close()

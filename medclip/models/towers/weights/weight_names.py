"""Names and sizes in files of weights, read from their headers: no torch, no weights in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from medclip.errors import MedclipError, Reason

_WRAPPERS = ("module.", "_orig_mod.", "model.", "clip.")
"""What data-parallel wrappers, torch.compile and modules around a model (Lightning's) put before every name."""


def wrapping(names: Iterable[str]) -> str:
    """Return what wrappers put before every name; "" where nothing stands before all of them."""
    names, prefix = list(names), ""
    while names and (more := next((w for w in _WRAPPERS if all(n.startswith(prefix + w) for n in names)), "")):
        prefix += more
    return prefix


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read names and sizes of the tensors in a safetensors file, wrappers' prefixes taken off.

    Raises:
        MedclipError: PACK_INVALID when its header cannot be read.
    """
    try:
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("header")
            header = json.loads(f.read(length))
        sizes = {n: tuple(map(int, v["shape"])) for n, v in header.items() if n != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            "the weights cannot be read.",
            where=path,
            hint="Take the file from its source again.",
        ) from e
    prefix = wrapping(sizes)
    return {n.removeprefix(prefix): size for n, size in sizes.items()}

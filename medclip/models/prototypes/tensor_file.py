"""Write a small file of a pack with tensors and a few texts, equal bytes for equal content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medclip.files.output import new_file


def save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> None:
    """Write a safetensors file whose texts stand in the order of their names.

    The library itself writes texts in the order of a hash map, which is another one in each process.
    """
    from safetensors.numpy import save

    data = save(dict(tensors))
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(about.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with new_file(path) as draft:
        draft.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])

"""The hash of a pack's image tower: equal hashes and equal preprocessing give equal vectors. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import FUSION, WEIGHTS_NAME, read_config
from medclip.models.packs.pack import read_preprocess

_TOWER = "visual."
_NOT_OF_IMAGES = ("text_cfg", FUSION)
"""Parts of a `model_cfg` that no image's vector depends on."""
_AT_ONCE = 1 << 24


def image_tower_digest(pack: Path) -> str:
    """Hash the weights and the architecture of a pack's image tower, and nothing of its text tower, head or card.

    A pack that was adapted without changing the tower has the hash of its base: what was embedded with the one can be
    asked with the other.

    Args:
        pack: A pack's folder, checked before.

    Returns:
        sha256, hex.

    Raises:
        MedclipError: PACK_INVALID for weights that are no safetensors file.
    """
    architecture = {k: v for k, v in read_config(pack)["model_cfg"].items() if k not in _NOT_OF_IMAGES}
    state = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    path = pack / WEIGHTS_NAME
    try:
        with path.open("rb") as file:  # in the order of names: files differ in the order of their tensors
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name in sorted(name for name in header if name.startswith(_TOWER)):
                start, end = header[name]["data_offsets"]
                state.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode())
                file.seek(8 + length + start)
                for place in range(start, end, _AT_ONCE):
                    state.update(file.read(min(_AT_ONCE, end - place)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, "the weights cannot be read.", where=path) from e
    return state.hexdigest()


def pixels_digest(pack: Path) -> str:
    """Hash how a pack brings images to its tower, and nothing of which modalities it was trained on.

    An adapted pack adds the modalities of its shots to those of its base, whose images both treat alike.

    Args:
        pack: A pack's folder, checked before.
    """
    return replace(read_preprocess(pack), adapters={}).digest()

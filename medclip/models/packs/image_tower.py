"""The hash of a pack's image tower: equal hashes and equal preprocessing give equal vectors. No torch here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medclip.models.packs.manifest import FUSION, WEIGHTS_NAME, hash_tensors, read_config
from medclip.models.packs.pack import read_preprocess

_NOT_OF_IMAGES = ("text_cfg", FUSION)
"""Parts of a `model_cfg` that no image's vector depends on."""


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
    return hash_tensors(pack / WEIGHTS_NAME, architecture, of_images=True)


def pixels_digest(pack: Path) -> str:
    """Hash how a pack brings images to its tower, and nothing of which modalities it was trained on.

    An adapted pack adds the modalities of its shots to those of its base, whose images both treat alike.

    Args:
        pack: A pack's folder, checked before.
    """
    return replace(read_preprocess(pack), adapters={}).digest()

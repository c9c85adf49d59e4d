"""Whether a pack makes one vector of the views of an examination. No torch here."""

from __future__ import annotations

from pathlib import Path

from medclip.models.packs.manifest import read_config

FUSION = "fusion"
"""Key of a `model_cfg`, and how the names of its weights begin."""
WITHOUT_FUSION = "What fuses the views of an examination is medclip's own and was left out: single images only."
"""Note of an export to another library."""


def fuses_views(pack: Path) -> bool:
    """Whether a pack has something that fuses views, by its config.

    Raises:
        MedclipError: PACK_INVALID when it has no readable config.
    """
    return read_config(pack)["model_cfg"].get(FUSION) is not None

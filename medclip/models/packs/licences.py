"""The terms of a pack's weights in full, and that they go with the weights into whatever is made of them.

A pack made of others, by training on, merging or exporting, holds what these hold: their texts lie in it. What is
copied file by file (adapted towers that stay, thresholds) has them anyhow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medclip.models.packs.card import read_card
from medclip.models.packs.manifest import LICENCE_NAME

_OF_PACK = re.compile(r"LICENSE\.([A-Za-z0-9_-]+)\.txt")
"""Names of the texts of several packs in one."""


def licence_names(pack: Path) -> tuple[str, ...]:
    """Return the names of the files in a pack, or in its export, that hold the terms of its weights; none for none."""
    return tuple(sorted(p.name for p in pack.iterdir() if _is_text(p.name) and p.is_file()))


def _is_text(name: str) -> bool:
    return name == LICENCE_NAME or _OF_PACK.fullmatch(name) is not None


def licence_files(parents: Iterable[Path]) -> dict[str, bytes]:
    """Return the texts of terms that a pack made of others has to hold, by the name of the file.

    Args:
        parents: The packs that it is made of.

    Returns:
        A text that is the same in several of them once. One alone is LICENSE.txt, of several each is named by the pack
        that it comes from, as LICENSE.medclip-mini.txt. Empty where the packs have none.
    """
    texts: dict[bytes, str] = {}
    for parent in dict.fromkeys(parents):
        for name in licence_names(parent):
            of = _OF_PACK.fullmatch(name)
            known = of[1] if of else re.sub(r"[^A-Za-z0-9_-]+", "-", read_card(parent).name)[:60].strip("-") or "pack"
            texts.setdefault((parent / name).read_bytes(), known)
    if len(texts) == 1:
        return {LICENCE_NAME: next(iter(texts))}
    files: dict[str, bytes] = {}
    for text, known in texts.items():
        name, number = f"LICENSE.{known}.txt", 2
        while name in files:
            name, number = f"LICENSE.{known}-{number}.txt", number + 1
        files[name] = text
    return files

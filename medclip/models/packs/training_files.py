"""The files that a pack was trained on, by the hash of their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.models.card import Card


def training_hashes(pack: Path, card: Card) -> frozenset[str] | None:
    """Read the hashes of a pack's training files.

    Args:
        pack: The pack's folder.
        card: Its card, which names the list.

    Returns:
        sha256 in hex of each training file; None for a pack that does not list them.

    Raises:
        MedclipError: PACK_INVALID when the list that the card names cannot be read.
    """
    if card.train_hashes_file is None:
        return None
    path = pack / card.train_hashes_file
    try:
        return frozenset(path.read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.PACK_INVALID, "the pack's list of training files cannot be read.", where=path) from e

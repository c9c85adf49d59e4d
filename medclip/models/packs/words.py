"""Whether a pack understands words. An image-only pack has no text tower, and says so wherever it is asked in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import read_config

WITHOUT_WORDS = (
    "Without words work: `medclip embed`, `medclip search --like FILE`, `medclip adapt` with a method that needs none "
    "(such as linear-probe) and `medclip score` with the adapted pack."
)


def understands_words(pack: Path) -> bool:
    """Whether a pack has a text tower, by its config; no torch.

    Raises:
        MedclipError: PACK_INVALID when it has no readable config.
    """
    return has_text_tower(read_config(pack)["model_cfg"])


def has_text_tower(model_cfg: Mapping[str, Any]) -> bool:
    """Whether a `model_cfg` describes a text tower."""
    return model_cfg.get("text_cfg") is not None


def refuse_words(pack: Path, name: str, asked: str) -> None:
    """Refuse to ask an image-only pack in words.

    Args:
        pack: Its folder.
        name: Its name.
        asked: What was asked for, as the sentence goes on after "it has none for".

    Raises:
        MedclipError: WRONG_USE.
    """
    if not understands_words(pack):
        raise no_words(name, asked)


def no_words(name: str, asked: str = "") -> MedclipError:
    """Return the error for words that an image-only pack is asked with."""
    wanted = f", which {asked}" if asked else ""
    return MedclipError(
        Reason.WRONG_USE, f"the pack {name} is image only: it has no text tower{wanted}.", hint=WITHOUT_WORDS
    )

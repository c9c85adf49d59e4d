"""Whether a pack understands words. An image-only pack has no text tower, and says so wherever it is asked in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import read_config
from medclip.wording import capital, list_of

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


def no_words(name: str, more: str = "") -> MedclipError:
    """Return the error for words that an image-only pack is asked with.

    Args:
        name: The pack's.
        more: How the sentence goes on, such as ", which the prompt needs".
    """
    return MedclipError(
        Reason.WRONG_USE, f"the pack {name} is image only: it has no text tower{more}.", hint=WITHOUT_WORDS
    )


def unmeasured(titles: Sequence[str]) -> str:
    """Write that tasks are none of the pack's card, so that their answers are worth what they may be.

    Args:
        titles: Of the tasks, at least one.

    Example:
        >>> unmeasured(["Cataract"])
        "Cataract is not a task of the model's card: nobody has measured how good it is there."
    """
    ends = "is not a task" if len(titles) == 1 else "are not tasks"
    return f"{capital(list_of(titles))} {ends} of the model's card: nobody has measured how good it is there."

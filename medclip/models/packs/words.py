"""Whether a pack understands words. An image-only pack has no text tower, and says so wherever it is asked in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card_sources import ALL
from medclip.models.packs.manifest import read_config
from medclip.models.packs.prompt_cautions import card_classes, title_of
from medclip.text.vocabulary.load import load_task, task_names
from medclip.text.vocabulary.task import Task
from medclip.wording import capital, list_of

WITHOUT_WORDS = (
    "Without words work: `medclip embed`, `medclip search --like FILE`, `medclip adapt` with a method that needs none "
    "(such as linear-probe) and `medclip score` with the adapted pack."
)
NO_TASK_OF_CARD = "this is no task of the model’s card"
TRIED = "tried, with "
"""How a reason begins that tells what was measured of what a card does not claim."""


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
        name: Name of the pack.
        more: Continuation of the sentence, such as ", which the prompt needs".
    """
    return MedclipError(
        Reason.WRONG_USE, f"the pack {name} is image only: it has no text tower{more}.", hint=WITHOUT_WORDS
    )


def tried(card: Any, task: str, name: str = "") -> str:
    """Return what was measured of a task or a class that a card does not claim, as half a sentence.

    Args:
        card: Card of the pack.
        task: The task.
        name: Name of one of the task's classes; empty for all that were tried.

    Returns:
        Such as "tried, with AUROC 0.45 (0.30 to 0.62), chance 0.50; not told from chance, so not claimed"; blank where
        the card says nothing of it.
    """
    of: Mapping[str, Any] = getattr(card, "not_claimed", {}).get(task, {})
    if one := of.get(name) or of.get(ALL):
        return f"{TRIED}{one.in_words}"
    if name or not of:
        return ""
    return TRIED + "; ".join(f"{title_of(task, key)} {one.in_words}" for key, one in of.items())


def tried_of_words(card: Any, texts: Collection[str]) -> str:
    """Return what was measured of the classes that words name, and is not claimed; blank where nothing was.

    Args:
        card: Card of the pack.
        texts: Ways to say a prompt.
    """
    listed: Mapping[str, Mapping[str, Any]] = getattr(card, "not_claimed", {})
    known = {
        task: [c.name for c in load_task(task).classes] if ALL in of else [*of]
        for task, of in listed.items()
        if ALL not in of or task in task_names()
    }
    sentences = {}
    for task, name in card_classes(texts, known):
        about = load_task(task).title if task in task_names() else capital(task.replace("_", " "))
        what = about if ALL in listed[task] else f"{title_of(task, name)} ({about})"
        sentences[what] = f"{what} was {tried(card, task, name)}"
    return "; ".join(sentences.values())


def unmeasured(card: Any, tasks: Sequence[Task]) -> tuple[str, ...]:
    """Write that tasks are none of the pack's card, so that their answers are worth what they may be.

    Args:
        card: Card of the pack.
        tasks: The tasks.

    Returns:
        A sentence for each that was tried, with what was measured, and one for all others; none where there is no task.
    """
    sentences = [
        f"{capital(task.title)} is not a task of the model's card: {text}."
        for task in tasks
        if (text := tried(card, task.name))
    ]
    if titles := [task.title for task in tasks if not tried(card, task.name)]:
        ends = "is not a task" if len(titles) == 1 else "are not tasks"
        sentences.append(
            f"{capital(list_of(titles))} {ends} of the model's card: nobody has measured how good it is there."
        )
    return tuple(sentences)

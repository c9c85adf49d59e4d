"""What must stand beside an answer to a person's own words: what the card says of the classes that they name.

Another wording of a finding is no other finding: where the figure of "pneumonia" holds within its source only, nobody
knows better of "signs of pneumonia".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from medclip.models.packs.card_sources import caution_of
from medclip.text.free_text.mentions import mentioned
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, spoken_names
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of

Pair = tuple[str, str]
"""A task and a class of it."""


def vocabulary_classes(texts: Iterable[str]) -> frozenset[Pair]:
    """Return the classes of the vocabulary that texts speak of, affirmed or denied; modalities are none."""
    known = [name for name in spoken_names() if name != MODALITY_TASK]
    return frozenset((task, name) for task in known for text in texts for name in mentioned(task, text))


def card_classes(texts: Collection[str], listed: Mapping[str, Collection[str]]) -> tuple[Pair, ...]:
    """Return the classes of a card that texts name, by the words of the vocabulary or by their own names.

    Args:
        texts: Ways to say a prompt.
        listed: Classes of the card's tasks.

    Example:
        >>> card_classes(["signs of pneumonia"], {"chest_xray_findings": ["effusion", "pneumonia"]})
        (('chest_xray_findings', 'pneumonia'),)
    """
    named, text = vocabulary_classes(texts), " | ".join(texts).lower()
    pairs = [(task, name) for task, names in listed.items() if task != MODALITY_TASK for name in names]
    return tuple(pair for pair in pairs if pair in named or _pattern(*pair).search(text))


@lru_cache(maxsize=4096)
def _pattern(task: str, name: str) -> re.Pattern[str]:
    """Return what finds the printed name of a class."""
    return re.compile(rf"\b{re.escape(title_of(task, name).lower())}\b")


def title_of(task: str, name: str) -> str:
    """Return the printed name of a class: the vocabulary's, or its key with blanks."""
    titles = {c.name: c.title for c in load_task(task).classes} if task in spoken_names() else {}
    return titles.get(name, name.replace("_", " "))


def card_cautions(card: Any) -> dict[str, dict[str, str]]:
    """Return what a card says must stand beside answers, by task and class; only where something must."""
    by_task = {
        task: {name: caution for name in entry.classes if (caution := caution_of(entry.sources, name))}
        for task, entry in card.tasks.items()
    }
    return {task: cautions for task, cautions in by_task.items() if cautions}


def prompt_cautions(prompts: Iterable[Prompt], cautions: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return what must stand beside the answers to prompts, by their names; only where something must.

    Args:
        prompts: As asked; what they are compared with is not looked at.
        cautions: As `card_cautions` returns them.

    Example:
        >>> from medclip.text.vocabulary.own_words import read_prompts
        >>> of_card = {"chest_xray_findings": {"pneumonia": "within its source only (nih_cxr)"}}
        >>> prompt_cautions(read_prompts(["signs of pneumonia", "a glioma"]), of_card)
        {'signs of pneumonia': 'within its source only (nih_cxr)'}
    """
    beside = {}
    for prompt in prompts:
        named = card_classes(prompt.texts, cautions)
        if different := list(dict.fromkeys(cautions[task][name] for task, name in named)):
            beside[prompt.name] = list_of(different, last="and")
    return beside

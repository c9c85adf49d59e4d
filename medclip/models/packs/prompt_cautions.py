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
from medclip.text.checks.closed_words import IMAGE_TASKS, Pair, also_said_of, image_classes, modality_words
from medclip.text.mentions import mentioned
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, spoken_names
from medclip.text.vocabulary.own_words import Prompt
from medclip.wording import list_of

_MOST_SHOWN = 6
"""Classes that are named of those that are not answered."""


def vocabulary_classes(texts: Iterable[str]) -> frozenset[Pair]:
    """Return the classes of the vocabulary that texts speak of, affirmed or denied; modalities are none."""
    known = [name for name in spoken_names() if name != MODALITY_TASK]
    return frozenset((task, name) for task in known for text in texts for name in mentioned(task, text))


def card_classes(texts: Collection[str], listed: Mapping[str, Collection[str]]) -> tuple[Pair, ...]:
    """Return the classes of a card that texts name, by the words of the vocabulary or by their own names.

    A modality or a body region is one only of texts that name nothing else, as `image_classes`; where a finding is said
    of a modality, it is none of tasks about others: "a malignant mass on ultrasound" is not a mammogram's.

    Args:
        texts: Ways to say a prompt.
        listed: Classes of the card's tasks.

    Example:
        >>> card_classes(["signs of pneumonia"], {"chest_xray_findings": ["effusion", "pneumonia"]})
        (('chest_xray_findings', 'pneumonia'),)
        >>> card_classes(["a brain MRI"], {"modality": ["ct", "mri"]})
        (('modality', 'mri'),)
    """
    named, text = vocabulary_classes(texts), " | ".join(texts).lower()
    pairs = [(task, name) for task, names in listed.items() for name in names]
    findings = [pair for pair in pairs if pair[0] not in IMAGE_TASKS and _may_be_of(pair[0], text)]
    of_findings = tuple(pair for pair in findings if pair in named or _pattern(*pair).search(text))
    if of_findings or named:
        return of_findings
    of_image = image_classes(texts)
    return tuple(pair for pair in pairs if pair in of_image)


def _may_be_of(task: str, text: str) -> bool:
    """Return whether a text may speak of images that a task is about: it names their modality, or none."""
    about = load_task(task).modalities if task in spoken_names() else ()
    spoken_of = {str(name) for name, words in modality_words().items() if words.search(text)}
    fitting = {*about, *(other for name in about for other in also_said_of(name))}
    return not about or not spoken_of or bool(spoken_of & {str(name) for name in fitting})


@lru_cache(maxsize=4096)
def _pattern(task: str, name: str) -> re.Pattern[str]:
    """Return what finds the printed name of a class."""
    return re.compile(rf"\b{re.escape(title_of(task, name).lower())}\b")


def title_of(task: str, name: str) -> str:
    """Return the printed name of a class: the vocabulary's, or its key with blanks."""
    titles = {c.name: c.title for c in load_task(task).classes} if task in spoken_names() else {}
    return titles.get(name, name.replace("_", " "))


def unanswered(task: str, classes: Collection[str]) -> str:
    """Write which classes of the vocabulary a card does not list of a task that it lists; blank where it has all.

    Args:
        task: Name of the task.
        classes: Classes of the card.

    Example:
        >>> unanswered("ecg_superclass", ["norm", "sttc", "cd"])
        'not answered: myocardial infarction, hypertrophy'
    """
    names = [c.name for c in load_task(task).classes] if task in spoken_names() else []
    lacking = [printed_in_sentence(task, name) for name in names if name not in classes]
    if not lacking or len(lacking) == len(names):
        return ""
    shown, more = lacking[:_MOST_SHOWN], len(lacking) - _MOST_SHOWN
    return f"not answered: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def printed_in_sentence(task: str, name: str) -> str:
    """Return the printed name of a class as it stands within a sentence: abbreviations stay as they are.

    Example:
        >>> printed_in_sentence("ecg_superclass", "hyp"), printed_in_sentence("modality", "xray")
        ('hypertrophy', 'X-ray')
    """
    title = title_of(task, name)
    return title if title[1:2] in ("", "-") or title[1:2].isupper() else title[:1].lower() + title[1:]


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
        prompts: Prompts as asked; what they are compared with is not looked at.
        cautions: Cautions as `card_cautions` returns them.

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

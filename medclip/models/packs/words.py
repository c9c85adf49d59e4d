"""Whether a pack understands words, and what its card says of those that a person asks with.

An image-only pack has no text tower, and says so wherever it is asked in words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.packs.card_sources import ALL, caution_of
from medclip.models.packs.manifest import read_config
from medclip.text.checks.closed_words import IMAGE_TASKS, Pair, also_said_of, image_classes, modality_words
from medclip.text.mentions import mentioned
from medclip.text.vocabulary.load import MODALITY_TASK, load_task, spoken_names, task_names
from medclip.text.vocabulary.own_words import Prompt
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
    """Return what was measured of the classes that words name, and is not claimed; blank where nothing was."""
    listed: Mapping[str, Mapping[str, Any]] = getattr(card, "not_claimed", {})
    tried_classes = {
        task: [c.name for c in load_task(task).classes] if ALL in of else [*of]
        for task, of in listed.items()
        if ALL not in of or task in task_names()
    }
    sentences = {}
    for task, name in card_classes(texts, tried_classes):
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


_MOST_SHOWN = 6
"""Classes that are named of those that are not answered."""


def vocabulary_classes(texts: Iterable[str]) -> frozenset[Pair]:
    """Return the classes of the vocabulary that texts speak of, affirmed or denied; modalities are none."""
    tasks = [name for name in spoken_names() if name != MODALITY_TASK]
    return frozenset((task, name) for task in tasks for text in texts for name in mentioned(task, text))


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
    first, more = lacking[:_MOST_SHOWN], len(lacking) - _MOST_SHOWN
    return f"not answered: {', '.join(first)}{f' and {more} more' if more > 0 else ''}"


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

    Another wording of a finding is no other finding: where the figure of "pneumonia" holds within its source only,
    nobody knows better of "signs of pneumonia".

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

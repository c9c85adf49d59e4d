"""Prompts: a task's wordings put into its templates, and tasks made of one sentence on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.task import Task, TaskClass

AD_HOC = "prompt"
"""Name of the task that a person's own sentence makes."""


@dataclass(frozen=True)
class ClassPrompts:
    """Every sentence that stands for one class."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    """Empty for multi-class tasks."""


def expand(task: Task, classes: Sequence[str] | None = None) -> tuple[ClassPrompts, ...]:
    """Put every wording into every template.

    Args:
        task: The vocabulary entry.
        classes: The classes to use, in this order; all of the task's where None.

    Returns:
        One entry per class; sentences are distinct, in the order template by wording.

    Raises:
        MedclipError: TABLE_INVALID for a class that the task does not have or that is named twice, WRONG_USE for none.

    Example:
        >>> from medclip.text.vocabulary.load import load_task
        >>> expand(load_task("fundus_cataract"))[0].negative[0]
        'no cataract'
    """
    chosen = task.classes if classes is None else tuple(task.class_named(c) for c in classes)
    if not chosen:
        raise MedclipError(Reason.WRONG_USE, f"no class of task {task.name} was named.")
    if len({c.name for c in chosen}) != len(chosen):
        raise MedclipError(Reason.TABLE_INVALID, f"a class of task {task.name} is named twice.")
    return tuple(
        ClassPrompts(c.name, _fill(task.templates, c.prompts), _fill(task.templates, c.negative_prompts))
        for c in chosen
    )


def ad_hoc_task(prompt: str, against: str | None = None) -> Task:
    """Make a one-class task of a sentence given by a person.

    Args:
        prompt: What the image may show, e.g. "a pacemaker".
        against: The opposite; "no {prompt}" (without a leading article) where None.

    Returns:
        A multi-label task without templates; its class is named by the prompt itself.

    Raises:
        MedclipError: WRONG_USE when the prompt is empty or equals its opposite.
    """
    sentence = " ".join(prompt.split())
    if not sentence:
        raise MedclipError(Reason.WRONG_USE, "the prompt is empty.", hint="Say what the image may show.")
    denied = opposite(sentence, against)
    if denied.lower() == sentence.lower():
        raise MedclipError(Reason.WRONG_USE, "the prompt and what it is compared against are the same sentence.")
    return Task(
        name=AD_HOC,
        title=sentence,
        kind="multilabel",
        modalities=(),
        templates=("{}",),
        classes=(TaskClass(sentence, sentence, (sentence,), (denied,), nouns=(sentence,)),),
    )


def opposite(prompt: str, against: str | None = None) -> str:
    """Return what a prompt is compared with: what was named, else "no {prompt}" without its article."""
    named = " ".join((against or "").split())
    return named or "no " + without_article(" ".join(prompt.split()))


def without_article(phrase: str) -> str:
    """Drop a leading "a", "an" or "the", so that the phrase fits after "no"."""
    return re.sub(r"^(a|an|the)\s+", "", phrase, flags=re.IGNORECASE)


def _fill(templates: Sequence[str], wordings: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(t.replace("{}", w) for t in templates for w in wordings))

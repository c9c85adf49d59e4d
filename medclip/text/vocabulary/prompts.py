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


def ad_hoc_task(prompts: Sequence[str], against: Sequence[str] = ()) -> Task:
    """Make a task of sentences given by a person, one class each.

    Args:
        prompts: What the image may show, e.g. "a pacemaker".
        against: The opposite of each; "no {prompt}" (without a leading article) where there is none.

    Returns:
        A multi-label task without templates; each class is named by its prompt itself.

    Raises:
        MedclipError: WRONG_USE when a prompt is empty, stands twice or equals its opposite, or where there are
            opposites and not one for each prompt.
    """
    sentences = [" ".join(prompt.split()) for prompt in prompts]
    if not sentences or not all(sentences):
        raise MedclipError(Reason.WRONG_USE, "the prompt is empty.", hint="Say what the image may show.")
    if len(set(sentences)) < len(sentences):
        raise MedclipError(Reason.WRONG_USE, "a prompt stands twice.", hint="Name each once.")
    if against and len(against) != len(sentences):
        raise MedclipError(
            Reason.WRONG_USE,
            f"prompts and what they are compared with come in pairs: {len(sentences)} and {len(against)} were given.",
            hint="Name one --against for each --prompt, in their order, or none.",
        )
    denied = [opposite(s, other) for s, other in zip(sentences, against or [None] * len(sentences), strict=True)]
    if any(one.lower() == other.lower() for one, other in zip(sentences, denied, strict=True)):
        raise MedclipError(Reason.WRONG_USE, "the prompt and what it is compared against are the same sentence.")
    return Task(
        name=AD_HOC,
        title=sentences[0] if len(sentences) == 1 else "In your own words",
        kind="multilabel",
        modalities=(),
        templates=("{}",),
        classes=tuple(TaskClass(s, s, (s,), (no,), nouns=(s,)) for s, no in zip(sentences, denied, strict=True)),
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

"""Prompts: a task's wordings put into its templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medclip.errors import MedclipError, Reason
from medclip.text.vocabulary.task import Task


@dataclass(frozen=True)
class ClassPrompts:
    """Every sentence that stands for one class."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    """Empty for multi-class tasks."""
    by_template: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """The same sentences, positive and negative ones of each template."""


def expand(task: Task, classes: Sequence[str] | None = None) -> tuple[ClassPrompts, ...]:
    """Put every wording into every template.

    Args:
        task: The vocabulary entry.
        classes: The classes to use, in this order; all of the task's where None.

    Returns:
        One entry per class; sentences are distinct, in the order template by wording.

    Raises:
        MedclipError: TABLE_INVALID for a class that the task does not have or that is named twice, WRONG_USE for none,
            NO_TASK for a task that has no words (a risk).

    Example:
        >>> from medclip.text.vocabulary.load import load_task
        >>> expand(load_task("fundus_cataract"))[0].negative[0]
        'no cataract'
    """
    chosen = task.classes if classes is None else tuple(task.class_named(c) for c in classes)
    if not task.has_words:
        raise MedclipError(
            Reason.NO_TASK,
            f"{task.name} is a risk: it is asked of a head that was trained on follow-up, not of words.",
            hint="Use a model pack with a head for it.",
        )
    if not chosen:
        raise MedclipError(Reason.WRONG_USE, f"no class of task {task.name} was named.")
    if len({c.name for c in chosen}) != len(chosen):
        raise MedclipError(Reason.TABLE_INVALID, f"a class of task {task.name} is named twice.")
    return tuple(
        ClassPrompts(
            c.name,
            fill(task.templates, c.prompts),
            fill(task.templates, c.negative_prompts),
            tuple((fill([t], c.prompts), fill([t], c.negative_prompts)) for t in task.templates),
        )
        for c in chosen
    )


def without_article(phrase: str) -> str:
    """Drop a leading "a", "an" or "the", so that the phrase fits after "no"."""
    return re.sub(r"^(a|an|the)\s+", "", phrase, flags=re.IGNORECASE)


def fill(templates: Sequence[str], wordings: Sequence[str]) -> tuple[str, ...]:
    """Combine every wording with every template; sentences are distinct, in the order template by wording."""
    return tuple(dict.fromkeys(t.replace("{}", w) for t in templates for w in wordings))

"""The words of a task's classes: prompts to encode, and phrases to put learned context around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medclip.models.prototypes.class_vectors import ClassVectors, TextEncoder, class_vectors
from medclip.text.vocabulary.prompts import expand
from medclip.text.vocabulary.task import Task
from medclip.text.vocabulary.task_kinds import TaskKind


@dataclass(frozen=True)
class ClassText:
    """What is said of each class."""

    task: Task
    names: tuple[str, ...]
    """Of the classes, in the order of logits."""

    @property
    def kind(self) -> str:
        """Name of the task's kind."""
        return self.task.kind

    @property
    def rules(self) -> TaskKind:
        """The row of the task's kind."""
        return self.task.rules

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the classes that are steps of a scale, from the lowest to the highest; empty without an order."""
        return self.task.step_numbers(self.names)

    @property
    def phrases(self) -> tuple[str, ...]:
        """One phrase for each class: its first wording."""
        return tuple(self.task.class_named(n).prompts[0] for n in self.names)

    @property
    def negative_phrases(self) -> tuple[str, ...]:
        """One phrase that denies each class; empty for tasks with one answer."""
        if not self.rules.independent:
            return ()
        return tuple(self.task.class_named(n).negative_prompts[0] for n in self.names)

    def positive(self) -> tuple[tuple[str, ...], ...]:
        """Every sentence that says a class is there, by class."""
        return tuple(p.positive for p in expand(self.task, self.names))

    def negative(self) -> tuple[tuple[str, ...], ...]:
        """Every sentence that says it is not, by class; empty for tasks with one answer."""
        return tuple(p.negative for p in expand(self.task, self.names)) if self.rules.independent else ()

    def vectors(self, model: TextEncoder) -> ClassVectors:
        """Encode all prompts into class vectors, as zero-shot scoring does."""
        return class_vectors(model, self.task, self.names)


def class_text(task: Task, names: Sequence[str] | None = None) -> ClassText:
    """Choose classes of a task.

    Args:
        task: The vocabulary entry, or a task of one's own.
        names: Classes in the order of logits; all of the task's where None.

    Raises:
        MedclipError: TABLE_INVALID for a class that the task does not have.
    """
    chosen = tuple(c.name for c in task.classes) if names is None else tuple(task.class_named(n).name for n in names)
    return ClassText(task, chosen)

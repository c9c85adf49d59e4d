"""Sets that ask a task of the vocabulary: its sentences stand for the classes, as `medclip score` asks them."""

from __future__ import annotations

from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.evaluation.zero_shot.suite import SetFile, SuiteFile
from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.prompts import expand

ABSENT, PRESENT = "absent", "present"
"""Classes of a set that asks for one finding."""


def with_vocabulary(suite: SuiteFile, card: Any) -> SuiteFile:
    """Return a suite whose sets have the sentences of the vocabulary where they name a task.

    Args:
        suite: Suite as it was read.
        card: Card of the pack: of a task that it lists its own classes are asked. Images of others are left out, and so
            are sets that hold nothing else.

    Raises:
        MedclipError: TABLE_INVALID for a task or class that the vocabulary does not have, or a finding of a task of
            which one class alone is true.
    """
    filled = (_filled(part, card) for part in suite.sets)
    return suite.model_copy(update={"sets": tuple(part for part in filled if part is not None)})


def _filled(part: SetFile, card: Any) -> SetFile | None:
    if part.task is None or part.classes:
        return part
    task = load_task(part.task)
    if task.rules.independent != (part.finding is not None):
        needs = "name one of its findings" if part.finding is None else "it has no findings; leave `finding` out"
        raise MedclipError(Reason.TABLE_INVALID, f"set {part.id}: the task {task.name} is {task.kind}; {needs}.")
    if part.finding is not None:
        (prompts,) = expand(task, [part.finding])
        sentences = {ABSENT: prompts.negative, PRESENT: prompts.positive}
    else:
        entry = card.tasks.get(task.name)
        known = None if entry is None else list(entry.classes)
        sentences = {prompts.name: prompts.positive for prompts in expand(task, known)}
        if strange := sorted({v for v in part.values.values() if v} - {c.name for c in task.classes}):
            raise MedclipError(
                Reason.TABLE_INVALID, f"set {part.id}: values names a class that {task.name} has not: {strange[0]}."
            )
    if part.constant is not None and part.constant not in sentences:
        return None
    values = {cell: name if name in sentences else None for cell, name in part.values.items()}
    classes = [{"name": name, "prompts": texts} for name, texts in sentences.items()]
    return SetFile.model_validate(part.model_dump() | {"classes": classes, "values": values})

"""Which question of a pack answers a label of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.adaptation.data.task import class_said, find_task
from medclip.adaptation.pack.pack_head import read_pack_text
from medclip.runs.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, asked_tasks


@dataclass(frozen=True)
class Question:
    """One class of one task of a pack."""

    asked: AskedTask
    place: int
    """Of the class among `asked.names`."""

    @property
    def name(self) -> str:
        """Return task and class as `medclip score` writes them."""
        return f"{self.asked.task.name}:{self.asked.names[self.place]}"


def pack_tasks(model: Any, modality: Modality, task: str | Path | None = None) -> tuple[AskedTask, ...]:
    """List the tasks of a pack that can be asked of a modality.

    Args:
        model: A loaded pack.
        modality: Of the images.
        task: The only one that is wanted, by name or as a task file; None: all that the card lists.

    Raises:
        MedclipError: WRONG_USE or NO_TASK for a task that there is none of.
    """
    own = read_pack_text(model.path, model.card)
    if task is not None and Path(task).suffix.lower() in (".yaml", ".yml"):
        return (AskedTask(find_task(task), None, None, listed=False),)
    options = ScoreOptions(tasks=() if task is None else (str(task),))
    return tuple(a for a in asked_tasks(model.card, options, own) if task is not None or a.fits_modality(modality))


def questions_of(label: str, tasks: Sequence[AskedTask]) -> tuple[Question, ...]:
    """List the classes that a label may mean, by name, title or wording; none, one, or one in each of several tasks.

    Args:
        label: As the audit names it; `column: label` where two columns have one.
        tasks: From `pack_tasks`.
    """
    meant: list[Question] = []
    for asked in tasks:
        for text in (label, label.rpartition(": ")[2]):
            named = class_said(asked.task, text)
            if named is not None and named.name in asked.names:
                meant.append(Question(asked, asked.names.index(named.name)))
                break
        else:
            if len(asked.names) == 1 and label.casefold() == asked.task.name.casefold():
                meant.append(Question(asked, 0))
    return tuple(meant)

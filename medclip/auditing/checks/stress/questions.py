"""Which question of a pack answers a label of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.adaptation.pack.pack_head import read_pack_texts
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, asked_tasks, check_words
from medclip.text.vocabulary.find_task import class_said, find_task


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
        modality: Modality of the images.
        task: The only one that is wanted, by name or as a task file; None: all that the card lists.

    Raises:
        MedclipError: WRONG_USE or NO_TASK for a task that there is none of; WRONG_USE for one that an image-only pack
            was not adapted to.
    """
    own = read_pack_texts(model.path, model.card)
    if task is not None and Path(task).suffix.lower() in (".yaml", ".yml"):
        asked: tuple[AskedTask, ...] = (AskedTask(find_task(task), None, None, listed=False),)
    else:
        options = ScoreOptions(tasks=() if task is None else (str(task),))
        known = asked_tasks(model.card, options, own)
        asked = tuple(a for a in known if task is not None or a.fits_modality(modality))
    check_words(Path(model.path), model.card, asked, own)
    return asked


def questions_of(label: str, tasks: Sequence[AskedTask]) -> tuple[Question, ...]:
    """List the classes that a label may mean, by name, title or wording; none, one, or one in each of several tasks.

    Args:
        label: Name of a label, as the audit has it; `column: label` where two columns have one.
        tasks: Tasks from `pack_tasks`.
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

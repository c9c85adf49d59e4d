"""The head of an adapted pack: what scoring asks instead of the prompts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.heads import Head, load_head
from medclip.errors import MedclipError, Reason
from medclip.models.card import Card
from medclip.text.vocabulary.load import parse_task

HEAD_FILE = "adapted.safetensors"
TASK_FILE = "task.yaml"
SHOTS_FILE = "shots.csv"


@dataclass(frozen=True, eq=False)
class PackHead:
    """A pack's own task and how it is answered."""

    text: ClassText
    head: Head


def read_pack_text(folder: Path, card: Card) -> ClassText | None:
    """Read the task that a pack was adapted to, with the classes it knows; None for a pack that was not adapted.

    Raises:
        MedclipError: PACK_INVALID where the card promises it and it cannot be read.
    """
    if card.adapted is None:
        return None
    name, path = card.adapted.task, folder / TASK_FILE
    try:
        task = parse_task(path.read_text(encoding="utf-8"), where=path)
        if task.name != name or name not in card.tasks:
            raise MedclipError(Reason.PACK_INVALID, f"{TASK_FILE} is not of the card's task {name}.", where=folder)
        return class_text(task, card.tasks[name].classes)
    except (OSError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"the pack has no readable {TASK_FILE}.", where=folder) from e
    except MedclipError as e:
        raise MedclipError(Reason.PACK_INVALID, e.message, where=folder, hint=e.hint) from e


def read_pack_head(folder: Path, card: Card) -> PackHead | None:
    """Read the head of an adapted pack; None for a pack that was not adapted.

    Raises:
        MedclipError: PACK_INVALID where the card promises one and it cannot be read.
    """
    text = read_pack_text(folder, card)
    if text is None or card.adapted is None:
        return None
    try:
        return PackHead(text, load_head(card.adapted.head, read_arrays(folder / HEAD_FILE)))
    except MedclipError as e:
        raise e.at(folder) from e


def read_arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """Read the arrays of a head.

    Raises:
        MedclipError: PACK_INVALID when the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"{path.name} cannot be read.", where=path.parent) from e

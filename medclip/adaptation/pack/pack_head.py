"""The heads of a pack: what scoring asks instead of the prompts, each bound to its task by name. Imports no torch.

A pack that was adapted to one task has its head in `adapted.safetensors` and the task in `task.yaml`. One that was
trained with several has their arrays as TASK/ARRAY in `heads.safetensors`, and in `heads.json` of each task the kind
of its head, its classes in the order of logits, what level it answers for, and the task itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medclip.adaptation.data.class_text import ClassText, class_text
from medclip.adaptation.data.heads import Head, load_head
from medclip.errors import MedclipError, Reason
from medclip.models.packs.card import Card
from medclip.text.vocabulary.find_task import to_yaml
from medclip.text.vocabulary.load import parse_task

HEAD_FILE = "adapted.safetensors"
TASK_FILE = "task.yaml"
SHOTS_FILE = "shots.csv"
HEADS_FILE, HEADS_TABLE = "heads.safetensors", "heads.json"


@dataclass(frozen=True, eq=False)
class PackHead:
    """A pack's own task and how it is answered."""

    text: ClassText
    head: Head


def read_pack_texts(folder: Path, card: Card) -> dict[str, ClassText]:
    """Read the tasks that a pack has heads for, by name, with the classes they know; none for any other pack.

    Raises:
        MedclipError: PACK_INVALID where the card or `heads.json` promises a task and it cannot be read.
    """
    texts = {name: _text(folder, card, name, entry["task"]) for name, entry in _table(folder).items()}
    if card.adapted is None:
        return texts
    path = folder / TASK_FILE
    try:
        return texts | {card.adapted.task: _text(folder, card, card.adapted.task, path.read_text(encoding="utf-8"))}
    except (OSError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"the pack has no readable {TASK_FILE}.", where=folder) from e


def read_pack_heads(folder: Path, card: Card) -> dict[str, PackHead]:
    """Read the heads of a pack by the names of their tasks; none for a pack without any.

    Raises:
        MedclipError: PACK_INVALID where the card or `heads.json` promises one and it cannot be read.
    """
    texts, table = read_pack_texts(folder, card), _table(folder)
    every = read_arrays(folder / HEADS_FILE) if table else {}
    heads = {}
    try:
        for name, text in texts.items():
            if card.adapted is not None and name == card.adapted.task:
                heads[name] = PackHead(text, load_head(card.adapted.head, read_arrays(folder / HEAD_FILE)))
            else:
                heads[name] = PackHead(text, load_head(str(table[name]["kind"]), arrays_of(every, name)))
    except MedclipError as e:
        raise e.at(folder) from e
    return heads


def heads_table(texts: Mapping[str, ClassText], kinds: Mapping[str, str]) -> str:
    """Write `heads.json`.

    Args:
        texts: The tasks by name, with the classes in the order of logits.
        kinds: Kinds of the heads, by task.
    """
    entries = {
        name: {
            "kind": kinds[name],
            "classes": list(text.names),
            "level": text.task.level,
            "task": to_yaml(text.task),
        }
        for name, text in texts.items()
    }
    return json.dumps(entries, indent=1) + "\n"


def arrays_of(every: Mapping[str, NDArray[Any]], task: str) -> dict[str, NDArray[Any]]:
    """Pick the arrays of one task from those of several heads, TASK/ARRAY."""
    prefix = f"{task}/"
    return {name.removeprefix(prefix): value for name, value in every.items() if name.startswith(prefix)}


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


def _table(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    path = folder / HEADS_TABLE
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(entry["kind"], str) and isinstance(entry["task"], str) for entry in table.values())
    except (OSError, ValueError, AttributeError, KeyError, TypeError, AssertionError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"{HEADS_TABLE} cannot be read.", where=folder) from e
    return table


def _text(folder: Path, card: Card, name: str, content: str) -> ClassText:
    try:
        task = parse_task(content, where=folder / TASK_FILE)
        if task.name != name or name not in card.tasks:
            raise MedclipError(Reason.PACK_INVALID, f"{TASK_FILE} is not of the card's task {name}.", where=folder)
        return class_text(task, card.tasks[name].classes)
    except MedclipError as e:
        raise MedclipError(Reason.PACK_INVALID, e.message, where=folder, hint=e.hint) from e

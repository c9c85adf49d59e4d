"""What is asked of the images: a task of the vocabulary, of a file of one's own, or made of a table's columns."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from medclip.text.vocabulary.load import SUFFIX, load_task, parse_task, read_own, task_names
from medclip.text.vocabulary.task import Task, TaskClass
from medclip.wording import capital

_LEFT_OUT = ("", [], {}, None)
_SHORTEST, _LONGEST = 2, 100
"""Letters of a wording that is made of a column's name; sentences with it may have 200."""


def find_task(task: Task | str | Path) -> Task:
    """Return a task.

    Args:
        task: The task itself, a name of the vocabulary, or a YAML file, which may be a short one.

    Raises:
        MedclipError: NO_TASK naming those there are; TABLE_INVALID or MISSING_FILE for a file that is not one.
    """
    if isinstance(task, Task):
        return task
    path = Path(task)
    if str(task) not in task_names() and (path.suffix.lower() in (SUFFIX, ".yml") or os.path.isfile(path)):
        return parse_task(read_own(path), where=path, short_name=key_of(path.stem) or "own_task")
    return load_task(str(task))


def made_of_values(
    column: str, values: Sequence[str], modalities: Sequence[str], *, ordered: bool = False
) -> tuple[Task, Mapping[str, str]]:
    """Make a multi-class task of the values of a column.

    Args:
        column: Name of the column, which names the task.
        values: The distinct cells, as `plain` writes them.
        modalities: Modalities of the images; where there is one, a template names it.
        ordered: Whether the values are steps of a scale, in their order.

    Returns:
        The task, and the class's name by value.
    """
    classes: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for number, value in enumerate(values if ordered else sorted(values), 1):
        bare = len(value) < _SHORTEST or not any(c.isalpha() for c in value)
        wording = f"{plain(column)[:_LONGEST]} {value}" if bare else value
        name = key_of(wording) or f"class_{number}"
        name = name if name not in classes else f"{name}_{number}"
        classes[name] = _class(name, wording)
        names[value] = name
    kind = "ordinal" if ordered else "multiclass"
    return _made(column, kind, modalities, list(classes.values())), names


def made_of_columns(columns: Sequence[str], modalities: Sequence[str]) -> Task:
    """Make a multi-label task of columns of 0 and 1: one class each, in their order.

    Raises:
        MedclipError: TABLE_INVALID for two columns that are called alike.
    """
    classes = []
    for number, column in enumerate(columns, 1):
        wording = _words(column, "finding")
        classes.append(_class(key_of(wording) or f"finding_{number}", wording))
    return _made(columns[0] if len(columns) == 1 else "findings", "multilabel", modalities, classes)


def made_of_masks(column: str, modalities: Sequence[str]) -> Task:
    """Make a task of a column that names files of masks: one structure, called as the column is."""
    wording = _words(column, "structure")
    return _made(column, "map", modalities, [_class(key_of(wording) or "structure", wording)])


def class_said(task: Task, value: str) -> TaskClass | None:
    """Find the class that a cell or a column's name means: by its name, title, SCP-ECG code or one of its wordings."""
    meant = plain(value)
    for c in task.classes:
        if meant in {plain(w) for w in (c.name, c.title, c.codes.get("scp", ""), *c.prompts, *c.nouns)}:
            return c
    return None


def plain(text: str) -> str:
    """Return a text as it is compared: lower case, underscores and runs of blanks as one blank.

    Example:
        >>> plain(" Pleural_Thickening ")
        'pleural thickening'
    """
    return " ".join(text.replace("_", " ").casefold().split())


def key_of(text: str) -> str:
    """Turn words into a key of lower-case letters, digits and underscores; "" where that leaves nothing.

    Example:
        >>> key_of("No tumour (T2)"), key_of("3 + 4")
        ('no_tumour_t2', 'n3_4')
    """
    key = re.sub(r"[^a-z0-9]+", "_", text.casefold()).strip("_")
    return key if not key or key[0].isalpha() else f"n{key}"


def to_yaml(task: Task) -> str:
    """Write a task as a whole task file; `parse_task` gives it back."""
    import yaml

    unsaid = {f.name: f.default for f in fields(Task)}

    def bare(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in values.items()
            if v not in ((), *_LEFT_OUT) and (k not in unsaid or v != unsaid[k])
        }

    classes = [bare(c) for c in asdict(task)["classes"] if not task.rules.timed]
    mapping = bare({**asdict(task), "modalities": tuple(str(m) for m in task.modalities), "classes": ()})
    mapping |= {"modalities": mapping.get("modalities", []), "classes": classes}
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)


def _class(name: str, wording: str) -> dict[str, Any]:
    return {"name": name, "title": capital(wording), "prompts": [wording]}


def _words(column: str, kind: str) -> str:
    """Return the words of a column's name, neither too short nor too long for a wording."""
    text = plain(column)[:_LONGEST]
    return text if len(text) >= _SHORTEST else f"{kind} {text}"


def _made(name: str, kind: str, modalities: Sequence[str], classes: list[dict[str, Any]]) -> Task:
    import yaml

    key = key_of(name) or "own_task"
    key = f"own_{key}" if key in task_names() else key
    wording = _words(name, "column")
    values = {
        "title": capital(wording),
        "kind": kind,
        "modalities": [str(m) for m in modalities],
        "classes": classes,
    }
    return parse_task(yaml.safe_dump(values, allow_unicode=True), where="the task of the labels", short_name=key)

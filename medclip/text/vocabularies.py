"""Task vocabularies: what a task asks, its classes, and how a radiologist says each of them.

Those that ship with medclip are package data in tasks/; files of one's own lie in folders that MEDCLIP_TASKS names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality

VARIABLE = "MEDCLIP_TASKS"
"""Environment variable with the folders of task files of one's own, joined as in PATH; started processes inherit it."""
Kind = Literal["multiclass", "multilabel"]
_SAYS_NO_BODY_PART = ("", "UNKNOWN", "OTHER", "NONE", "UNDEFINED")


@dataclass(frozen=True)
class TaskClass:
    """One answer a task can give."""

    name: str
    """Key in tables and cards: lower case, digits and underscores."""
    title: str
    """What a report prints."""
    prompts: tuple[str, ...]
    """Wordings that say the class is there, each fit for any of the task's templates."""
    negative_prompts: tuple[str, ...] = ()
    """Wordings that say it is not there; only multi-label classes have them."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """`sct` (SNOMED CT) and `radlex`, given only where the concept is the same."""
    nouns: tuple[str, ...] = ()
    """Noun phrases that fit after "with" and, without their article, after "no"; captions are composed of them."""
    stems: tuple[str, ...] = ()
    """Beginnings of words that betray a mention of the class; every wording of the class need not hold one."""
    denial_weight: float = 1.0
    """How readily a report says that this is absent, relative to the other classes of the task."""


@dataclass(frozen=True)
class Task:
    """A question that can be asked of an image."""

    name: str
    title: str
    kind: Kind
    modalities: tuple[Modality, ...]
    """Modalities the question makes sense for; empty means any."""
    templates: tuple[str, ...]
    """Sentences with one `{}` that a prompt is put into."""
    classes: tuple[TaskClass, ...]
    image_names: tuple[str, ...] = ()
    """What images of this task are called, e.g. "chest X-ray"; used in captions of labelled images."""
    none_prompts: tuple[str, ...] = ()
    """Wordings for an image of which the labels say that nothing is there (`says_none`)."""
    not_part_of_none: tuple[str, ...] = ()
    """Classes that such a wording says nothing of: they need not have been looked for."""
    body_parts: tuple[str, ...] = ()
    """Upper-case DICOM terms of the anatomy the question is about; empty means any."""

    def is_about(self, body_part: str) -> bool:
        """Whether a header's BodyPartExamined fits; one that is empty or says nothing fits every task.

        Args:
            body_part: The header's text, e.g. "CHEST" or "PORT CHEST".
        """
        said = body_part.strip().upper()
        if not self.body_parts or said in _SAYS_NO_BODY_PART:
            return True
        return any(part in said for part in self.body_parts)

    def says_none(self, label: Mapping[str, int]) -> bool:
        """Whether a multi-label answer says that nothing is there: no class is 1, and each is 0 that has to be.

        Args:
            label: 0 or 1 for each class that was looked for.
        """
        needed = [c.name for c in self.classes if c.name not in self.not_part_of_none]
        return all(label.get(name) == 0 for name in needed) and not any(label.values())

    def class_named(self, name: str) -> TaskClass:
        """Give one class.

        Raises:
            MedclipError: TABLE_INVALID when the task has no such class.
        """
        for c in self.classes:
            if c.name == name:
                return c
        known = ", ".join(c.name for c in self.classes)
        raise MedclipError(Reason.TABLE_INVALID, f"task {self.name} has no class {name!r}.", hint=f"It has: {known}.")


def task_names() -> tuple[str, ...]:
    """List the tasks that ship with medclip and those of one's own, in alphabetical order.

    Raises:
        MedclipError: MISSING_FILE or TABLE_INVALID when MEDCLIP_TASKS names a folder that is not there, or that holds a
            name which is taken.
    """
    return tuple(sorted([*_packaged(), *_own()]))


def load_task(name: str) -> Task:
    """Load a task by name: one that ships with medclip, or NAME.yaml in a folder that MEDCLIP_TASKS names.

    A file of one's own may be short, see `medclip.text.own_tasks.filled`. It is read once in a process.

    Raises:
        MedclipError: NO_TASK when there is no such task; TABLE_INVALID when its file is malformed, and as `task_names`.
    """
    return _load(name, None if name in _packaged() else os.environ.get(VARIABLE, ""))


@cache
def _packaged() -> frozenset[str]:
    folder = files("medclip.text") / "tasks"
    return frozenset(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _own() -> Mapping[str, Path]:
    folders = os.environ.get(VARIABLE, "")
    if not folders:
        return {}
    from medclip.text.own_tasks import own_task_files

    return own_task_files(folders, _packaged())


@cache
def _load(name: str, folders: str | None) -> Task:
    """Load a task; `folders`, what the variable holds, makes a changed variable another entry of the cache."""
    if folders is None:
        text, where = (files("medclip.text") / "tasks" / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml"
        task = parse_task(text, where=where)
    else:
        from medclip.text.own_tasks import own_task_files, read_own

        if name not in _own():
            own_task_files.cache_clear()  # the file may have been written since
        path = _own().get(name)
        if path is None:
            raise MedclipError(
                Reason.NO_TASK,
                f"there is no task named {name!r}.",
                hint=f"Tasks are: {', '.join(task_names())}. For labels of your own, name in {VARIABLE} the folder of "
                "your task files.",
            )
        where = str(path)
        task = parse_task(read_own(path), where=where, short_name=name)
    if task.name != name:
        raise MedclipError(
            Reason.TABLE_INVALID, f"the task is named {task.name!r}; its file says {name!r}.", where=where
        )
    return task


def parse_task(text: str, *, where: object = None, short_name: str | None = None) -> Task:
    """Read a task from YAML and check it.

    Args:
        text: The YAML document.
        where: What errors name first, e.g. the file.
        short_name: Where given, the document may be a short one, whose gaps are filled; the name of its file.

    Raises:
        MedclipError: TABLE_INVALID with every mistake on its own: unknown or missing keys, repeated wordings, templates
            without `{}`, a multi-label class without negatives.
    """
    import yaml
    from pydantic import ValidationError

    from medclip.text._schema import TaskFile

    try:
        values = yaml.safe_load(text)
        if short_name is not None:
            from medclip.text.own_tasks import filled

            values = filled(values, short_name)
        parsed = TaskFile.model_validate(values)
    except yaml.YAMLError as e:
        raise MedclipError(Reason.TABLE_INVALID, f"this is not YAML: {' '.join(str(e).split())}", where=where) from e
    except ValidationError as e:
        mistakes = "; ".join(_mistake(m) for m in e.errors(include_url=False))
        raise MedclipError(Reason.TABLE_INVALID, f"not a valid task: {mistakes}.", where=where) from e
    return _task(parsed.model_dump())


def _task(d: dict[str, Any]) -> Task:
    classes = tuple(
        TaskClass(
            name=c["name"],
            title=c["title"],
            prompts=tuple(c["prompts"]),
            negative_prompts=tuple(c["negative_prompts"]),
            codes=dict(c["codes"]),
            nouns=tuple(c["nouns"]),
            stems=tuple(c["stems"]),
            denial_weight=c["denial_weight"],
        )
        for c in d["classes"]
    )
    return Task(
        name=d["name"],
        title=d["title"],
        kind=d["kind"],
        modalities=tuple(d["modalities"]),
        templates=tuple(d["templates"]),
        classes=classes,
        image_names=tuple(d["image_names"]),
        none_prompts=tuple(d["none_prompts"]),
        not_part_of_none=tuple(d["not_part_of_none"]),
        body_parts=tuple(d["body_parts"]),
    )


def _mistake(error: Any) -> str:
    place = ".".join(str(p) for p in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message

"""Task vocabularies: what a task asks, its classes, and how a radiologist says each of them. Package data in tasks/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality

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
    """Wordings for an image on which every class of a multi-label task is labelled absent."""
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
    """List the tasks that ship with medclip, in alphabetical order."""
    folder = files("medclip.text") / "tasks"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


@cache
def load_task(name: str) -> Task:
    """Load a task by name.

    Raises:
        MedclipError: NO_TASK when there is no such task; TABLE_INVALID when its file is malformed.
    """
    if name not in task_names():
        raise MedclipError(
            Reason.NO_TASK, f"there is no task named {name!r}.", hint=f"Tasks are: {', '.join(task_names())}."
        )
    text = (files("medclip.text") / "tasks" / f"{name}.yaml").read_text(encoding="utf-8")
    task = parse_task(text, where=f"{name}.yaml")
    if task.name != name:
        raise MedclipError(
            Reason.TABLE_INVALID, f"the task is named {task.name!r}; its file says {name!r}.", where=f"{name}.yaml"
        )
    return task


def parse_task(text: str, *, where: object = None) -> Task:
    """Read a task from YAML and check it.

    Args:
        text: The YAML document.
        where: What errors name first, e.g. the file.

    Raises:
        MedclipError: TABLE_INVALID with every mistake on its own: unknown or missing keys, repeated wordings, templates
            without `{}`, a multi-label class without negatives.
    """
    import yaml
    from pydantic import ValidationError

    from medclip.text._schema import TaskFile

    try:
        parsed = TaskFile.model_validate(yaml.safe_load(text))
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
        body_parts=tuple(d["body_parts"]),
    )


def _mistake(error: Any) -> str:
    place = ".".join(str(p) for p in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message

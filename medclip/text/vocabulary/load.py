"""Task vocabularies: what a task asks, its classes, and how a radiologist says each of them.

Those that ship with medclip are package data in tasks/; files of one's own lie in folders that MEDCLIP_TASKS names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.sample import spoken
from medclip.text.vocabulary.prompts import without_article
from medclip.text.vocabulary.task import VARIABLE, Task, TaskClass
from medclip.text.vocabulary.task_kinds import TASK_KINDS, with_kind
from medclip.wording import count

SUFFIX = ".yaml"
_SHORT = {"task": "name", "modality": "modalities"}


@cache
def own_task_files(folders: str, packaged: frozenset[str]) -> Mapping[str, Path]:
    """Find the task files in the folders that the variable names.

    Returns:
        Path by task name.

    Raises:
        MedclipError: MISSING_FILE for a folder that is not there, TABLE_INVALID for a name that stands twice or that a
            packaged task has.
    """
    files: dict[str, Path] = {}
    for folder in [Path(f) for f in folders.split(os.pathsep) if f.strip()]:
        if not folder.is_dir():
            raise MedclipError(
                Reason.MISSING_FILE, "there is no such folder.", where=folder, hint=f"{VARIABLE} names it."
            )
        for path in sorted(folder.glob(f"[!.]*{SUFFIX}")):
            name = path.name.removesuffix(SUFFIX)
            taken = "medclip ships a task" if name in packaged else f"{files[name]} is a task" if name in files else ""
            if taken:
                raise MedclipError(
                    Reason.TABLE_INVALID, f"{taken} of this name already.", where=path, hint="Give the file another."
                )
            files[name] = path
    return files


def read_own(path: Path) -> str:
    """Read a task file.

    Raises:
        MedclipError: TABLE_INVALID when it is no UTF-8 text, MISSING_FILE or PERMISSION_DENIED.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise MedclipError(Reason.TABLE_INVALID, "this is not UTF-8 text.", where=path) from e
    except OSError as e:
        reason = Reason.MISSING_FILE if isinstance(e, FileNotFoundError) else Reason.PERMISSION_DENIED
        raise MedclipError(reason, f"the task file cannot be read ({type(e).__name__}).", where=path) from e


def filled(values: Any, name: str) -> Any:
    """Fill in what a short task file leaves out; what is there, right or wrong, is left for the check of its form.

    `kind`, `modality` (or `modalities`) and classes with `name` and `prompts` are enough. A class is then called by its
    name with blanks; a class of a multi-label task is denied with "no" before its nouns, and noticed in other texts by
    its name and its prompts.

    Args:
        values: The YAML document.
        name: The file's name, which the task gets where it names none.

    Example:
        >>> short = {"kind": "multilabel", "modality": "fundus", "classes": [{"name": "drusen", "prompts": ["drusen"]}]}
        >>> filled(short, "retina")["classes"][0]["negative_prompts"]
        ['no drusen', 'without drusen', 'no evidence of drusen']
    """
    if not isinstance(values, dict):
        return values
    task: dict[Any, Any] = {_SHORT.get(k, k) if _SHORT.get(k, k) not in values else k: v for k, v in values.items()}
    if isinstance(task.get("modalities"), str):
        task["modalities"] = [task["modalities"]]
    task = with_kind(task)
    rules = TASK_KINDS.get(task["kind"]) if isinstance(task.get("kind"), str) else None
    task.setdefault("name", name)
    task.setdefault("title", _words(task["name"]).capitalize())
    if "templates" not in task and not (rules is not None and (rules.timed or rules.placed)):
        task["templates"] = ["{}", *_templates(task.get("modalities"))]
    if isinstance(task.get("classes"), list):
        several = rules is not None and rules.independent
        task["classes"] = [_class(c, several) if isinstance(c, dict) else c for c in task["classes"]]
    return task


def _class(c: Mapping[str, Any], several: bool) -> dict[str, Any]:
    words = _words(c.get("name", ""))
    filled = dict(c)
    given = c.get("prompts")
    prompts = [" ".join(p.split()).lower() for p in given if isinstance(p, str)] if isinstance(given, list) else []
    filled.setdefault("title", words.capitalize())
    if several:
        nouns = filled.setdefault("nouns", [words])
        filled.setdefault("stems", list(dict.fromkeys([words, *(without_article(p) for p in prompts)])))
        if isinstance(nouns, list):
            bare = dict.fromkeys(without_article(n) for n in nouns if isinstance(n, str))
            denied = [f"{no} {n}" for n in bare for no in ("no", "without", "no evidence of")]
            filled.setdefault("negative_prompts", [d for d in denied if d.lower() not in prompts])
    return filled


def _templates(modalities: object) -> Iterator[str]:
    if isinstance(modalities, list) and len(modalities) == 1 and isinstance(modalities[0], str):
        yield f"{spoken(modalities[0])} image: {{}}"


def _words(name: object) -> str:
    return str(name).replace("_", " ")


MODALITY_TASK = "modality"
REGION_TASK = "body_region"
"""Name of the task whose classes are modalities."""


def task_names() -> tuple[str, ...]:
    """List the tasks that ship with medclip and those of one's own, in alphabetical order.

    Raises:
        MedclipError: MISSING_FILE or TABLE_INVALID when MEDCLIP_TASKS names a folder that is not there, or that holds a
            name which is taken.
    """
    return tuple(sorted([*_packaged(), *_own()]))


def spoken_names() -> tuple[str, ...]:
    """List the tasks that can be asked in words: all but risks."""
    return tuple(name for name in task_names() if load_task(name).has_words)


def load_task(name: str) -> Task:
    """Load a task by name: one that ships with medclip, or NAME.yaml in a folder that MEDCLIP_TASKS names.

    A file of one's own may be short, see `medclip.text.vocabulary.load.filled`. It is read once in a process.

    Raises:
        MedclipError: NO_TASK when there is no such task; TABLE_INVALID when its file is malformed, and as `task_names`.
    """
    return _load(name, None if name in _packaged() else os.environ.get(VARIABLE, ""))


@cache
def _packaged() -> frozenset[str]:
    folder = files("medclip.text.vocabulary") / "tasks"
    return frozenset(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def _own() -> Mapping[str, Path]:
    folders = os.environ.get(VARIABLE, "")
    if not folders:
        return {}
    return own_task_files(folders, _packaged())


@cache
def _load(name: str, folders: str | None) -> Task:
    """Load a task; `folders`, what the variable holds, makes a changed variable another entry of the cache."""
    if folders is None:
        text, where = (
            (files("medclip.text.vocabulary") / "tasks" / f"{name}.yaml").read_text(encoding="utf-8"),
            f"{name}.yaml",
        )
        task = parse_task(text, where=where, short_name=name)
    else:
        if name not in _own():
            own_task_files.cache_clear()  # the file may have been written since
        path = _own().get(name)
        if path is None:
            raise MedclipError(
                Reason.NO_TASK,
                f"there is no task named {name!r}.",
                hint=f"{did_you_mean(name, task_names(), 'Tasks are')} For labels of your own, name in {VARIABLE} the "
                "folder of your task files.",
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
        where: Name that errors begin with, e.g. of the file.
        short_name: Name of the file of a short document; where given, the document may be a short one, whose gaps are
            filled.

    With `classes_of: NAME` an entry of `classes` may be the mere name of a class of that packaged task.

    Raises:
        MedclipError: TABLE_INVALID with every mistake on its own: unknown or missing keys, repeated wordings, templates
            without `{}`, a multi-label class without negatives.
    """
    import yaml
    from pydantic import ValidationError

    from medclip.schema_faults import faults_of
    from medclip.text.vocabulary.schema import TaskFile

    try:
        safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time
        values = yaml.load(text, safe)  # noqa: S506 (it is a safe one)
        if short_name is not None:
            values = filled(values, short_name)
        values = _with_shared_classes(values, where)
        values = with_kind(values) if isinstance(values, dict) else values
        parsed = TaskFile.model_validate(values)
    except MedclipError as e:
        raise e.at(where if e.where is None else e.where) from e
    except (yaml.YAMLError, RecursionError) as e:
        raise MedclipError(Reason.TABLE_INVALID, f"this is not YAML ({' '.join(str(e).split())}).", where=where) from e
    except ValidationError as e:
        faults, hint = faults_of(e, TaskFile, "a task")
        raise MedclipError(Reason.TABLE_INVALID, f"the task is not valid: {faults}.", where=where, hint=hint) from e
    return _task(parsed.model_dump())


def _with_shared_classes(values: Any, where: object) -> Any:
    """Replace the names of classes of another task by these classes: `classes_of` says which packaged task has them."""
    if not isinstance(values, dict) or "classes_of" not in values:
        return values
    values = dict(values)
    owner = values.pop("classes_of")
    if owner not in _packaged() or owner == values.get("name"):
        hint = did_you_mean(str(owner), _packaged(), "They are")
        raise MedclipError(
            Reason.TABLE_INVALID, f"classes_of names {owner!r}, no other task of medclip.", where=where, hint=hint
        )
    classes, shared = values.get("classes"), load_task(owner)
    if isinstance(classes, list):
        values["classes"] = [asdict(shared.class_named(c)) if isinstance(c, str) else c for c in classes]
    return values


def _task(values: Mapping[str, Any]) -> Task:
    """Make the task of a `TaskFile`, which has its fields; lists become tuples."""

    def frozen(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

    task = frozen(values)
    task["classes"] = tuple(TaskClass(**frozen(c)) for c in values["classes"])
    if years := task["horizons_years"]:
        task["classes"] = tuple(TaskClass(f"year_{k}", f"Within {count(k, 'year')}") for k in years)
    return Task(**task)

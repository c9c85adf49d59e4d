"""Task files of one's own: where they are looked for, and what a short one leaves to be filled in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.sample import spoken
from medclip.text.vocabulary.prompts import without_article
from medclip.text.vocabulary.task import VARIABLE
from medclip.text.vocabulary.task_kinds import TASK_KINDS, with_kind

SUFFIX = ".yaml"
_SHORT = {"task": "name", "modality": "modalities"}


@cache
def own_task_files(folders: str, packaged: frozenset[str]) -> Mapping[str, Path]:
    """Find the task files in the folders that the variable names.

    Args:
        folders: The variable's value.
        packaged: Names of the tasks that ship with medclip.

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
    if "templates" not in task and not (rules is not None and rules.timed):
        task["templates"] = ["{}", *_templates(task.get("modalities"))]
    if isinstance(task.get("classes"), list):
        several = rules is not None and rules.independent
        task["classes"] = [_class(c, several) if isinstance(c, dict) else c for c in task["classes"]]
    return task


def _class(c: Mapping[str, Any], several: bool) -> dict[str, Any]:
    words = _words(c.get("name", ""))
    own = dict(c)
    given = c.get("prompts")
    prompts = [" ".join(p.split()).lower() for p in given if isinstance(p, str)] if isinstance(given, list) else []
    own.setdefault("title", words.capitalize())
    if several:
        nouns = own.setdefault("nouns", [words])
        own.setdefault("stems", list(dict.fromkeys([words, *(without_article(p) for p in prompts)])))
        if isinstance(nouns, list):
            bare = dict.fromkeys(without_article(n) for n in nouns if isinstance(n, str))
            denied = [f"{no} {n}" for n in bare for no in ("no", "without", "no evidence of")]
            own.setdefault("negative_prompts", [d for d in denied if d.lower() not in prompts])
    return own


def _templates(modalities: object) -> Iterator[str]:
    if isinstance(modalities, list) and len(modalities) == 1 and isinstance(modalities[0], str):
        yield f"{spoken(modalities[0])} image: {{}}"


def _words(name: object) -> str:
    return str(name).replace("_", " ")

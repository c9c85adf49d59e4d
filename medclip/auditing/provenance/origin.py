"""What was asked, by whom and when, as it stands in `audit.json` and on the page: file names only, never a path."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medclip.auditing.provenance.inputs import change_paths, describe_inputs, paths_of
from medclip.auditing.recipe import AuditRecipe
from medclip.errors import MedclipError, Reason
from medclip.runs.outputs.score_run import ScoreRun
from medclip.version import __version__

_SOFTWARE = ("numpy", "scipy", "scikit-learn", "pyarrow")
_NO_OPTIONS = ("scores", "audited_on", "declared")
_PATIENTS = ("patient", "patient_id", "subject_id", "subject", "person_id", "case_id", "mrn", "name", "file", "path")
"""Columns whose values name somebody: what is selected by them is not written."""
_SELECTIONS = ("where", "score_where", "choose_where")
HIDDEN = "(not written)"


@dataclass(frozen=True)
class Origin:
    """What an audit was asked."""

    recipe: AuditRecipe | None
    """None where it was called from Python with data frames or values that no recipe can hold."""
    auditor: str | None = None
    question: str | None = None
    audited_on: str | None = None
    """None: today."""

    def __post_init__(self) -> None:
        """Refuse a day that is none: it stands on what is signed."""
        if self.audited_on is not None:
            try:
                date.fromisoformat(self.audited_on)
            except ValueError:
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"`audited_on` is {self.audited_on!r}, which is no date.",
                    hint="Write it as 2026-01-31.",
                ) from None

    def written(self) -> dict[str, Any]:
        """Return what is added to the provenance of a result."""
        day = self.audited_on or datetime.now(UTC).date().isoformat()
        about: dict[str, Any] = {"date": day, "auditor": self.auditor, "question": self.question}
        software = {"python": platform.python_version(), "medclip": __version__}
        about["software"] = software | {name: _version(name) for name in _SOFTWARE}
        recipe = self.recipe
        if recipe is None:
            return about | {"command": "medclip.audit(...), from Python", "inputs": [], "recipe": None}
        asked = written_recipe(recipe)
        about |= {"command": command_of(asked), "inputs": describe_inputs(paths_of(recipe)), "recipe": asked}
        return about | {"recipe_file": recipe.file_of_its_own(), "declared": recipe.declared}


def written_recipe(recipe: AuditRecipe) -> dict[str, Any]:
    """Return what a recipe asks beyond the defaults: files by their names, and no value that names a patient."""
    values = change_paths(recipe, lambda key, path: Path(path).name if "/" in path or "\\" in path else path)
    keys = [part for pair in recipe.key for part in pair.split("=")]
    naming = {name.lower() for name in (*_PATIENTS, *keys, (recipe.patient or "").partition("~")[0])}
    for name in _SELECTIONS:
        if name in values:
            values[name] = [_without_patients(text, naming) for text in values[name]]
    return {name: value for name, value in values.items() if name not in ("audited_on", "declared")}


def _without_patients(text: str, naming: set[str]) -> str:
    column, equals, _ = text.partition("=")
    return f"{column}={HIDDEN}" if equals and column.strip().lower() in naming else text


def command_of(asked: Mapping[str, Any]) -> str:
    """Write the command that asks this, with file names in the place of paths.

    Example:
        >>> command_of({"scores": "net.csv", "by": ["sex", "sex*age"], "all_pairs": True})
        "medclip audit net.csv --by sex --by 'sex*age' --all-pairs"
    """
    words = ["medclip", "audit", str(asked["scores"])]
    for name, value in asked.items():
        if name in _NO_OPTIONS:
            continue
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return shlex.join(words)


def recipe_hash(asked: Mapping[str, Any] | None) -> str:
    """Hash what was asked: SHA-256 of its JSON, with sorted keys and without blanks."""
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_of_call(scores: Any, labels: Any, given: Mapping[str, Any], named: Mapping[str, Any]) -> AuditRecipe | None:
    """Return the recipe of a call from Python; None where tables are not files.

    Args:
        scores: As the verb takes them.
        labels: As the verb takes them.
        given: `by`, `label`, `name` and `compare` of the verb.
        named: Options by name.
    """
    compare: Mapping[str, Any] = given.get("compare") or {}
    scores, *others = (
        table.folder if isinstance(table, ScoreRun) and not table.is_temporary else table
        for table in (scores, *compare.values())
    )
    compare = dict(zip(compare, others, strict=True))
    tables: Sequence[Any] = [scores, *compare.values(), *([] if labels is None else [labels])]
    if not all(isinstance(table, str | Path) for table in tables):
        return None
    values = {"scores": scores, "labels": labels, "by": given.get("by"), "label": given.get("label")}
    values |= {"name": given.get("name") or None, "compare": [f"{name}={path}" for name, path in compare.items()]}
    return AuditRecipe.model_validate({**named, **{name: value for name, value in values.items() if value}})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

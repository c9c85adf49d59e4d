"""What was asked, by whom and when, as it stands in `audit.json` and on the page: file names only, never a path."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medclip.auditing.provenance.inputs import change_paths, describe_inputs, paths_of
from medclip.errors import MedclipError, Reason
from medclip.version import __version__

_SOFTWARE = ("numpy", "scipy", "scikit-learn", "pyarrow")
_NO_OPTIONS = ("scores", "audited_on")
_PATIENTS = ("patient", "patient_id", "subject_id", "subject", "person_id", "case_id", "mrn", "name", "file", "path")
"""Columns whose values name somebody: what is selected by them is not written."""
_SELECTIONS = ("where", "score_where", "choose_where")
HIDDEN = "(not written)"


@dataclass(frozen=True)
class Origin:
    """What an audit was asked."""

    asked: Mapping[str, Any] | None
    """Options by name; None where it was called from Python with data frames or values that no recipe can hold."""
    recipe_file: Mapping[str, Any] | None = None
    """Of the recipe: name, SHA-256, options of which something else was asked."""
    declared: Mapping[str, str] | None = None
    """By whom and when that was written."""
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
        if self.asked is None:
            return about | {"command": "medclip.audit(...), from Python", "inputs": [], "recipe": None}
        asked = written_recipe(self.asked)
        about |= {"command": command_of(asked), "inputs": describe_inputs(paths_of(self.asked)), "recipe": asked}
        return about | {"recipe_file": self.recipe_file, "declared": self.declared}


def written_recipe(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked with files by their names, and no value that names a patient."""
    values = change_paths(asked, lambda key, path: Path(path).name if "/" in path or "\\" in path else path)
    keys = [part for pair in asked.get("key", ()) for part in pair.split("=")]
    naming = {name.lower() for name in (*_PATIENTS, *keys, (asked.get("patient") or "").partition("~")[0])}
    for name in _SELECTIONS:
        if name in values:
            values[name] = [_without_patients(text, naming) for text in values[name]]
    return {name: value for name, value in values.items() if name != "audited_on"}


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

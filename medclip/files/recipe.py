"""Recipes are YAML files that pydantic checks: reading one, and saying in words what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medclip.errors import MedclipError, Reason, did_you_mean


def read_yaml(path: Path) -> Any:
    """Read a recipe as plain values.

    Raises:
        MedclipError: MISSING_FILE, WRONG_USE for a folder, PERMISSION_DENIED, READ_ERROR, RECIPE_INVALID.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise MedclipError(Reason.MISSING_FILE, "there is no such recipe.", where=path, hint="Check the path.") from e
    except IsADirectoryError as e:
        raise MedclipError(
            Reason.WRONG_USE, "this is a folder; a recipe is a YAML file.", where=path, hint="Name the file in it."
        ) from e
    except PermissionError as e:
        raise MedclipError(Reason.PERMISSION_DENIED, "the recipe may not be read.", where=path) from e
    except OSError as e:
        raise MedclipError(Reason.READ_ERROR, "the recipe cannot be read.", where=path) from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is not YAML: {str(e).splitlines()[0]}.", where=path) from e


def recipe_faults(error: ValidationError, kind: type[BaseModel]) -> tuple[str, str]:
    """Write what is wrong with a recipe of this kind, and the hint that goes with it."""
    sentences, hints = [], []
    for fault in error.errors(include_url=False)[:3]:
        place = ".".join(str(p) for p in fault["loc"]) or "the recipe"
        if fault["type"] == "extra_forbidden":
            sentences.append(f"{place}: is not a key of a recipe")
            hints.append(_close_keys([str(p) for p in fault["loc"]], kind))
        else:
            sentences.append(f"{place}: {fault['msg'].removeprefix('Value error, ').rstrip('.')}")
    more = f" (and {error.error_count() - 3} more)" if error.error_count() > 3 else ""
    return f"{'; '.join(sentences)}{more}.", " ".join(dict.fromkeys(filter(None, hints)))


def _close_keys(key: list[str], kind: type[BaseModel]) -> str:
    """Ask for a key of the same section that is written alike, or for the section that has this key."""
    *section, name = key
    keys = [known.split(".") for known in _keys(kind)]
    same_name = [".".join(known) for known in keys if known[-1] == name]
    return did_you_mean(name, (known[-1] for known in keys if known[:-1] == section)) or did_you_mean(name, same_name)


def _keys(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the keys of a section and of the sections in it."""
    for name, field in part.model_fields.items():
        yield f"{prefix}{name}"
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _keys(inner, f"{prefix}{name}.")

"""Recipes are YAML files that pydantic checks: reading one, and saying in words what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from medclip.errors import MedclipError, Reason
from medclip.schema_faults import faults_of


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"this is not YAML: {str(e).splitlines()[0]}.", where=path) from e


def invalid_recipe(
    error: ValidationError, kind: type[BaseModel], path: Path | None, what: str = "a recipe"
) -> MedclipError:
    """Return the refusal of a recipe, or of what stands for one, that is not of its kind; it names the keys."""
    faults, hint = faults_of(error, kind, what)
    return MedclipError(Reason.RECIPE_INVALID, f"{faults}.", where=path, hint=hint)

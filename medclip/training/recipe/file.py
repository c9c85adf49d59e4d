"""Read a recipe from YAML, with overrides, and say in words what is wrong with it. No torch here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from medclip.errors import MedclipError, Reason
from medclip.files.key_value import Overrides, read_overrides
from medclip.files.stores import is_url
from medclip.recipe import invalid_recipe, read_yaml
from medclip.training.recipe.schema import Recipe
from medclip.training.recipe.shorthands import SHORTHANDS, written_out

RecipeSource = Path | str | Mapping[str, Any] | Recipe
"""A recipe that somebody names: its file, its values, or itself."""


def load_recipe(source: RecipeSource, overrides: Overrides = ()) -> Recipe:
    """Read a recipe and change what the overrides name by its path, such as `train.lr`.

    Relative folders in it are taken from the current folder or, where nothing lies there, from the recipe's.

    Raises:
        MedclipError: MISSING_FILE; RECIPE_INVALID, naming the key; WRONG_USE for an override of another form.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json", exclude_unset=True)
    else:
        values = read_yaml(path) if path else json.loads(json.dumps(source, default=str))
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe is a YAML mapping of sections.", where=path)
    changes = read_overrides(overrides)
    for key in sorted(changes, key=_is_inside_objective):
        if _is_inside_objective(key) and isinstance(word := values.get("objective"), str) and word in SHORTHANDS:
            values = written_out(values)  # the word becomes the keys that are changed here
        _apply(values, key, changes[key])
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as e:
        raise invalid_recipe(e, Recipe, path) from e
    return _resolved(recipe, path.parent if path else Path())


def package_folder(text: str) -> Path:
    """Resolve `package:NAME/PATH` or a plain folder.

    Raises:
        MedclipError: MISSING_FILE.
    """
    folder = Path(text)
    if text.startswith("package:"):
        name, _, rest = text.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise MedclipError(
                Reason.MISSING_FILE,
                f"the package {name} is not installed.",
                hint=f"Run: pip install {name.replace('_', '-')}",
            )
        folder = Path(spec.origin).parent / rest
    if not folder.is_dir():
        raise MedclipError(Reason.MISSING_FILE, "there is no such folder.", where=folder)
    return folder


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    def place(p: Path) -> Path:
        return base / p if not p.is_absolute() and not p.exists() and (base / p).exists() else p

    def placed(part: BaseModel, *names: str) -> Any:
        """Resolve the paths that are given; what is no path (a name of an architecture) stays as it is."""
        given = {n: v for n in names if n in part.model_fields_set and (v := getattr(part, n)) is not None}
        return part.model_copy(update={n: type(v)(place(Path(v))) for n, v in given.items()})

    parts: dict[str, Any] = {
        "data": recipe.data.model_copy(
            update={"shards": tuple(p if is_url(p) else str(place(Path(p))) for p in recipe.data.shards)}
        ),
        "text": placed(recipe.text, "tokenizer"),
        "model": placed(recipe.model, "text_folder", "start", "architecture", "image_weights", "preset"),
    }
    teacher, heads = recipe.objective.text_teacher, recipe.objective.supervised
    lying: dict[str, Any] = {} if teacher is None else {"text_teacher": placed(teacher, "folder")}
    lying |= {"supervised": tuple(placed(head, "task") for head in heads)} if heads else {}
    parts["objective"] = recipe.objective.model_copy(update=lying)
    return recipe.model_copy(update={k: v for k, v in parts.items() if k in recipe.model_fields_set})


def _is_inside_objective(key: str) -> bool:
    return key.startswith("objective.")


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    node = values
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            if child is not None:
                raise MedclipError(Reason.RECIPE_INVALID, f"{part!r} in {key!r} is a value, not a section.")
            child = node[part] = {}
        node = child
    node[parts[-1]] = value

"""Read a recipe from YAML, with overrides, and say in words what is wrong with it. No torch here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.training.recipe.schema import Recipe


def load_recipe(source: Path | str | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key.sub=value` overrides (values are YAML).

    Relative folders in it are taken from the current folder or, where nothing lies there, from the recipe's.

    Raises:
        MedclipError: MISSING_FILE or RECIPE_INVALID, naming the key.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json", exclude_unset=True)
    else:
        values = _read(path) if path else json.loads(json.dumps(source, default=str))
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a recipe is a YAML mapping of sections.", where=path)
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as e:
        sentence, hint = _faults(e)
        raise MedclipError(Reason.RECIPE_INVALID, sentence, where=path, hint=hint) from e
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
        "data": recipe.data.model_copy(update={"shards": tuple(place(p) for p in recipe.data.shards)}),
        "text": placed(recipe.text, "tokenizer"),
        "model": placed(recipe.model, "text_folder", "start", "architecture", "image_weights"),
    }
    if recipe.objective.text_teacher is not None:
        teacher = placed(recipe.objective.text_teacher, "folder")
        parts["objective"] = recipe.objective.model_copy(update={"text_teacher": teacher})
    return recipe.model_copy(update={k: v for k, v in parts.items() if k in recipe.model_fields_set})


def _read(path: Path) -> Any:
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


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise MedclipError(Reason.RECIPE_INVALID, f"{override!r} is not of the form key.sub=value.")
    node = values
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            if child is not None:
                raise MedclipError(Reason.RECIPE_INVALID, f"{part!r} in {override!r} is a value, not a section.")
            child = node[part] = {}
        node = child
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MedclipError(
            Reason.RECIPE_INVALID, f"the value in {override!r} is not YAML.", hint="Put text with brackets in quotes."
        ) from None
    node[parts[-1]] = value if text.strip()[:1] in ("'", '"') else _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people who write it mean a number."""
    try:
        return float(value) if isinstance(value, str) and value.strip()[:1] in "-+.0123456789" else value
    except ValueError:
        return value


def _faults(error: ValidationError) -> tuple[str, str]:
    """Write what is wrong, and the hint that goes with it."""
    sentences, hints = [], []
    for fault in error.errors(include_url=False)[:3]:
        place = ".".join(str(p) for p in fault["loc"]) or "the recipe"
        if fault["type"] == "extra_forbidden":
            sentences.append(f"{place}: is not a key of a recipe")
            hints.append(_close_keys([str(p) for p in fault["loc"]]))
        else:
            sentences.append(f"{place}: {fault['msg'].removeprefix('Value error, ').rstrip('.')}")
    more = f" (and {error.error_count() - 3} more)" if error.error_count() > 3 else ""
    return f"{'; '.join(sentences)}{more}.", " ".join(dict.fromkeys(filter(None, hints)))


def _close_keys(key: list[str]) -> str:
    """Ask for a key of the same section that is written alike, or for the section that has this key."""
    *section, name = key
    keys = [known.split(".") for known in _keys(Recipe)]
    same_name = [".".join(known) for known in keys if known[-1] == name]
    return did_you_mean(name, (known[-1] for known in keys if known[:-1] == section)) or did_you_mean(name, same_name)


def _keys(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the keys of a section and of the sections in it."""
    for name, field in part.model_fields.items():
        yield f"{prefix}{name}"
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")

"""The forms that values of an audit may be named in, from YAML or Python, as the texts that the command takes.

Each function takes what was named and returns it in one form: a list of texts, or one text. What is no text, such as a
data frame, stays as it is where an option takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.wording import list_of


def listed(value: Any) -> list[Any]:
    """Take one value for a list of one.

    Raises:
        ValueError: For a list in a list, and a mapping.
    """
    return [] if value is None else [_one(one) for one in _each(value)]


def pairs(value: Any) -> list[Any]:
    """Take a mapping for its KEY=VALUE pairs; a value may be a list, too.

    Example:
        >>> pairs({"split": ["test", "val"], "site": 1})
        ['split=test', 'split=val', 'site=1']
    """
    if isinstance(value, Mapping):
        return [f"{name}={_one(one)}" for name, several in value.items() for one in _each(several)]
    return listed(value)


def joined(value: Any) -> Any:
    """Take a list for its values with commas between them."""
    return ",".join(str(_one(one)) for one in value) if isinstance(value, list | tuple) else _one(value)


def edges(value: Any) -> list[Any]:
    """Take {bmi: [18.5, 25]} for bmi=18.5,25."""
    return pairs({name: joined(one) for name, one in value.items()} if isinstance(value, Mapping) else value)


def meanings(value: Any) -> list[Any]:
    """Take {sex: {0: M}} for sex:0=M."""
    if isinstance(value, Mapping):
        if not all(isinstance(cells, Mapping) for cells in value.values()):
            raise ValueError("has values of columns with what they mean, such as {sex: {0: M}}")
        value = {f"{column}:{cell}": meaning for column, cells in value.items() for cell, meaning in cells.items()}
    return pairs(value)


def margins(value: Any) -> list[Any]:
    """Take {tpr: {sex: 0.05}} for tpr:sex=0.05."""
    if isinstance(value, Mapping):
        nested = {metric: each if isinstance(each, Mapping) else {"": each} for metric, each in value.items()}
        named = {(metric, name): margin for metric, each in nested.items() for name, margin in each.items()}
        value = {f"{metric}:{name}" if name else metric: margin for (metric, name), margin in named.items()}
    return pairs(value)


def hypotheses(value: Any) -> list[Any]:
    """Take {metric, label, attribute} for a sentence."""
    return listed([_sentence(one) if isinstance(one, Mapping) else one for one in _each(value)])


def sources(value: Any) -> Any:
    """Take a mapping of names to paths for NAME=PATH; one that holds anything else, and a data frame, stay."""
    if isinstance(value, Mapping):
        has_paths = all(isinstance(one, str | Path) for one in value.values())
        return [f"{name}={path}" for name, path in value.items()] if has_paths else value
    return listed(value) if value is None or isinstance(value, str | Path | list | tuple) else value


def declared(value: Any) -> dict[str, str] | None:
    """Take a date and a name, YAML's dates for texts.

    Raises:
        ValueError: For anything else.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) - {"date", "by"}:
        others = sorted(map(str, set(value) - {"date", "by"})) if isinstance(value, Mapping) else ["other value"]
        raise ValueError(f"has a date and a name (by), and no {list_of(others)}")
    return {str(name): str(_one(text)) for name, text in value.items()}


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _one(value: Any) -> Any:
    """Return a value of YAML as a text, and an object as it is."""
    if isinstance(value, list | tuple | Mapping):
        raise ValueError("takes values, or a list of them, and this has lists or mappings in it")
    return str(value) if isinstance(value, str | int | float | Path) else value


def _sentence(one: Mapping[str, Any]) -> str:
    about = f" for {one['label']}" if one.get("label") else ""
    return f"{one.get('metric', '')}{about} in {one.get('attribute', '')}"

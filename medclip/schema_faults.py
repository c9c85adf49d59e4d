"""What pydantic finds wrong with a recipe, a card, a suite or a task file, in sentences of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from medclip.errors import did_you_mean
from medclip.wording import list_of

_MOST = 3
_LONGEST = 40
"""Letters of a text that is shown; a longer one may say anything."""
_WORDS = {
    "missing": "is missing",
    "recursion_loop": "leads back to itself",
    "json_invalid": "is not JSON",
}
_EXPECTED = (
    (r"int_.*", "a whole number"),
    (r"float_.*|decimal_.*|finite_number", "a number"),
    (r"bool_.*", "true or false"),
    (r"string_(type|sub_type|unicode)|bytes_.*", "text"),
    (r"(list|tuple|set|frozen_set|iterable|arguments)_type", "a list"),
    (r"(dict|mapping|model|model_attributes|dataclass)_type", "a mapping of keys to values"),
    (r"path_type", "a path"),
    (r"none_required", "null"),
)
_LIMITS = {
    "greater_than": ("gt", "more than {:g}"),
    "greater_than_equal": ("ge", "{:g} or more"),
    "less_than": ("lt", "less than {:g}"),
    "less_than_equal": ("le", "{:g} or less"),
    "multiple_of": ("multiple_of", "a multiple of {:g}"),
    "too_short": ("min_length", "a list of {:g} or more"),
    "too_long": ("max_length", "a list of {:g} or less"),
    "string_too_short": ("min_length", "text of {:g} or more letters"),
    "string_too_long": ("max_length", "text of {:g} letters or less"),
}
_FORMS = {
    r"^[a-z][a-z0-9_]*$": "a name of small letters, digits and underscores that begins with a letter",
    r"^[A-Z][A-Z ]*$": "capital letters and blanks",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": "a name of letters, digits, dots, dashes and underscores",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "a name of letters, digits, dots, dashes and underscores",
    r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$": "a relative folder with slashes",
    r"^([0-9a-f]{64})?$": "a sha256 of 64 hexadecimal digits, or nothing",
}


def faults_of(error: ValidationError, kind: type[BaseModel], what: str) -> tuple[str, str]:
    """Write what is wrong with values that were to have a form, and the hint that goes with it.

    Args:
        error: Faults that pydantic found.
        kind: The form.
        what: Phrase for what has the form: "a recipe".

    Returns:
        The first three faults, each with its key, without a full stop; and close keys as a question, or "".

    Example:
        >>> class Train(BaseModel):
        ...     epochs: int = 1
        >>> try:
        ...     Train.model_validate({"epochs": "many"})
        ... except ValidationError as e:
        ...     faults_of(e, Train, "a recipe")
        ("epochs: is 'many', and must be a whole number", '')
    """
    clauses, hints = [], []
    every = [fault for fault in error.errors(include_url=False) if not _is_echo(fault)]
    for fault in every[:_MOST]:
        key = [str(part) for part in fault["loc"]]
        place = ".".join(key)
        if fault["type"] == "extra_forbidden":
            clauses.append(f"{place}: is not a key of {what}")
            hints.append(_close_keys(key, kind))
        else:
            clause = _clause(fault["type"], fault.get("ctx", {}), fault["input"], fault["msg"])
            clauses.append(f"{place}: {clause}" if place or fault["type"] == "value_error" else f"{what} {clause}")
    more = f" (and {len(every) - _MOST} more)" if len(every) > _MOST else ""
    text = "; ".join(clause.removeprefix(": ") for clause in clauses)
    return text + more, " ".join(dict.fromkeys(filter(None, hints)))


def _is_echo(fault: Any) -> bool:
    """Whether a list is called too short only because entries of it, which are faults of their own, do not count."""
    return fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]


def _clause(kind: str, limits: Mapping[str, Any], value: object, message: str) -> str:
    if kind in ("value_error", "assertion_error"):  # a sentence of our own
        return re.sub(r"^(Value|Assertion) error, ", "", message).rstrip(".")
    if kind in _WORDS:
        return _WORDS[kind]
    expected = _expected(kind, limits)
    return f"is {_shown(value)}, and must be {expected}" if expected else f"is {_shown(value)}, which is not understood"


def _expected(kind: str, limits: Mapping[str, Any]) -> str:
    if kind in ("literal_error", "enum"):
        names = re.findall(r"'([^']*)'|([^\s',]+)", str(limits["expected"]).replace(" or ", ", "))
        return list_of(["".join(pair) for pair in names], "or")
    if kind in _LIMITS:
        name, form = _LIMITS[kind]
        return form.format(limits[name])
    if kind == "string_pattern_mismatch":
        return _FORMS.get(limits["pattern"], f"text of the form {limits['pattern']}")
    return next((words for pattern, words in _EXPECTED if re.fullmatch(pattern, kind)), "")


def _shown(value: object) -> str:
    """Show a value that was written where another was expected; of texts only short ones."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST else "a long text"
    if isinstance(value, Mapping):
        return "a mapping"
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else "of another kind"


def _close_keys(key: list[str], kind: type[BaseModel]) -> str:
    """Ask for a key of the same section that is written alike, or for the section that has this key."""
    *section, name = [part for part in key if not part.isdigit()]
    keys = [known.split(".") for known in _keys(kind)]
    same_name = [".".join(known) for known in keys if known[-1] == name]
    return did_you_mean(name, (known[-1] for known in keys if known[:-1] == section)) or did_you_mean(name, same_name)


def _keys(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the keys of a section and of the sections in it, also of those in lists and mappings."""
    for name, field in part.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _models(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)

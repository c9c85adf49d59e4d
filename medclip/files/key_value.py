"""KEY=VALUE, as options of commands and changes of recipes are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from medclip.errors import MedclipError, Reason

Overrides = Mapping[str, Any] | Sequence[str]
"""What `--set` takes, in Python: values by their key, or texts as on the command line (`["steps=200"]`)."""


def key_value(text: str, option: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """Split a text at its first equals sign.

    Args:
        text: Text that was given.
        option: The option that takes it, for the error.
        form: Form of the text, for the error.

    Raises:
        MedclipError: WRONG_USE where the key, the sign or the value is missing.

    Example:
        >>> key_value("lr = 1e-3", "--set")
        ('lr', '1e-3')
    """
    key, _, value = map(str.strip, text.partition("="))
    if not key or not value:
        raise MedclipError(Reason.WRONG_USE, f"{option} takes {form}, which {text!r} is not.")
    return key, value


def key_values(texts: Sequence[str], option: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """Split the texts of an option that may be repeated.

    Raises:
        MedclipError: WRONG_USE, also for a key that is named twice.

    Example:
        >>> key_values(["lr=1e-3", "layers=top"], "--set")
        {'lr': '1e-3', 'layers': 'top'}
    """
    values: dict[str, str] = {}
    for text in texts:
        key, value = key_value(text, option, form)
        if key in values:
            raise MedclipError(
                Reason.WRONG_USE, f"{option} names {key!r} a second time.", hint="Leave one of them out."
            )
        values[key] = value
    return values


def read_value(text: str, option: str) -> Any:
    """Read a value as YAML: numbers, true and false, null, [lists] and words.

    Raises:
        MedclipError: WRONG_USE for what is not YAML.

    Example:
        >>> [read_value(text, "--set") for text in ("1e-3", "200", "[q, v]", "top", "'1.2'")]
        [0.001, 200, ['q', 'v'], 'top', '1.2']
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise MedclipError(
            Reason.WRONG_USE, f"the value {text!r} of {option} is not YAML.", hint="Put text with brackets in quotes."
        ) from None
    if isinstance(value, str) and text.strip()[:1] in "-+.0123456789":  # YAML 1.1 takes 1e-4 for a word
        with suppress(ValueError):
            return float(value)
    return value


def read_overrides(overrides: Overrides, option: str = "--set") -> dict[str, Any]:
    """Return values by their key. Texts are read as YAML, values that are given as such stay as they are.

    Raises:
        MedclipError: WRONG_USE for a text that is not KEY=VALUE.

    Example:
        >>> read_overrides(["lr=1e-3", "layers=top"]) == read_overrides({"lr": 0.001, "layers": "top"})
        True
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    texts = [overrides] if isinstance(overrides, str) else overrides
    return {key: read_value(text, option) for key, text in key_values(texts, option).items()}

"""Options of the form KEY=VALUE, as several commands take them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from medclip.errors import MedclipError, Reason


def key_values(given: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; values are read as YAML: numbers, true and false, null, [lists], and words.

    Raises:
        MedclipError: WRONG_USE for what has not this form, and for a key that is named twice.

    Example:
        >>> key_values(["lr=1e-3", "steps=200", "layers=top"])
        {'lr': 0.001, 'steps': 200, 'layers': 'top'}
    """
    found: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier() or key in found:
            twice = " a second time" if key in found else ""
            raise MedclipError(
                Reason.WRONG_USE,
                f"{pair!r} was given{twice}; an option is KEY=VALUE.",
                hint="Write it as in --set steps=200.",
            )
        found[key] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    import yaml

    for number in (int, float):  # YAML takes 1e-3 for a word
        with suppress(ValueError):
            return number(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text

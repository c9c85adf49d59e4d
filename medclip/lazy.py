"""Names of a package that load their module on first use (PEP 562), so that importing the package costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_name(target: str) -> Any:
    """Import what "module:attribute", or "module", names; rows of tables name their functions so and load none."""
    module, _, attribute = target.partition(":")
    value = import_module(module)
    return getattr(value, attribute) if attribute else value


def lazy_names(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package whose public names live in other modules.

    Type checkers see the names through imports under `if TYPE_CHECKING`. Unlike the library lazy_loader this allows a
    name that is short inside its namespace (`medclip.models.load`) for a function that says more on its own
    (`load_model`).

    Args:
        package: `__name__` of the package.
        names: Public name -> "module:attribute", or "module" for a namespace.

    Returns:
        `__getattr__` and `__dir__`.

    Example:
        >>> load, names = lazy_names("medclip.lazy", {"duration": "time:perf_counter"})
        >>> names()
        ['duration']
        >>> load("nonsense")
        Traceback (most recent call last):
        AttributeError: module 'medclip.lazy' has no attribute 'nonsense'
    """

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = import_name(names[name])
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(names)

"""Names that are imported on first use: of a package (PEP 562), of rows of tables, and of what other packages add."""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Callable, Container, Mapping
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

_Row = TypeVar("_Row")


def import_name(target: str) -> Any:
    """Import what "module:attribute", or "module", names; rows of tables name their functions so and load none."""
    module, _, attribute = target.partition(":")
    value = import_module(module)
    return getattr(value, attribute) if attribute else value


def plug_ins(group: str, table: Container[str]) -> Mapping[str, str]:
    """Return what other installed packages add to a table of medclip, by name: "module:object".

    Args:
        group: Group of their entry points, such as "medclip.adapters".
        table: Rows that medclip has itself; an entry of that name is left out.
    """
    return {name: target for name, target in _entries(group).items() if name not in table}


class Table(UserDict[str, _Row]):
    """Rows by name, and behind them those that other installed packages add.

    Args:
        group: Group of their entry points, each of which is a row; one of a name that stands here is left out.
        rows: Rows that medclip has itself.
    """

    def __init__(self, group: str, rows: Mapping[str, _Row]) -> None:
        self._group, self._rows = group, dict(rows)

    @property
    def data(self) -> dict[str, _Row]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All rows, as UserDict reads them; others are imported when a row is asked for, and not before."""
        brought = plug_ins(self._group, self._rows)
        return self._rows | {name: import_name(row) for name, row in brought.items()} if brought else self._rows


@cache
def _entries(group: str) -> Mapping[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=group)}


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

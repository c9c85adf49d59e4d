"""What packages of others add to a table of medclip: entry points of the table's group."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def plug_ins(group: str, table: Container[str]) -> Mapping[str, str]:
    """Return the entries that other installed packages bring, by name: "module:object".

    Args:
        group: Of their entry points, such as "medclip.adapters".
        table: What medclip has itself; an entry of that name is left out.
    """
    return {name: place for name, place in _entries(group).items() if name not in table}


@cache
def _entries(group: str) -> Mapping[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def load_place(place: str) -> Any:
    """Import what "module:object" names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

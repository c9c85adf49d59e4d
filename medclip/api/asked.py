"""What a run was asked, as its ledger can keep it: so that a later command needs the output folder alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from medclip.files.dicomweb.server import is_dicomweb
from medclip.files.store_files import is_store
from medclip.files.stores import place_of
from medclip.options import options_of
from medclip.settings import CHOICES, ReadPolicy, Settings

_IMAGES = ("path", "table")
"""What may hold values in memory."""


class _NotKept(Exception):
    """An argument that no text can stand for."""


def what_was_asked(given: Any) -> dict[str, Any]:
    """Return the options of a verb that say what a run is, as JSON can hold them.

    What lives in memory is left out, and a query to a PACS, which may name a patient; see `not_kept`.

    Args:
        given: A value of a class of options; relative paths are of the present folder.
    """
    asked: dict[str, Any] = {}
    for one in options_of(given).values():
        value = getattr(given, one.name)
        if not one.is_of_call and not (one.name == "query" and value):
            with suppress(_NotKept):
                asked[one.name] = _kept(one.name, value, one.is_place)
    return asked


def not_kept(declared: Any, asked: Mapping[str, Any]) -> set[str]:
    """Return the options that say what a run is, and that `what_was_asked` could not keep."""
    return {one.name for one in options_of(declared).values() if not one.is_of_call} - {*asked}


def arguments_again(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `what_was_asked` kept."""
    again = dict(asked)
    if again.get("settings") is not None:
        kept = dict(again["settings"])
        again["settings"] = Settings(**{**kept, "policy": ReadPolicy(**kept["policy"]), "home": Path(kept["home"])})
    return again


def _kept(name: str, value: Any, is_place: bool = False) -> Any:
    if isinstance(value, Settings):
        if not set(value.policy.changes()) <= set(CHOICES):
            raise _NotKept
        policy = {field: getattr(value.policy, field) for field in CHOICES}
        simple = {field.name: getattr(value, field.name) for field in fields(value)}
        return {**simple, "policy": policy, "home": os.path.abspath(value.home)}
    if name == "path" and is_store(value):
        return str(place_of(value))
    if name == "path" and is_dicomweb(value):
        return str(value)
    if isinstance(value, Path) or (is_place and isinstance(value, str) and os.path.exists(value)):
        return os.path.abspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if name == "export":
        return [_absolute_export(each) for each in ([value] if isinstance(value, str) else value)]
    if isinstance(value, (list, tuple)) and name not in _IMAGES:
        return [_kept(name, each, is_place) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _kept(name, each) for key, each in value.items()}
    pack = getattr(value, "path", None)
    if name == "model" and isinstance(pack, Path):  # a loaded one stands for its pack
        return os.path.abspath(pack)
    raise _NotKept


def _absolute_export(text: str) -> str:
    """Return FORM=DIR with the folder's whole path."""
    form, is_equal, place = text.partition("=")
    return text if not place or "://" in place else f"{form}{is_equal}{os.path.abspath(place)}"

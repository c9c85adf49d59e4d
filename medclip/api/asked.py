"""What a run was asked, as its ledger can keep it: so that a later command needs the output folder alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from medclip.files.stores.remote import place_of
from medclip.files.stores.store_files import is_store
from medclip.settings import ReadPolicy, Settings

_OF_ONE_CALL = frozenset({"out", "work", "progress", "log", "metrics", "add", "retry_failed", "limit", "dry_run"})
"""Of that call alone; the next one has its own."""
_PLACES = frozenset({"path", "table", "model", "key_file", "backend", "results_to", "stage_to"})
"""Arguments that may name a file or folder, or something else by a name."""
_POLICY = ("uneven_slices", "mpp_um", "accept_unterminated")
"""What commands have options for."""


class _NotKept(Exception):
    """An argument that no text can stand for."""


def what_was_asked(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a verb as JSON can hold them.

    None where one of them is a value that lives in memory, and of a query to a PACS, which may name a patient.

    Args:
        arguments: By name; relative paths are of the present folder.
    """
    if arguments.get("query"):
        return None
    try:
        return {name: _kept(name, value) for name, value in arguments.items() if name not in _OF_ONE_CALL}
    except _NotKept:
        return None


def arguments_again(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `what_was_asked` kept."""
    again = dict(asked)
    if again.get("settings") is not None:
        kept = dict(again["settings"])
        again["settings"] = Settings(**{**kept, "policy": ReadPolicy(**kept["policy"]), "home": Path(kept["home"])})
    return again


def _kept(name: str, value: Any) -> Any:
    if isinstance(value, Settings):
        if not set(value.policy.changes()) <= set(_POLICY):
            raise _NotKept
        policy = {field: getattr(value.policy, field) for field in _POLICY}
        simple = {field.name: getattr(value, field.name) for field in fields(value)}
        return {**simple, "policy": policy, "home": os.path.abspath(value.home)}
    if name == "path" and is_store(value):
        return str(place_of(value))
    if isinstance(value, Path) or (name in _PLACES and isinstance(value, str) and os.path.exists(value)):
        return os.path.abspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and name not in _PLACES:
        return [_kept(name, each) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _kept(name, each) for key, each in value.items()}
    pack = getattr(value, "path", None)
    if name == "model" and isinstance(pack, Path):  # a loaded one stands for its pack
        return os.path.abspath(pack)
    raise _NotKept

"""Weights of an image tower alone, which say nothing of themselves: the user names timm's tower or its config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medclip.models.interchange.layouts.layout import Layout, Place, Source
from medclip.models.interchange.layouts.timm_folder import is_timm, read_tower


def _matches(place: Place) -> bool:
    if place.architecture is None:
        return False
    file = Path(place.architecture)
    if file.suffix == ".json" and file.is_file():
        return is_timm(_config_in(file))
    if place.architecture[:1].isupper():  # as every architecture of open_clip, which need not be looked up then
        return False
    import timm

    return timm.is_model(place.architecture)


def _read(place: Place) -> Source:
    file = Path(place.architecture or "")
    config = _config_in(file) if file.suffix == ".json" else {"architecture": place.architecture}
    return read_tower(place, config, LAYOUT.name)


def _config_in(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


LAYOUT = Layout(
    "timm_checkpoint",
    "timm state dict",
    "weights of an image tower alone, with --architecture and timm's name of it, or a config.json of timm",
    _matches,
    _read,
)

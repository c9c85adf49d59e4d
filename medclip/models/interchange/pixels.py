"""What a checkpoint's own files say about its pixels, in open_clip's words (`preprocess_cfg`). No torch here.

Keys beyond open_clip's: `size` (the side that the file states, for a comparison with the tower's), `resize_px`,
`centre` and `resampler`, as `medclip.models.inputs.preprocess.Preprocess` has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import CLIP_MEAN, CLIP_STD

PROCESSOR = "preprocessor_config.json"
"""Where transformers keeps what its image processor does."""
JOINT_PROCESSOR = "processor_config.json"
"""Where transformers 5 keeps it if it is saved together with the tokenizer: under "image_processor"."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters by their numbers, as `resample` states them."""
_TORCHVISION_SINCE = 5
"""Major version of transformers."""
_TORCHVISION_FILTERS = ("bilinear", "bicubic")
_CLIP: Mapping[str, Any] = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "square": False,
}
_SQUASHED: Mapping[str, Any] = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": _HALF,
    "image_std": _HALF,
    "square": True,
}
_PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "CLIP": _CLIP,
    "ChineseCLIP": _CLIP,
    "Bit": _CLIP,
    "Siglip": {**_SQUASHED, "resample": 3},
    "ViT": {**_SQUASHED, "resample": 2},
    "DeiT": {
        **_SQUASHED,
        "size": {"height": 256, "width": 256},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
    },
}
"""What transformers' processors do where the file leaves it out; `square`: how a `size` of one number is meant."""
_TIMM_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}


def from_open_clip(preprocess_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return an open_clip `preprocess_cfg` with what open_clip fills in.

    Args:
        preprocess_cfg: Contents of `preprocess_cfg` in an open_clip_config.json, or an entry of open_clip's list of
            pre-trained weights.

    Example:
        >>> from_open_clip({"mean": 0.5, "std": 0.5, "resize_mode": "squash"})["mean"]
        [0.5, 0.5, 0.5]
    """
    given = {key: value for key, value in preprocess_cfg.items() if value is not None}
    filter_ = given.get("interpolation", "bicubic")
    return {
        "resize_mode": "shortest",
        "fill_color": 0,
        **{key: value for key, value in given.items() if key not in ("mode", "size")},  # the tower's
        "interpolation": "bicubic" if filter_ == "random" else filter_,  # a random filter is one for training
        "mean": _three(given.get("mean", CLIP_MEAN)),
        "std": _three(given.get("std", CLIP_STD)),
    }


def from_processor(config: Mapping[str, Any], place: Path | str = PROCESSOR, *, version: int = 4) -> dict[str, Any]:
    """Return what an image processor of transformers does.

    Up to transformers 4 a processor resizes with Pillow, unless it was saved as a "fast" one. Transformers 5 resizes
    with torchvision, and no longer writes the word. They differ by a grey level in some pixels, which
    moved vectors of a SigLIP by up to 4e-4.

    Args:
        config: The processor's file.
        place: Name of its place, for errors.
        version: Major version of transformers that saved it.

    Raises:
        MedclipError: PACK_INVALID for a processor whose steps are unknown or cannot be made.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    family = kind.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    values = {"do_resize": True, "do_rescale": True, "do_normalize": True, **_PROCESSORS.get(family, {})}
    values |= {key: value for key, value in config.items() if value is not None}
    if family not in _PROCESSORS and not {"size", "resample", "image_mean", "image_std"} <= config.keys():
        raise _unknown(place, f"it is of the kind {kind!r} and leaves out what this kind does")
    if not values["do_resize"] or values.get("do_pad"):
        raise _unknown(place, "it " + ("pads images" if values["do_resize"] else "does not resize images"))
    resized, mode = _resized(values["size"], square=bool(values.get("square")), place=place)
    side = _side(values["crop_size"], place) if values.get("do_center_crop") else resized
    if mode == "shortest" and side is resized and not values.get("do_center_crop"):
        raise _unknown(place, "it keeps the aspect ratio and cuts nothing off, so that images are not square")
    factor = values.get("rescale_factor", 1 / 255) if values["do_rescale"] else 1.0
    if not isinstance(factor, int | float) or factor <= 0:
        raise _unknown(place, f"its rescale_factor is {factor!r}")
    mean, std = (values["image_mean"], values["image_std"]) if values["do_normalize"] else (0.0, 1.0)
    filter_ = values.get("resample", 2)
    if filter_ not in range(len(_FILTERS)):
        raise _unknown(place, f"its resample is {filter_!r}")
    torchvision = (kind.endswith("Fast") or version >= _TORCHVISION_SINCE) and _FILTERS[filter_] in _TORCHVISION_FILTERS
    return {
        "size": side,
        "mean": [value / (255 * factor) for value in _numbers("image_mean", mean, place)],
        "std": [value / (255 * factor) for value in _numbers("image_std", std, place)],
        "interpolation": _FILTERS[filter_],
        "resize_mode": mode,
        "fill_color": 0,
        "centre": "floor",
        "resampler": "torchvision" if torchvision else "pillow",
        **({"resize_px": resized} if resized != side else {}),
    }


def read_processor(folder: Path) -> dict[str, Any]:
    """Return what the image processor of a folder does, by either of transformers' files; nothing where there is none.

    Raises:
        MedclipError: PACK_INVALID for a file that is no JSON.
    """
    for name, inside in ((PROCESSOR, None), (JOINT_PROCESSOR, "image_processor")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise _unknown(path, "the file cannot be read") from e
        if isinstance(config, dict) and inside is not None:
            config = config.get(inside)
            if config is None:  # a processor of older versions, which kept its parts in files of their own
                continue
        if not isinstance(config, dict):
            raise _unknown(path, "the file is no image processor")
        return from_processor(config, path, version=_saved_by(folder))
    return {}


def _saved_by(folder: Path) -> int:
    """Return the major version of transformers that saved a model; 4 where its config does not say."""
    try:
        version = json.loads((folder / "config.json").read_text(encoding="utf-8"))["transformers_version"]
        return int(str(version).partition(".")[0])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _TORCHVISION_SINCE - 1


def from_timm(pretrained_cfg: Mapping[str, Any], place: Path | str = "config.json") -> dict[str, Any]:
    """Return what timm does to images for a model, from the `pretrained_cfg` of its config.json.

    What is left out is as `timm.data.resolve_data_config` has it: ImageNet's mean and standard deviation, bicubic, a
    centre of 87.5 %.

    Raises:
        MedclipError: PACK_INVALID for images that are not square or not in colour, and for unknown modes.
    """
    given = {key: value for key, value in pretrained_cfg.items() if value is not None}
    size = given.get("input_size", (3, 224, 224))
    channels, height, width = size if isinstance(size, list | tuple) and len(size) == 3 else (0, 0, 0)
    if channels != 3 or height != width or type(height) is not int:
        raise _unknown(place, f"its input_size is {given.get('input_size')!r}; three channels and a square can be made")
    mode, share = str(given.get("crop_mode", "center")), given.get("crop_pct", 0.875)
    if mode not in _TIMM_MODES or not isinstance(share, int | float) or not 0 < share <= 1:
        raise _unknown(place, f"its crop_mode is {mode!r} and its crop_pct {share!r}")
    resized, mean = math.floor(height / share), _numbers("mean", given.get("mean", IMAGENET_MEAN), place)
    return {
        "size": height,
        "mean": mean,
        "std": _numbers("std", given.get("std", IMAGENET_STD), place),
        "interpolation": str(given.get("interpolation", "bicubic")),
        "resize_mode": _TIMM_MODES[mode],
        "fill_color": [round(255 * value) for value in mean] if mode == "border" else 0,
        **({"resize_px": resized} if resized != height else {}),
    }


def other_arithmetic(pixels: Mapping[str, Any], library: str) -> list[str]:
    """Return notes of what open_clip and timm, which use Pillow and round half a pixel, do otherwise than a pack.

    Args:
        pixels: The pack's `preprocess_cfg`.
        library: Name of the library: "open_clip" or "timm".
    """
    notes = []
    if "centre" in pixels:
        notes.append(f"Where an odd number of rows or columns is cut off, {library}'s centre is one pixel further.")
    if "resampler" in pixels:
        notes.append(f"{library} resizes with Pillow's arithmetic, not with that of {pixels['resampler']}.")
    return notes


def _resized(size: Any, *, square: bool, place: Path | str) -> tuple[int, str]:
    """Return the side that images are resized to, and how."""
    if isinstance(size, Mapping):
        if set(size) == {"shortest_edge"}:
            return _side(size["shortest_edge"], place), "shortest"
        if set(size) == {"height", "width"}:
            return _side(size, place), "squash"
        raise _unknown(place, f"its size is {dict(size)!r}")
    return _side(size, place), "squash" if square else "shortest"


def _side(size: Any, place: Path | str) -> int:
    sides = list(size.values()) if isinstance(size, Mapping) else [size]
    if not all(type(side) is int and side > 0 for side in sides) or len(set(sides)) != 1:
        raise _unknown(place, f"its images are {size!r}, which is no square")
    return next(iter(sides))


def _three(value: Any) -> Any:
    """Return a value a channel; what is neither a number nor a list stays what it is, and is refused later on."""
    if isinstance(value, int | float):
        return [value] * 3
    return list(value) * (3 if len(value) == 1 else 1) if isinstance(value, list | tuple) else value


def _numbers(key: str, value: Any, place: Path | str) -> list[float]:
    """Return a number a channel."""
    numbers = _three(value)
    if not isinstance(numbers, list) or len(numbers) != 3 or not all(type(one) in (int, float) for one in numbers):
        raise _unknown(place, f"its {key} is {str(value)[:60]}, which is not three numbers")
    return numbers


def _unknown(place: Path | str, what: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"how this image processor treats images cannot be followed: {what}.",
        where=place,
        hint="State it yourself: --preset NAME, or --resize, --mean and --std.",
    )

"""From an adapter's view to the square of pixels a model takes. No torch here: reading workers import this."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.sample import View

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
"""What the EfficientNet-Lite weights were trained with (timm's default_cfg): grey values in [-1, 1]."""
MAX_SIDE_PX = 4096
"""The largest side of a model's images, above that of any tower known. At 20,000 one image takes 4.8 GB."""
GENERIC = "generic"
"""Name of the rendering used to infer a modality, beside the modality names in `Preprocess.adapters`."""


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the model's input. Letterbox to a square on the reader's side, normalisation on the model's."""

    size_px: int = 224
    mean: tuple[float, float, float] = MEAN
    """Per channel, in units of [0, 1]."""
    std: tuple[float, float, float] = STD
    interpolation: str = "bicubic"
    fill: int = 0
    """Grey value (0 to 255) around images that are not square."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Preprocessing hash of the adapter of each modality (and "generic") that the model was trained through."""

    def to_array(self, view: View) -> NDArray[np.uint8]:
        """Turn a view into the model's input.

        Args:
            view: H x W x C pixels of any value range.

        Returns:
            uint8 [size_px, size_px, 3], aspect ratio kept, black around.
        """
        from medclip.imaging.geometry import letterbox
        from medclip.imaging.intensity import to_uint8

        return letterbox(to_uint8(view), self.size_px)

    def to_config(self) -> dict[str, Any]:
        """Return the `preprocess_cfg` of open_clip_config.json."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": "longest",
            "fill_color": self.fill,
        }

    def digest(self) -> str:
        """Hash of everything that changes the pixels: equal digest, equal input. 16 hex characters."""
        text = json.dumps([self.size_px, self.to_config(), dict(sorted(self.adapters.items()))], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_config(config: Mapping[str, Any], adapters: Mapping[str, str]) -> Preprocess:
    """Read the settings back from an open_clip_config.json.

    Args:
        config: The whole file: `model_cfg` and `preprocess_cfg`.
        adapters: Preprocessing hashes, kept in manifest.json.

    Raises:
        MedclipError: PACK_INVALID for settings that the readers cannot produce.
    """
    side = square_side(config["model_cfg"])
    values = config.get("preprocess_cfg", {})
    settings = (values.get("interpolation", "bicubic"), values.get("resize_mode"), values.get("fill_color", 0))
    if settings != ("bicubic", "longest", 0):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its preprocessing is {settings}; medclip makes ('bicubic', 'longest', 0).",
            hint="Load it with open_clip instead.",
        )
    mean, std = values.get("mean", MEAN), values.get("std", STD)
    return Preprocess(side, *normalisation(mean, std), "bicubic", 0, dict(adapters))


def square_side(model_cfg: Mapping[str, Any]) -> int:
    """Return the side of a model's images in pixels.

    Raises:
        MedclipError: PACK_INVALID for images that are not square, and sides that are no numbers of pixels up to
            `MAX_SIDE_PX`.
    """
    size = model_cfg["vision_cfg"].get("image_size", 224)
    sides = [size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or not sides or not all(type(n) is int and n > 0 for n in sides):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.image_size is {size!r}; it takes a number of pixels.",
            hint="Correct it as the model's source has it.",
        )
    if max(sides) > MAX_SIDE_PX:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.image_size is {size!r}; {MAX_SIDE_PX:,} pixels are the most that can be made.",
            hint="Correct it as the model's source has it.",
        )
    if len(set(sides)) != 1:
        raise MedclipError(Reason.PACK_INVALID, f"the model wants {size} pixels; only square images can be made.")
    return sides[0]


Triple = tuple[float, float, float]


def normalisation(mean: Any, std: Any) -> tuple[Triple, Triple]:
    """Return the mean and the standard deviation of each channel, in units of [0, 1], as a config states them.

    Raises:
        MedclipError: PACK_INVALID for anything but three finite numbers each, or a deviation that is not above 0.
    """
    return _three_floats("mean", mean), _three_floats("std", std)


def _three_floats(name: str, values: Any) -> Triple:
    try:
        a, b, c = (float(v) for v in values)
    except (TypeError, ValueError) as e:
        raise _no_normalisation(name, values) from e
    if not all(math.isfinite(v) and (v > 0 or name != "std") for v in (a, b, c)):
        raise _no_normalisation(name, values)
    return a, b, c


def _no_normalisation(name: str, values: Any) -> MedclipError:
    above = " above 0" if name == "std" else ""
    return MedclipError(
        Reason.PACK_INVALID,
        f"the config's preprocess_cfg.{name} is {str(values)[:60]}; it takes three numbers{above}, one a channel.",
        hint="Correct it as the model's source has it.",
    )

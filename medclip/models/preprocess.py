"""From an adapter's view to the square of pixels a model takes. No torch here: reading workers import this."""

from __future__ import annotations

import hashlib
import json
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
        """Give the `preprocess_cfg` of open_clip_config.json."""
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
    found = (values.get("interpolation", "bicubic"), values.get("resize_mode"), values.get("fill_color", 0))
    if found != ("bicubic", "longest", 0):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its preprocessing is {found}; medclip makes ('bicubic', 'longest', 0).",
            hint="Load it with open_clip instead.",
        )
    mean, std = values.get("mean", MEAN), values.get("std", STD)
    return Preprocess(side, three_floats(mean), three_floats(std), "bicubic", 0, dict(adapters))


def square_side(model_cfg: Mapping[str, Any]) -> int:
    """Give the side of a model's images in pixels.

    Args:
        model_cfg: open_clip's.

    Raises:
        MedclipError: PACK_INVALID for images that are not square.
    """
    size = model_cfg["vision_cfg"].get("image_size", 224)
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise MedclipError(Reason.PACK_INVALID, f"the model wants {size} pixels; only square images can be made.")
    return int(size[0])


def three_floats(values: Any) -> tuple[float, float, float]:
    """Give three numbers, one for each channel, as floats."""
    a, b, c = (float(v) for v in values)
    return a, b, c

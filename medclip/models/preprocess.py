"""From an adapter's view to the pixels a model takes. No torch here: reading workers import this."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.imaging.native_aspect import TokenBudget
    from medclip.sample import View

    Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    """uint8 [V, S, S, 3] of a model that takes squares; V arrays [H, W, 3] of one that takes native aspect ratios."""

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
"""What the EfficientNet-Lite weights were trained with (timm's default_cfg): grey values in [-1, 1]."""
MAX_SIDE_PX = 4096
"""The largest side of a model's images, above that of any tower known. At 20,000 one image takes 4.8 GB."""
MAX_TOKENS = 2**16 - 1
"""Patches of an image, at most. 65,536 would be those of 4,096 px and patches of 16."""
NATIVE_TOWER = "native_aspect"
"""Key of `vision_cfg` for an image tower that takes patches and their places. open_clip refuses it."""
NATIVE_MODE = "native"
"""`resize_mode` of a model that takes images at their own aspect ratio; readers that do not know it refuse the pack."""
GENERIC = "generic"
"""Name of the rendering used to infer a modality, beside the modality names in `Preprocess.adapters`."""


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the model's input: resized on the reader's side, normalised on the model's."""

    size_px: int = 224
    mean: tuple[float, float, float] = MEAN
    """Per channel, in units of [0, 1]."""
    std: tuple[float, float, float] = STD
    interpolation: str = "bicubic"
    fill: int = 0
    """Grey value (0 to 255) around images that are not square."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Preprocessing hash of the adapter of each modality (and "generic") that the model was trained through."""
    budget: TokenBudget | None = None
    """Images at their own aspect ratio within so many patches; None: a letterboxed square."""

    def to_array(self, view: View) -> NDArray[np.uint8]:
        """Turn a view into the model's input.

        Args:
            view: H x W x C pixels of any value range.

        Returns:
            What `fit` makes of it.
        """
        from medclip.imaging.intensity import to_uint8

        return self.fit(to_uint8(view))

    def fit(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring H x W x C uint8 pixels to the model's size.

        Returns:
            uint8 [size_px, size_px, 3], aspect ratio kept, black around; with a token budget uint8 [H, W, 3] of the
            image's aspect ratio, sides multiples of a patch.
        """
        from medclip.imaging.geometry import letterbox

        return letterbox(pixels, self.size_px) if self.budget is None else self.budget.fit(pixels)

    def together(self, images: Sequence[NDArray[np.uint8]]) -> Images:
        """Put images from `fit` together: one array of squares, a tuple of images of any shape."""
        import numpy as np

        return np.stack(images) if self.budget is None else tuple(images)

    def to_config(self) -> dict[str, Any]:
        """Return the `preprocess_cfg` of open_clip_config.json."""
        config = {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": "longest",
            "fill_color": self.fill,
        }
        if self.budget is not None:
            own = {"patch_px": self.budget.patch_px, "max_tokens": self.budget.max_tokens}
            config |= {"resize_mode": NATIVE_MODE, **own}
        return config

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
    if settings not in (("bicubic", "longest", 0), ("bicubic", NATIVE_MODE, 0)):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its preprocessing is {settings}; medclip makes ('bicubic', 'longest', 0) and ('bicubic', 'native', 0).",
            hint="Load it with open_clip instead.",
        )
    mean, std = values.get("mean", MEAN), values.get("std", STD)
    return Preprocess(side, *normalisation(mean, std), "bicubic", 0, dict(adapters), budget_of(config))


def budget_of(config: Mapping[str, Any]) -> TokenBudget | None:
    """Return the token budget of an open_clip_config.json; None where its model takes squares.

    Raises:
        MedclipError: PACK_INVALID where the tower and the preprocessing do not agree, or for sizes that are none.
    """
    values = config.get("preprocess_cfg") or {}
    takes_patches = bool(config["model_cfg"]["vision_cfg"].get(NATIVE_TOWER, False))
    if takes_patches != (values.get("resize_mode") == NATIVE_MODE):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.{NATIVE_TOWER} and preprocess_cfg.resize_mode do not agree on how images are "
            "resized.",
            hint="Take the pack from its source again.",
        )
    if not takes_patches:
        return None
    from medclip.imaging.native_aspect import TokenBudget

    patch, tokens = values.get("patch_px"), values.get("max_tokens")
    if not (type(patch) is int and 1 < patch <= MAX_SIDE_PX and type(tokens) is int and 0 < tokens <= MAX_TOKENS):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's preprocess_cfg has patch_px {patch!r} and max_tokens {tokens!r}; both take whole numbers, "
            f"the first above 1, the second up to {MAX_TOKENS:,}.",
            hint="Correct it as the model's source has it.",
        )
    return TokenBudget(patch, tokens)


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

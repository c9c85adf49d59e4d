"""Replay the augmentations that MobileCLIP's own code stored: a crop, a flip, and torchvision's RandAugment.

Shards of others hold them as `param_aug`: for each augmentation a list of the crop [top, left, height, width], whether
it is mirrored, and pairs of operation and magnitude; parts that were not drawn are not there. Pixels are those of the
reference (https://github.com/apple/ml-mobileclip, Pillow's images), whose operations take the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.training.batches.augment import Op, apply_op

if TYPE_CHECKING:
    from PIL import Image

_OPS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
_FACTORS = ("brightness", "colour", "contrast", "sharpness")


class StoredChange(NamedTuple):
    """One augmentation as MobileCLIP stores it."""

    box: tuple[int, int, int, int] | None
    """Top, left, height and width, in pixels of the stored image; None for all of it."""
    flip: bool
    ops: tuple[tuple[int, float], ...]


def change_of_params(params: Sequence[Any]) -> StoredChange:
    """Read one entry of `param_aug`.

    Raises:
        ValueError: It is of another form.

    Example:
        >>> change_of_params([[4, 1, 29, 32], [[6, -0.27], [12, 0.0]]])
        StoredChange(box=(4, 1, 29, 32), flip=False, ops=((6, -0.27), (12, 0.0)))
    """
    box, flip, ops = None, False, ()
    for part in params:
        if isinstance(part, bool):
            flip = part
        elif isinstance(part, list) and all(isinstance(op, list) and len(op) == 2 for op in part):
            ops = tuple((int(number), float(magnitude)) for number, magnitude in part)
        elif isinstance(part, list) and len(part) == 4:
            top, left, height, width = map(int, part)
            box = (top, left, height, width)
        else:
            raise ValueError("an augmentation of another form")
    if any(not 0 <= number < len(_OPS) for number, _ in ops):
        raise ValueError("an operation that is not known")
    return StoredChange(box, flip, ops)


def replay(image: Image.Image, change: StoredChange, size: int) -> NDArray[np.uint8]:
    """Crop, mirror and change an image, stretched to a square.

    Returns:
        uint8 [size, size, 3].
    """
    from PIL import Image

    image = image.convert("RGB")
    if change.box is not None:
        top, left, height, width = change.box
        image = image.crop((left, top, left + width, top + height))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if change.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for number, magnitude in change.ops:
        image = _changed(image, _OPS[number], magnitude)
    return np.asarray(image)


def _changed(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    from PIL import Image, ImageOps

    pixels = int(magnitude)
    matrices = {
        "shear_x": (1, magnitude, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, magnitude, 1, 0),
        "translate_x": (1, 0, -pixels, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -pixels),
    }
    if name in matrices:
        return image.transform(image.size, Image.Transform.AFFINE, matrices[name], Image.Resampling.NEAREST)
    if name == "rotate":
        return image.rotate(magnitude, resample=Image.Resampling.NEAREST)
    if name == "solarize":
        return ImageOps.solarize(image, magnitude)  # type: ignore[arg-type]  # torchvision's threshold is no whole number
    return image if name == "identity" else apply_op(image, Op(name, magnitude + (name in _FACTORS)))

"""RandAugment: a few changes of an image, drawn once into plain values, then applied. No torch here.

Cubuk et al., RandAugment, 2020, in the form of timm's `rand-m6-mstd0.5-inc1`: the fifteen changes that grow with their
magnitude. Unlike timm, chance comes from the run's own generator, so that a stopped run goes on exactly, and what is
moved in from outside is black, as what medclip puts around an image is (timm: grey).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from medclip.training.recipe.sections.augment import RandAugment

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL import Image

_MOST = 10.0
"""Magnitude at which a change is as strong as it gets."""


class Op(NamedTuple):
    """One change of an image, and how much."""

    name: str
    value: float


def _away_from_one(strength: float, sign: int) -> float:
    return max(0.1, 1 + sign * 0.9 * strength)


_VALUES: Mapping[str, Callable[[float, int], float]] = {
    "auto_contrast": lambda strength, sign: 0,
    "equalize": lambda strength, sign: 0,
    "invert": lambda strength, sign: 0,
    "rotate": lambda strength, sign: sign * 30 * strength,
    "posterize": lambda strength, sign: max(1, 4 - int(4 * strength)),  # Pillow, and timm with it, refuses 0
    "solarize": lambda strength, sign: 256 - min(256, int(256 * strength)),
    "solarize_add": lambda strength, sign: min(128, int(110 * strength)),
    "colour": _away_from_one,
    "contrast": _away_from_one,
    "brightness": _away_from_one,
    "sharpness": _away_from_one,
    "shear_x": lambda strength, sign: sign * 0.3 * strength,
    "shear_y": lambda strength, sign: sign * 0.3 * strength,
    "translate_x": lambda strength, sign: sign * 0.45 * strength,
    "translate_y": lambda strength, sign: sign * 0.45 * strength,
}
"""Change to its value: of a strength from 0 to 1, and a sign where both directions are the same to it. In timm's order.
Degrees, bits that stay, grey values, factors, shares of the side."""


def draw_ops(settings: RandAugment, rng: Generator, *, may_tint: bool = True) -> tuple[Op, ...]:
    """Draw the changes of one image; every call takes the same number of draws.

    Args:
        settings: Number and strength of changes.
        rng: Source of chance.
        may_tint: Whether colour may change: not where it has a meaning of its own, such as a stain; a change of it is
            left out then.

    Example:
        >>> import numpy as np
        >>> draw_ops(RandAugment(share=1), np.random.default_rng(0))
        (Op(name='brightness', value=1.5447205052718869), Op(name='shear_y', value=-0.19420621444693864))
    """
    names, ops = list(_VALUES), []
    for _ in range(settings.layers):
        choice, taken, side = rng.random(3)
        magnitude = settings.magnitude + settings.spread * rng.standard_normal()
        if taken >= settings.share:
            continue
        name = names[int(choice * len(names))]
        if may_tint or name not in ("colour", "invert", "solarize", "solarize_add", "posterize", "equalize"):
            strength = min(max(magnitude, 0.0), _MOST) / _MOST
            ops.append(Op(name, float(_VALUES[name](strength, -1 if side > 0.5 else 1))))
    return tuple(ops)


def apply_op(image: Image.Image, op: Op) -> Image.Image:
    """Apply one change to an image in mode L or RGB."""
    from PIL import Image, ImageEnhance, ImageOps

    def moved(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC)

    def added() -> Image.Image:
        table = [min(255, grey + int(op.value)) if grey < 128 else grey for grey in range(256)]
        return image.point(table * len(image.getbands()))

    changes: dict[str, Callable[[], Any]] = {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "rotate": lambda: image.rotate(op.value, resample=Image.Resampling.BICUBIC),
        "posterize": lambda: ImageOps.posterize(image, int(op.value)),
        "solarize": lambda: ImageOps.solarize(image, int(op.value)),
        "solarize_add": added,
        "colour": lambda: ImageEnhance.Color(image).enhance(op.value),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(op.value),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(op.value),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(op.value),
        "shear_x": lambda: moved(1, op.value, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, op.value, 1, 0),
        "translate_x": lambda: moved(1, 0, op.value * image.width, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, op.value * image.height),
    }
    return changes[op.name]()

"""Augmentation of training images and clips: chance is drawn once into plain values, then applied. No torch here.

What is drawn for an image is drawn for a clip, and the place along its slices or frames beside it. A clip is cut out
with its change, in one pass, by the code that cuts the clips which are scored; grey values change after that.

RandAugment (Cubuk et al. 2020) has the form of timm's `rand-m6-mstd0.5-inc1`: the fifteen changes that grow with their
magnitude. Unlike timm, chance comes from the run's own generator, so that a stopped run goes on exactly, and what is
moved in from outside is black, as what medclip puts around an image is (timm: grey).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medclip.training.recipe.augment import Augment, MedicalAugment, RandAugment

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL import Image

    from medclip.imaging.volume.voxels import Voxels
    from medclip.models.inputs.volume_input import VolumeInput


_MOST = 10.0
"""Magnitude at which a change is as strong as it gets."""


class Op(NamedTuple):
    """One change of an image, and how much."""

    name: str
    value: float
    seed: int = 0
    """Of what the change draws itself: a field, or noise."""


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
        >>> draw_ops(RandAugment(share=1, layers=1), np.random.default_rng(0))
        (Op(name='brightness', value=1.5447205052718869, seed=0),)
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


MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
"""Changes that move what an image shows."""
MEDICAL = ("level", "bias_field", "noise", "blur")
"""Changes of `MedicalAugment`, in the order in which they are made."""
_GRID = 256
"""Side of the grid that noise is drawn on, whatever the size of the image: replayed at another size it is the same."""


def draw_medical(settings: MedicalAugment, rng: Generator) -> tuple[Op, ...]:
    """Draw the changes of one image that scanners make; every call takes the same number of draws."""
    ops = []
    for name in MEDICAL:
        taken, size = rng.random(2)
        seed, most = int(rng.integers(2**31)), getattr(settings, name)
        value = most * (2 * size - 1 if name == "level" else size)
        if taken < settings.share and value:
            ops.append(Op(name, float(value), seed))
    return tuple(ops)


def _blurred(image: Image.Image, op: Op) -> Image.Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(op.value * max(image.size)))


def _with_field(image: Image.Image, op: Op) -> Image.Image:
    """Multiply by a smooth factor: the exponential of a polynomial of second degree, at most `value` in size."""
    from PIL import Image

    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    y_H1, x_1W = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    weights = np.random.default_rng(op.seed).uniform(-1, 1, 5)
    field_HW = sum(w * of for w, of in zip(weights, (x_1W, y_H1, x_1W * y_H1, x_1W**2, y_H1**2), strict=True))
    field_HW = np.exp(op.value * field_HW / max(np.abs(weights).sum(), 1e-9))
    field = field_HW if pixels.ndim == 2 else field_HW[:, :, None]
    return Image.fromarray((pixels * field).clip(0, 255).round().astype(np.uint8))


def _with_noise(image: Image.Image, op: Op) -> Image.Image:
    """Add Gaussian noise, equal in all channels; black stays black."""
    from PIL import Image

    pixels = np.asarray(image)
    noise_GG = np.random.default_rng(op.seed).standard_normal((_GRID, _GRID), np.float32)
    rows, columns = (np.arange(side) * _GRID // side for side in pixels.shape[:2])
    noise = noise_GG[rows[:, None], columns] if pixels.ndim == 2 else noise_GG[rows[:, None], columns, None]
    noisy = (pixels + 255 * op.value * noise).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(np.where(pixels > 0, noisy, pixels))


def _at_level(image: Image.Image, op: Op) -> Image.Image:
    table = [grey and min(max(round(grey + 255 * op.value), 0), 255) for grey in range(256)]
    return image.point(table * len(image.getbands()))


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
        "level": lambda: _at_level(image, op),
        "bias_field": lambda: _with_field(image, op),
        "noise": lambda: _with_noise(image, op),
        "blur": lambda: _blurred(image, op),
    }
    return changes[op.name]()


_SIDE = re.compile(
    r"\b((left|right)\w*|[lr]|[lr]t|ll[ln]|l[lu]l|r[lmu]l|[lr][lu]q|[lr]v[hot]?|[lr]a[deho]?|rca|lcx|lingula\w*|od|os"
    r"|dextro\w*|levo\w*|situs|o'?clock)\b",
    re.IGNORECASE,
)
_TRIES = 10
"""Draws of a stretched crop before the middle of the image is taken, as in torchvision."""
REDUCING_GAP = 2.0
"""Large images are first averaged down by a whole number as long as so many times the wanted side is left; the result
differs from a single pass by less than that from another good filter would (over 54 dB)."""


@dataclass(frozen=True)
class Change:
    """What is done to one image."""

    zoom: float
    """Side of the part that is kept, relative to the frame's: a square of the image's longest side, or the image."""
    shift: tuple[float, float]
    """Where that part lies in the room that is left: (-1, -1) is the upper left corner, (1, 1) the lower right."""
    rotate_deg: float
    gain: float
    gamma: float
    flip: bool
    hue: float = 0.0
    """Turn of the hue as a share of the circle."""
    saturation: float = 1.0
    """Factor on the distance of each colour from grey."""
    stretch: float = 1.0
    """Largest ratio of the sides of a part that becomes a square; 1 keeps the aspect ratio."""
    parts: tuple[tuple[float, float], ...] = ()
    """With `stretch`: share of the image's area and ratio of width to height, of which the first that fits into the
    image is taken; `zoom` says nothing then."""
    ops: tuple[Op, ...] = ()
    """Further changes, one after the other, of the part that was cut out."""


def draw_change(settings: Augment, rng: Generator, *, may_flip: bool, may_tint: bool = True) -> Change:
    """Draw a change; every call takes the same number of draws.

    Args:
        settings: Settings of what may change, and how much.
        rng: Source of chance.
        may_flip: Whether the image may be mirrored: not where a text or the record names a side.
        may_tint: Whether colour may change: not where it has a meaning of its own, such as a stain.
    """
    u = rng.random(7)
    tint = rng.random(2) if may_tint else (0.5, 0.5)
    low, high = settings.crop_scale
    parts: tuple[tuple[float, float], ...] = ()
    if settings.stretch > 1:
        draws_TP = rng.random((_TRIES, 2))
        limit = math.log(settings.stretch)
        parts = tuple((low + (high - low) * a, math.exp(limit * (2 * r - 1))) for a, r in draws_TP.tolist())
    ops = () if settings.rand_augment is None else draw_ops(settings.rand_augment, rng, may_tint=may_tint)
    ops += () if settings.medical is None else draw_medical(settings.medical, rng)
    return Change(
        zoom=math.sqrt(low + (high - low) * u[0]),
        shift=(2 * u[1] - 1, 2 * u[2] - 1),
        rotate_deg=settings.rotate_deg * (2 * u[3] - 1),
        gain=1 + settings.brightness * (2 * u[4] - 1),
        gamma=math.exp(settings.contrast * (2 * u[5] - 1)),
        flip=bool(may_flip and u[6] < settings.flip),
        hue=settings.hue * (2 * tint[0] - 1),
        saturation=1 + settings.saturation * (2 * tint[1] - 1),
        stretch=settings.stretch,
        parts=parts,
        ops=ops,
    )


def change_to_plain(change: Change) -> dict[str, Any]:
    """Return a change as plain values of JSON, from which `change_of_plain` makes it again to the bit."""
    return vars(change) | {"ops": [list(op) for op in change.ops]}


def change_of_plain(values: Mapping[str, Any]) -> Change:
    """Read what `change_to_plain` returned.

    Raises:
        TypeError, ValueError, KeyError: It is something else.
    """
    parts = tuple((float(area), float(ratio)) for area, ratio in values["parts"])
    across, down = values["shift"]
    ops = tuple(Op(*op) for op in values["ops"])
    return Change(**{**values, "parts": parts, "shift": (across, down), "ops": ops})


PIXELS = 1
"""Raised when a stored change gives other pixels."""


def pixels_identity() -> dict[str, Any]:
    """Return what decides, beside the stored image and the change, which pixels a replayed change gives."""
    import PIL

    return {"version": PIXELS, "pillow": PIL.__version__, "changes": [*_VALUES, *MEDICAL], "grid": _GRID}


def largest_px(settings: Augment, size: int) -> int:
    """Return the longest side that an image needs for any change that can be drawn to come out at `size` pixels."""
    return math.ceil(size * math.sqrt(settings.stretch / settings.crop_scale[0]))


def names_a_side(text: str) -> bool:
    """Whether a caption speaks of left or right (or of a lobe or an eye by abbreviation)."""
    return _SIDE.search(text) is not None


def apply_change(
    image: NDArray[np.uint8] | Image.Image,
    change: Change,
    size: int | tuple[int, int],
    extent: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Crop, turn, mirror and resample, as the model's square shows the image; then change colours and grey values.

    Args:
        image: uint8 H x W x 3 (or x 1), or a Pillow image in mode RGB or L. Grey images stay so until the end, which
            takes a third of the time and gives the same values.
        change: Change from `draw_change`.
        size: Side of the square that the image is brought into, in pixels; or height and width of the result, which
            the image fills: parts of the image's own aspect ratio are cut out then.
        extent: Height and width of what the square shows of the image, in its pixels; None: all of it, letterboxed.

    Returns:
        uint8 [H, W, 3] of that size, black around; black stays black.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if isinstance(size, int):
        frame = _Frame(_around(image) if extent is None else (extent[1], extent[0]), (size, size))
    else:
        frame = _Frame(image.size, (size[1], size[0]))
    if change.parts:
        part = _stretched(image, change, frame)
    else:
        part = _turned(image, change, frame) if change.rotate_deg else _cut(image, change, frame)
    for op in change.ops:
        part = apply_op(part, op)
    if part.mode == "RGB" and (change.hue or change.saturation != 1):
        part = part.convert("RGB", _tint(change.hue, change.saturation))
    if change.gain != 1 or change.gamma != 1:
        part = part.point(grey_table(change).tolist() * len(part.getbands()))
    return np.asarray(part if part.mode == "RGB" else part.convert("RGB"))


def grey_table(change: Change) -> NDArray[np.uint8]:
    """Return what becomes of each of the 256 grey values; black stays black."""
    return np.clip(255 * change.gain * (np.arange(256) / 255) ** change.gamma, 0, 255).round().astype(np.uint8)


class _Frame(NamedTuple):
    """What the whole result would show of an image, were nothing cut off: width and height."""

    extent: tuple[float, float]
    """In pixels of the image."""
    size: tuple[int, int]
    """In pixels of the result."""

    def scale(self, zoom: float) -> tuple[float, float]:
        """Return how many pixels of the image make one of the result, across and down."""
        return self.extent[0] * zoom / self.size[0], self.extent[1] * zoom / self.size[1]

    def centre(self, image: Image.Image, change: Change) -> tuple[float, float]:
        """Return the centre of the part that is kept, in the image."""
        x, y = (extent * (1 - change.zoom) / 2 * shift for extent, shift in zip(self.extent, change.shift, strict=True))
        return image.width / 2 + x, image.height / 2 + y


def _turned(image: Image.Image, change: Change, frame: _Frame) -> Image.Image:
    """Resample once with a bicubic filter of the source's scale, after an antialiased step where the image is large."""
    from PIL import Image

    longest, size = max(image.size), max(frame.size)
    if longest * change.zoom > 1.5 * size:
        factor = round(1.3 * size / change.zoom) / longest
        width, height = (max(1, round(side * factor)) for side in image.size)
        before, around = image.size, _around(image)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
        if frame.extent == around:
            frame = frame._replace(extent=_around(image))
        else:
            across, down = (frame.extent[n] * image.size[n] / before[n] for n in (0, 1))
            frame = frame._replace(extent=image.size if frame.extent == before else (across, down))
    across, down = frame.scale(change.zoom)
    centre_x, centre_y = frame.centre(image, change)
    turn = math.radians(change.rotate_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    mirror = -1 if change.flip else 1
    a, b, d, e = mirror * (across * cos), -(down * sin), mirror * (across * sin), down * cos
    half_x, half_y = frame.size[0] / 2, frame.size[1] / 2
    matrix = (a, b, centre_x - a * half_x - b * half_y, d, e, centre_y - d * half_x - e * half_y)
    return image.transform(
        frame.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BICUBIC,
        fillcolor=0 if image.mode == "L" else (0, 0, 0),
    )


def _around(image: Image.Image) -> tuple[int, int]:
    """Return the sides of the square that a letterbox puts around an image."""
    return max(image.size), max(image.size)


def _cut(image: Image.Image, change: Change, frame: _Frame) -> Image.Image:
    """Resample a part that is not turned, antialiased, in one pass."""
    from PIL import Image

    centre, scale = frame.centre(image, change), frame.scale(change.zoom)
    spans = [_span(*each) for each in zip(centre, scale, frame.size, image.size, strict=True)]
    (left, width, x0, x1), (top, height, y0, y1) = spans
    part = image.resize((width, height), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1), reducing_gap=REDUCING_GAP)
    if change.flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = frame.size[0] - left - width
    if part.size == frame.size:
        return part
    square = Image.new(image.mode, frame.size)
    square.paste(part, (left, top))
    return square


def _stretched(image: Image.Image, change: Change, frame: _Frame) -> Image.Image:
    """Cut a part of whole pixels and resample it to a square whatever its shape, as torchvision's RandomResizedCrop.

    Where none of the draws fits, the largest part that may be is taken; torchvision takes the one in the middle.
    """
    from PIL import Image

    left, top, part_width, part_height = part_of_stretched(image.size, change)
    part = image.crop((left, top, left + part_width, top + part_height))
    square = part.resize(frame.size, Image.Resampling.BICUBIC)
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if change.flip else square


def part_of_stretched(size: tuple[int, int], change: Change) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the part that a change with `parts` cuts out, in whole pixels.

    Args:
        size: Width and height of the image in pixels.
        change: The change.
    """
    width, height = size
    fitting = (_sides(width * height * share, ratio) for share, ratio in change.parts)
    part_width, part_height = next(
        ((w, h) for w, h in fitting if 0 < w <= width and 0 < h <= height),
        (min(width, round(height * change.stretch)), min(height, round(width * change.stretch))),
    )
    left, top = (
        min(int((shift + 1) / 2 * (room + 1)), room)
        for shift, room in zip(change.shift, (width - part_width, height - part_height), strict=True)
    )
    return left, top, part_width, part_height


def _sides(area: float, ratio: float) -> tuple[int, int]:
    return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))


def _span(centre: float, scale: float, size: int, length: int) -> tuple[int, int, float, float]:
    """Return first place and number of the pixels that lie on the image, and the part of the image they show."""
    origin = centre - scale * size / 2
    first = min(max(0, round(-origin / scale)), size - 1)
    last = max(min(size, round((length - origin) / scale)), first + 1)
    start = min(max(0.0, origin + first * scale), length - 1e-3)
    return first, last - first, start, max(min(float(length), origin + last * scale), start + 1e-3)


def _tint(hue: float, saturation: float) -> tuple[float, ...]:
    """Return the 3 x 4 matrix that turns colours around the grey axis and scales their distance from it.

    Rodrigues' rotation about (1, 1, 1); grey stays grey, and the mean of the three channels what it is.
    """
    turn = 2 * math.pi * hue
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = grey + saturation * (math.cos(turn) * (np.eye(3) - grey) + math.sin(turn) * cross)
    return tuple(float(v) for row in matrix for v in (*row, 0.0))


class ClipChange(NamedTuple):
    """What is done to one clip."""

    within: Change
    """To all of its slices or frames alike; nothing is turned and no colour changed."""
    at: float
    """Where along the slices or frames it lies, from 0 (at the first) to 1 (at the last)."""


def draw_clip_change(settings: Augment, rng: Generator, *, may_flip: bool) -> ClipChange:
    """Draw a change; every call takes the same number of draws.

    Args:
        settings: Settings of what may change, and how much.
        rng: Source of chance.
        may_flip: Whether the clip may be mirrored: not where a text or the record names a side.
    """
    return ClipChange(draw_change(settings, rng, may_flip=may_flip, may_tint=False), float(rng.random()))


def make_clip(voxels: Voxels, change: ClipChange | None, taken: VolumeInput, size_px: int) -> NDArray[np.uint8]:
    """Cut the clip of a training or validation sample.

    Args:
        voxels: The sample's volume or loop.
        change: Change from `draw_clip_change`; None for validation: the middle one of the clips that are scored.
        taken: The model's treatment of volumes.
        size_px: Side of its clips.

    Returns:
        uint8 [T, S, S, C].

    Raises:
        MedclipError: What the model is not trained on, from `VolumeInput.clips`.
    """
    taken.check(voxels)
    if change is None:
        places = taken.places(voxels)
        return taken.clip(voxels, taken.part(voxels, size_px, at=places[len(places) // 2]), taken.black_white(voxels))
    within = change.within
    part = taken.part(voxels, size_px, at=change.at, zoom=_zoom(within), shift=(within.shift[1], within.shift[0]))
    clip_THWC = taken.clip(voxels, part, taken.black_white(voxels))
    if within.flip:
        clip_THWC = clip_THWC[:, :, ::-1]
    return clip_THWC if within.gain == within.gamma == 1 else grey_table(within)[clip_THWC]


def _zoom(change: Change) -> tuple[float, float]:
    """Return height and width of what is shown, relative to the whole square."""
    if not change.parts:
        return change.zoom, change.zoom
    share, ratio = change.parts[0]
    return min(1.0, math.sqrt(share / ratio)), min(1.0, math.sqrt(share * ratio))

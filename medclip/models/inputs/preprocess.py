"""From an adapter's view to the pixels a model takes. No torch here: reading workers import this."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import KEY as SIGNAL
from medclip.models.inputs.signal_input import SignalInput, no_record, signal_input
from medclip.models.inputs.volume_input import KEY, TUBELET, VolumeInput, volume_input
from medclip.sample import Kind, Modality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.imaging.geometry import Placement, Resize, TokenBudget
    from medclip.sample import View
    from medclip.settings import ReadPolicy, Settings

    Images = NDArray[Any] | Sequence[NDArray[Any]]
    """uint8 [V, S, S, 3] of a model that takes squares; V arrays [H, W, 3] of one that takes native aspect ratios;
    [V, T, S, S, C] of one that takes volumes or loops; int16 [1, 12, T] in microvolts of one that takes ECGs."""

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
"""What the EfficientNet-Lite weights were trained with (timm's default_cfg): grey values in [-1, 1]."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""What open_clip normalises with where a config does not say."""
Centre = Literal["round", "floor"]
Resampler = Literal["pillow", "torchvision", "tensorflow"]
Grey = Literal["repeat"]
Crop = Literal["modality", "none"]
FILTERS = ("bicubic", "bilinear", "lanczos", "hamming", "box", "nearest")
CROPS: tuple[str, ...] = get_args(Crop)
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
    """Per channel, in units of [0, 1]: pixels are divided by 255 first, whatever range the authors' code works in."""
    std: tuple[float, float, float] = STD
    interpolation: str = "bicubic"
    """Key of `medclip.imaging.geometry.INTERPOLATIONS`."""
    fill: int | tuple[int, int, int] = 0
    """Grey value (0 to 255), or one value a channel, around images that are not square."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Preprocessing hash of the adapter of each modality (and "generic") that the model was trained through."""
    budget: TokenBudget | None = None
    """Images at their own aspect ratio within so many patches (`resize` is "native" then); None: a square."""
    resize: Resize = "longest"
    """How an image that is not square becomes one: "longest" side with padding, "shortest" side and the centre cut out,
    "squash" whatever the aspect ratio."""
    resize_px: int | None = None
    """Side that the image is resized to, before its centre of `size_px` is cut out; None: `size_px`."""
    centre: Centre = "round"
    """Whether half a pixel of what is cut off is rounded, as by torchvision, or cut, as by transformers."""
    resampler: Resampler = "pillow"
    """Whose arithmetic resizes, to the bit."""
    grey: Grey = "repeat"
    """How one channel becomes three: three equal ones, before mean and standard deviation."""
    crop: Crop = "modality"
    """Whether the adapters cut an image to what its modality shows before all this; "none": they leave it whole."""
    volume: VolumeInput | None = None
    """How volumes or loops become clips, for a model of them; None for a model of images."""
    signal: SignalInput | None = None
    """How ECGs are taken, for a model of them; None for a model of images."""

    def __post_init__(self) -> None:
        """Keep mode and budget together."""
        if (self.budget is not None) != (self.resize == NATIVE_MODE):
            object.__setattr__(self, "resize", NATIVE_MODE if self.budget is not None else "longest")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, clip or record in a batch; of images at their own aspect ratio that of packed patches."""
        if self.signal is not None:
            return self.signal.shape
        if self.volume is not None:
            return self.volume.num_frames, self.size_px, self.size_px, self.volume.channels
        return (self.size_px, self.size_px, 3) if self.budget is None else self.budget.packed_shape

    @property
    def image_dtype(self) -> str:
        """NumPy's name of what images, clips or records travel as."""
        return "uint8" if self.signal is None else "int16"

    @property
    def takes(self) -> str:
        """What the model takes, as a noun: images, volumes, loops or ECGs."""
        if self.signal is not None:
            return "ECGs"
        return "images" if self.volume is None else {"volume": "volumes", "cine": "loops"}[self.volume.kind]

    @property
    def modality(self) -> Modality | None:
        """The modality of all that the model takes, whatever its card says; None for a model of images or volumes."""
        return None if self.signal is None else Modality.ECG

    @property
    def antialias(self) -> bool:
        """Whether an image that is made smaller is smoothed first: by all resamplers but TensorFlow's default."""
        return self.resampler != "tensorflow" and self.interpolation != "nearest"

    @property
    def value_range(self) -> tuple[float, float]:
        """Return the lowest and the highest value that a pixel can have in front of the image tower."""
        ends = [(value - m) / s for m, s in zip(self.mean, self.std, strict=True) for value in (0.0, 1.0)]
        return min(ends), max(ends)

    @property
    def shows_all(self) -> bool:
        """Whether a model is shown all of an image at its own aspect ratio, so that its view stands for the image."""
        complete = self.resize in ("longest", NATIVE_MODE) and (self.resize_px or 0) <= self.size_px
        return complete and self.volume is None and self.signal is None

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
            uint8 [size_px, size_px, 3]; with a token budget uint8 [H, W, 3] of the image's aspect ratio, sides
            multiples of a patch.

        Raises:
            MedclipError: OTHER_INPUT for a model of volumes, loops or ECGs.
        """
        if self.signal is not None:
            raise no_record(Kind.IMAGE).error(None)
        if self.volume is not None:
            raise MedclipError(Reason.OTHER_INPUT, f"it is a single image, and this model takes {self.takes}.")
        if self.budget is not None:
            return self.budget.fit(pixels)
        from medclip.imaging.geometry import place

        return place(pixels, self.placement(*pixels.shape[:2]), self.interpolation, self.fill, self.resampler)

    def placement(self, height: int, width: int) -> Placement:
        """Return where an image of this size lies in what `fit` makes of it, and how to get from one to the other."""
        from medclip.imaging.geometry import Placement, placement

        if self.signal is not None:  # leads and samples as they are
            return Placement(height, width, height, width, height, width, 0, 0)
        if self.budget is not None:
            size = self.budget.size_px(height, width)
            return Placement(height, width, *size, *size, 0, 0)
        return placement(height, width, self.size_px, self.resize, self.resize_px, self.centre)

    @property
    def policy(self) -> ReadPolicy:
        """What the adapters do otherwise than by default for this model."""
        from medclip.settings import ReadPolicy

        return ReadPolicy(crop=self.crop, ecg=None if self.signal is None else self.signal.options)

    def reading(self, settings: Settings) -> Settings:
        """Return the settings that the adapters read with for this model: with its crop, and its way with ECGs."""
        ecg = settings.policy.ecg if self.signal is None else self.signal.options
        if settings.policy.crop == self.crop and settings.policy.ecg == ecg:
            return settings
        return replace(settings, policy=replace(settings.policy, crop=self.crop, ecg=ecg))

    def describe(self) -> str:
        """Describe what a model is shown in one sentence, for cards and people."""
        if self.signal is not None:
            return self.signal.describe()
        if self.volume is not None:
            return self.volume.describe(self.size_px)
        if self.budget is not None:
            shape = f"at their own aspect ratio, within {self.budget}"
        else:
            side = self.resize_px or self.size_px
            cut = f"the centre of {self.size_px} px cut out"
            if side < self.size_px:
                cut += ", padded where the image ends"
            shape = {
                "longest": f"the longer side brought to {side} px, padded to a square of {self.size_px} px",
                "shortest": f"the shorter side brought to {side} px, {cut}",
                "squash": f"both sides brought to {side} px whatever the aspect ratio",
            }[self.resize]
            if self.resize == "squash" and side != self.size_px:
                shape += f", {cut}"
        low, high = self.value_range
        smooth = "" if self.antialias else ", not smoothed"
        before = "as the modality is cropped" if self.crop == "modality" else "whole, without the modality's crop"
        return (
            f"Images are taken {before}; {shape} ({self.interpolation}{smooth}, {self.resampler}); "
            f"grey repeated over three channels; values from {low:.3g} to {high:.3g}."
        )

    def extent(self, height: int, width: int) -> tuple[float, float]:
        """Return height and width of what the model's square shows of an image, in pixels of the image."""
        share = self.size_px / (self.resize_px or self.size_px)
        if self.resize == "squash":
            return height * share, width * share
        side = (min if self.resize == "shortest" else max)(height, width) * share
        return side, side

    def together(self, images: Sequence[NDArray[np.uint8]]) -> Images:
        """Join images from `fit`: one array of squares, a tuple of images of any shape."""
        import numpy as np

        return np.stack(images) if self.budget is None else tuple(images)

    def to_config(self) -> dict[str, Any]:
        """Return the `preprocess_cfg` of open_clip_config.json; keys of our own only where they are not the default."""
        config: dict[str, Any] = {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": self.resize,
            "fill_color": self.fill if isinstance(self.fill, int) else list(self.fill),
        }
        if self.budget is not None:
            config |= {"patch_px": self.budget.patch_px, "max_tokens": self.budget.max_tokens}
        if self.volume is not None:
            config[KEY] = self.volume.to_config()
        if self.signal is not None:
            config[SIGNAL] = self.signal.to_config()
        stated = {key: getattr(self, key) for key in ("resize_px", "centre", "resampler", "grey", "crop")}
        return config | {key: value for key, value in stated.items() if value != _DEFAULTS[key]}

    def digest(self) -> str:
        """Hash of everything that changes the pixels: equal digest, equal input. 16 hex characters."""
        text = json.dumps([self.size_px, self.to_config(), dict(sorted(self.adapters.items()))], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_DEFAULTS = {name: known.default for name, known in Preprocess.__dataclass_fields__.items()}


def from_config(config: Mapping[str, Any], adapters: Mapping[str, str]) -> Preprocess:
    """Read the settings back from an open_clip_config.json.

    Args:
        config: The whole file: `model_cfg` and `preprocess_cfg`. What the latter leaves out is as open_clip has it.
        adapters: Preprocessing hashes, kept in manifest.json.

    Raises:
        MedclipError: PACK_INVALID for settings that the readers cannot produce.
    """
    side = square_side(config["model_cfg"])
    values = {key: value for key, value in (config.get("preprocess_cfg") or {}).items() if value is not None}
    chosen = {key: _one_of(key, values.get(key, usual), known) for key, (usual, known) in _CHOICES.items()}
    resize_px, fill = values.get("resize_px"), values.get("fill_color", 0)
    if resize_px is not None and not (type(resize_px) is int and 0 < resize_px <= MAX_SIDE_PX):
        raise _not_made("resize_px", resize_px, f"a number of pixels up to {MAX_SIDE_PX:,}")
    channels = fill if isinstance(fill, list | tuple) else [fill] * 3
    if len(channels) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in channels):
        raise _not_made("fill_color", fill, "a value from 0 to 255, or one a channel")
    filters = _FILTERS_OF.get(chosen["resampler"])
    if filters is not None and chosen["interpolation"] not in filters:
        known = " or ".join(map(repr, filters))
        raise _not_made("interpolation", chosen["interpolation"], f"{known} of {chosen['resampler']}")
    return Preprocess(
        side,
        *normalisation(values.get("mean", CLIP_MEAN), values.get("std", CLIP_STD)),
        chosen["interpolation"],
        fill if isinstance(fill, int) else tuple(fill),
        dict(adapters),
        budget_of(config),
        chosen["resize_mode"],
        resize_px,
        chosen["centre"],
        chosen["resampler"],
        chosen["grey"],
        chosen["crop"],
        volume_of(config),
        signal_of(config),
    )


_CHOICES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "interpolation": ("bicubic", FILTERS),
    "resize_mode": ("shortest", ("longest", "shortest", "squash", NATIVE_MODE)),
    "centre": ("round", get_args(Centre)),
    "resampler": ("pillow", get_args(Resampler)),
    "grey": ("repeat", get_args(Grey)),
    "crop": ("modality", get_args(Crop)),
}
"""Keys of `preprocess_cfg`: what an absent one stands for in open_clip, and all that the readers can produce."""


_FILTERS_OF = {"torchvision": ("bilinear", "bicubic"), "tensorflow": ("bilinear",)}
"""Filters of the resamplers that have not all of Pillow's."""


def _one_of(key: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise _not_made(key, value, f"one of {', '.join(map(repr, choices))}")
    return value


def _not_made(key: str, value: Any, wanted: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"the config's preprocess_cfg.{key} is {str(value)[:60]!r}; medclip makes {wanted}.",
        hint="Load it with the library that it came from instead.",
    )


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
    from medclip.imaging.geometry import TokenBudget

    patch, tokens = values.get("patch_px"), values.get("max_tokens")
    if not (type(patch) is int and 1 < patch <= MAX_SIDE_PX and type(tokens) is int and 0 < tokens <= MAX_TOKENS):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's preprocess_cfg has patch_px {patch!r} and max_tokens {tokens!r}; both take whole numbers, "
            f"the first above 1, the second up to {MAX_TOKENS:,}.",
            hint="Correct it as the model's source has it.",
        )
    return TokenBudget(patch, tokens)


def volume_of(config: Mapping[str, Any]) -> VolumeInput | None:
    """Return how the model of an open_clip_config.json takes volumes; None where it takes images.

    Raises:
        MedclipError: PACK_INVALID where the tower and the preprocessing do not agree, or for settings that are none.
    """
    values, tower = (config.get("preprocess_cfg") or {}).get(KEY), config["model_cfg"]["vision_cfg"].get(TUBELET)
    if values is None and tower is None:
        return None
    try:
        volume = None if values is None else volume_input(values)
    except (ValueError, TypeError, AttributeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's preprocess_cfg.{KEY} cannot be taken: {e}.",
            hint="Take the pack from its source again.",
        ) from e
    if volume is None or volume.tower != tower:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.{TUBELET} and preprocess_cfg.{KEY} do not agree on the clips that it takes.",
            hint="Take the pack from its source again.",
        )
    return volume


def signal_of(config: Mapping[str, Any]) -> SignalInput | None:
    """Return how the model of an open_clip_config.json takes ECGs; None where it takes none as signals.

    Raises:
        MedclipError: PACK_INVALID where tower and preprocessing do not agree, or for settings that are none.
    """
    values, tower = (config.get("preprocess_cfg") or {}).get(SIGNAL), config["model_cfg"]["vision_cfg"].get(SIGNAL)
    try:
        if (values is None) != (tower is None):
            raise ValueError("one of the tower and the preprocessing takes ECGs, and the other does not")
        taken = None if values is None else signal_input(values)
        if taken is not None and tower["samples"] != taken.num_samples:
            raise ValueError(f"the tower takes {tower['samples']} samples of a lead, and it has {taken.num_samples}")
        return taken
    except (ValueError, TypeError, AttributeError, LookupError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's preprocess_cfg.{SIGNAL} cannot be taken: {e}.",
            hint="Take the pack from its source again.",
        ) from e


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
    except (TypeError, ValueError, OverflowError) as e:
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

"""What decides how a foreign model's images are treated: its own files, a preset (presets.yaml), or what is stated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.inputs.preprocess import FILTERS, MAX_SIDE_PX, Centre, Resampler
from medclip.models.interchange.layouts.layout import OWN_FILES, Source
from medclip.recipe import invalid_recipe, read_yaml
from medclip.result import Result
from medclip.wording import list_of

Three = tuple[float, float, float]


class Preset(BaseModel):
    """How the authors of a checkpoint treat images, and where they state it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str = ""
    size: tuple[int, ...] = Field(min_length=1)
    """Sides of the model's images, in pixels; several where there are several checkpoints of that name."""
    resize: Literal["longest", "shortest", "squash"]
    mean: Three
    """Per channel, of values in `value_range`."""
    std: Three
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    resize_px: int | None = Field(default=None, gt=0, le=MAX_SIDE_PX)
    value_range: tuple[float, float] = (0.0, 1.0)
    """What black and white are before mean and standard deviation."""
    centre: Centre = "round"
    resampler: Resampler = "pillow"
    towers: tuple[str, ...] = ()
    """open_clip architectures of its image tower; empty where they are not known by one of these names."""
    image_only: bool = False
    """Whether it is an image tower without words."""
    quick_gelu: bool | None = None
    """Whether its towers use QuickGELU, which no tensor tells; None: as the architecture's name says."""
    context_length: int | None = Field(default=None, gt=2, le=2**16)
    """Tokens of a text, where the architecture does not say."""
    clean: Literal["lower", "whitespace", "canonicalize", "none"] | None = None
    """How CLIP's own tokenizer cleans a text, where the architecture does not say."""
    licence: str = ""
    """Of the weights."""
    source: str = ""
    """Where the authors state it."""
    read: str = ""
    """What of it was read there, and what is known second hand."""
    differs: str = ""
    """What the authors' code does and medclip does not."""

    @model_validator(mode="after")
    def _check(self) -> Preset:
        low, high = self.value_range
        if not high > low:
            raise ValueError("value_range takes two numbers, the second the larger one")
        if not all(value > 0 for value in self.std):
            raise ValueError("std takes three numbers above 0")
        if not all(0 < side <= MAX_SIDE_PX for side in self.size):
            raise ValueError(f"size takes numbers of pixels up to {MAX_SIDE_PX:,}")
        return self

    def to_config(self) -> dict[str, Any]:
        """Return it as a `preprocess_cfg`: mean and standard deviation in units of [0, 1]."""
        low, high = self.value_range
        details = {"resize_px": self.resize_px, "centre": self.centre, "resampler": self.resampler}
        return {
            "mean": [(value - low) / (high - low) for value in self.mean],
            "std": [value / (high - low) for value in self.std],
            "interpolation": self.interpolation,
            "resize_mode": self.resize,
            "fill_color": 0,
            **{key: value for key, value in details.items() if value != Preset.model_fields[key].default},
        }

    def completed(self, config: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return a `model_cfg` with the activation and the tokenizer's settings of the preset."""
        text_cfg = (config or {}).get("text_cfg")
        if config is None or text_cfg is None:
            return config
        text_cfg = dict(text_cfg)
        if not text_cfg.get("hf_tokenizer_name") and not text_cfg.get("hf_model_name"):
            if self.context_length is not None:
                text_cfg.setdefault("context_length", self.context_length)
            if self.clean is not None:
                text_cfg["tokenizer_kwargs"] = {"clean": self.clean, **(text_cfg.get("tokenizer_kwargs") or {})}
        activation = {} if self.quick_gelu is None else {"quick_gelu": self.quick_gelu}
        return {**config, **activation, "text_cfg": text_cfg}


class PresetList(Result):
    """The presets that come with medclip."""

    def __init__(self, presets: Sequence[Preset]) -> None:
        self._presets = tuple(presets)

    def __len__(self) -> int:
        return len(self._presets)

    def __iter__(self) -> Iterator[Preset]:
        return iter(self._presets)

    def __getitem__(self, index: int) -> Preset:
        return self._presets[index]

    def _facts(self) -> Mapping[str, object]:
        return {"presets": ", ".join(preset.name for preset in self)}

    def _rows(self, most: int | None = None) -> Sequence[Mapping[str, Any]]:
        return [preset.model_dump(mode="json") for preset in self._presets[:most]]


def list_presets() -> PresetList:
    """List the presets for checkpoints that come without a file about their pixels, with the source of each.

    Example:
        >>> import medclip
        >>> [preset.name for preset in medclip.models.presets()][:3]
        ['medsiglip', 'biomedclip', 'unimed-clip']
    """
    return PresetList(tuple(_packaged().values()))


def find_preset(name: str | Path) -> Preset:
    """Return a preset.

    Args:
        name: Name of a preset that comes with medclip, or a YAML or JSON file of one's own with the same keys.

    Raises:
        MedclipError: WRONG_USE for an unknown name; RECIPE_INVALID for a file that is no preset.
    """
    packaged = _packaged()
    if str(name) in packaged:
        return packaged[str(name)]
    if Path(name).suffix.lower() in (".yaml", ".yml", ".json") or Path(name).is_file():
        return _preset_in(Path(name))
    raise MedclipError(
        Reason.WRONG_USE,
        f"there is no preset {str(name)!r}.",
        hint=did_you_mean(str(name), packaged, "Presets are") + " One of your own is a YAML file.",
    )


def fitting_presets(side: int, towers: Sequence[str], *, image_only: bool = False) -> tuple[str, ...]:
    """Name the presets that a model may be one of.

    Args:
        side: Side of the model's images in pixels.
        towers: open_clip architectures of its sizes; empty where they are not known.
        image_only: Whether it is an image tower without words.
    """
    return tuple(
        preset.name
        for preset in list_presets()
        if side in preset.size
        and preset.image_only == image_only
        and (not preset.towers or not towers or set(towers) & set(preset.towers))
    )


@cache
def _packaged() -> Mapping[str, Preset]:
    values = yaml.safe_load((files("medclip.models.interchange") / "presets.yaml").read_text(encoding="utf-8"))
    return {name: Preset(name=name, **value) for name, value in values.items()}


def _preset_in(path: Path) -> Preset:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a preset is a YAML file of keys and values.", where=path)
    size = values.get("size")
    try:
        return Preset(**{"name": path.stem, **values, "size": size if isinstance(size, list) else [size]})
    except ValidationError as error:
        raise invalid_recipe(error, Preset, path, "a preset") from error


_NEEDED = ("resize_mode", "mean", "std")
"""What has no usual value: all of it must be stated, or none."""
_OPTIONS = {"resize_mode": "--resize", "mean": "--mean", "std": "--std"}
_EXACT = 1e-6


@dataclass(frozen=True, eq=False)
class Chosen:
    """A model's source with the pixels that were decided on."""

    source: Source
    origin: str
    """Where they are from, for the card."""
    contradicted: Mapping[str, Any] = field(default_factory=dict)
    """What the checkpoint's own file says otherwise, by key: it was not followed."""


def choose_pixels(source: Source, preset: str | Path | None = None, stated: Mapping[str, Any] | None = None) -> Chosen:
    """Decide how images are treated: what is stated goes before the preset, the preset before the checkpoint's file.

    Args:
        source: The model; empty `preprocess` where its files say nothing.
        preset: Name or file of a preset, see `find_preset`.
        stated: Keys of `preprocess_cfg` that the user states.

    Returns:
        The source; with a refusal where only a part of what is needed is stated.
    """
    from_files, stated = dict(source.preprocess), dict(stated or {})
    named = find_preset(preset) if preset is not None else None
    if named is None and not stated:
        return Chosen(source, source.pixels_from if from_files else "nothing stated")
    if named is None and not from_files and (missing := [_OPTIONS[key] for key in _NEEDED if key not in stated]):
        refusal = MedclipError(
            Reason.WRONG_USE,
            f"these weights do not say how their authors treat images, and {list_of(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing to state it.",
            where=source.place,
            hint="Give --resize, --mean and --std together, or a --preset.",
        )
        return Chosen(replace(source, refusal=refusal), "nothing stated")
    base = named.to_config() if named is not None else from_files
    chosen = {**base, **stated}
    if named is not None:
        chosen["sizes"] = list(named.size)
    origins = [f"preset {named.name}"] if named is not None else [source.pixels_from] if from_files else []
    origins += [f"{list_of(sorted(stated))} as stated"] if stated else []
    of_authors = from_files if source.pixels_from == OWN_FILES else {}
    differing = {key: value for key, value in of_authors.items() if key in chosen and not _equal(value, chosen[key])}
    config = source.config if named is None else named.completed(source.config)
    return Chosen(replace(source, preprocess=chosen, config=config), list_of(origins), differing)


def check_pixels(source: Source, side: int | None, towers: Sequence[str], *, image_only: bool = False) -> None:
    """Make sure that a model with weights says how its images are treated, and that this is of its size.

    Args:
        source: The model, after `choose_pixels`.
        side: Side of the model's images in pixels; None where it is not known yet: presets are not named then.
        towers: open_clip architectures of its sizes, to name presets that fit.
        image_only: Whether it is an image tower without words, for the same.

    Raises:
        MedclipError: WRONG_USE where nothing is stated, naming the presets that fit, and for a preset of another size;
            PACK_INVALID where the checkpoint's own file is of another size or cannot be followed.
    """
    pixels = source.preprocess
    if not pixels and source.refusal is not None:
        raise source.refusal
    fitting = () if side is None else fitting_presets(side, towers, image_only=image_only)
    if not pixels:
        names = f"; presets that fit its {side} px are {list_of(fitting)}" if fitting else "; no preset fits"
        raise MedclipError(
            Reason.WRONG_USE,
            "these weights come without a file that says how their authors treat images"
            f"{'' if side is None else names}.",
            where=source.place,
            hint="Give one with --preset (model.preset in a recipe), or state it: --resize, --mean and --std. "
            "medclip models presets lists them with their sources.",
        )
    sizes = pixels.get("sizes") or [pixels.get("size", side)]
    if side is None or side in sizes:
        return
    numbers = list_of([str(size) for size in sizes], "or")
    if "sizes" not in pixels:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the checkpoint's own file is for images of {numbers} px; the image tower takes {side} px.",
            where=source.place,
            hint="Take the files of one checkpoint.",
        )
    others = f"Presets of {side} px are {list_of(fitting)}; or state" if fitting else "State"
    raise MedclipError(
        Reason.WRONG_USE,
        f"the preset is for images of {numbers} px; the image tower takes {side} px.",
        where=source.place,
        hint=f"{others} it yourself: --resize, --mean and --std.",
    )


def state_pixels(
    resize: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> dict[str, Any]:
    """Return what a user states about pixels as keys of `preprocess_cfg`.

    Args:
        resize: Way of resizing: "longest", "shortest" or "squash"; after a colon the side in pixels before the centre
            is cut out: "shortest:256".
        mean: Mean, three numbers, one a channel, in units of [0, 1].
        std: Standard deviation, three numbers, one a channel, in units of [0, 1].
        interpolation: Name of a filter of Pillow.

    Raises:
        MedclipError: WRONG_USE for what is none of the choices.
    """
    stated: dict[str, Any] = {}
    if resize is not None:
        mode, colon, side = resize.partition(":")
        if mode not in ("longest", "shortest", "squash") or (colon and not _is_side(side)):
            raise MedclipError(
                Reason.WRONG_USE,
                f"images are resized by longest, shortest or squash, such as shortest:256, not {resize!r}.",
            )
        stated |= {"resize_mode": mode, **({"resize_px": int(side)} if colon else {})}
    for key, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if len(values) != 3 or not all(0 <= value <= 1 for value in values):
            raise MedclipError(
                Reason.WRONG_USE,
                f"--{key} takes three numbers from 0 to 1, one a channel, such as --{key} 0.5 --{key} 0.5 --{key} 0.5; "
                "what is stated on a scale of 0 to 255 is divided by 255.",
            )
        stated[key] = [float(value) for value in values]
    if interpolation is not None:
        if interpolation not in FILTERS:
            raise MedclipError(
                Reason.WRONG_USE,
                f"there is no filter {interpolation!r}.",
                hint=did_you_mean(interpolation, FILTERS, "Filters are"),
            )
        stated["interpolation"] = interpolation
    return stated


def _is_side(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) <= MAX_SIDE_PX


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _EXACT
    return one == other

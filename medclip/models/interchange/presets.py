"""Pixels of public checkpoints by name, for weights that come without a file that states them: presets.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.inputs.preprocess import MAX_SIDE_PX, Centre, Resampler
from medclip.recipe import invalid_recipe, read_yaml
from medclip.result import Result

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
        own = {"resize_px": self.resize_px, "centre": self.centre, "resampler": self.resampler}
        return {
            "mean": [(value - low) / (high - low) for value in self.mean],
            "std": [value / (high - low) for value in self.std],
            "interpolation": self.interpolation,
            "resize_mode": self.resize,
            "fill_color": 0,
            **{key: value for key, value in own.items() if value != Preset.model_fields[key].default},
        }


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
        MedclipError: WRONG_USE for an unknown name; RECIPE_INVALID for a file that is no preset, and as `read_yaml`.
    """
    known = _packaged()
    if str(name) in known:
        return known[str(name)]
    if Path(name).suffix.lower() in (".yaml", ".yml", ".json") or Path(name).is_file():
        return _own(Path(name))
    raise MedclipError(
        Reason.WRONG_USE,
        f"there is no preset {str(name)!r}.",
        hint=did_you_mean(str(name), known, "Presets are") + " One of your own is a YAML file.",
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


def _own(path: Path) -> Preset:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise MedclipError(Reason.RECIPE_INVALID, "a preset is a YAML file of keys and values.", where=path)
    size = values.get("size")
    try:
        return Preset(**{"name": path.stem, **values, "size": size if isinstance(size, list) else [size]})
    except ValidationError as error:
        raise invalid_recipe(error, Preset, path, "a preset") from error

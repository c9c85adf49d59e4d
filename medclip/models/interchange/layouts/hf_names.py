"""What the layouts of transformers share: how its config and tensors of a transformer tower become open_clip's."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, printable
from medclip.models.interchange.layouts.layout import CONFIG, HUB_WEIGHTS, Place

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from medclip.models.interchange.layouts.layout import Convert

_IGNORED = (".position_ids",)
"""Ends of the names of tensors that are no weights; older versions of transformers saved them."""


def part_of(place: Place, part: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return `text_config` or `vision_config` of a config.json, with what transformers takes where it says nothing.

    Args:
        place: Place whose config.json it is.
        part: Name of the part: "text" or "vision".
        defaults: Values that transformers takes where the file says nothing.

    Raises:
        MedclipError: PACK_INVALID as `settings_of`.
    """
    stated, older = place.config.get(f"{part}_config") or {}, place.config.get(f"{part}_config_dict") or {}
    if not isinstance(stated, Mapping) or not isinstance(older, Mapping):
        raise _not_stated(place, f"{part}_config", "a table", stated)
    # The older form wins over the other, as in transformers.
    return settings_of({**stated, **({**defaults, **older} if older else {})}, defaults, place)


def settings_of(stated: Mapping[str, Any], defaults: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return a tower's settings, with what transformers takes where a config says nothing.

    Raises:
        MedclipError: PACK_INVALID for a value of another kind than the usual one.
    """
    settings = {key: stated.get(key, usual) for key, usual in defaults.items()}
    for key, usual in defaults.items():
        value = settings[key]
        least = 0 if key.endswith(("_id", "_tokens")) else 1
        if type(usual) is int and key != "mlp_ratio" and not (type(value) is int and value >= least):
            raise _not_stated(place, key, f"a whole number from {least}", value)
        if (type(usual) is float or key == "mlp_ratio") and not (type(value) in (int, float) and value > 0):
            raise _not_stated(place, key, "a number above 0", value)
        if type(usual) is bool and type(value) is not bool:
            raise _not_stated(place, key, "true or false", value)
    return settings


def _not_stated(place: Place, key: str, expected: str, value: Any) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"its {key} is {printable(str(value))[:60]!r}; it takes {expected}.",
        where=place.path / CONFIG,
        hint="Take the file from its source again.",
    )


def ratio(values: Mapping[str, Any]) -> float:
    """Return the `mlp_ratio` from which open_clip and timm compute exactly the stated width of the MLP."""
    width, inner = values["hidden_size"], values["intermediate_size"]
    return inner / width if int(width * (inner / width)) == inner else (inner + 0.5) / width


def check_patches(values: Mapping[str, Any], place: Place) -> None:
    """Refuse images that are not square, not of three channels, or no whole number of patches wide.

    Raises:
        MedclipError: PACK_INVALID.
    """
    size, patch, channels = values["image_size"], values["patch_size"], values["num_channels"]
    if type(size) is not int or type(patch) is not int or patch < 1 or channels != 3:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its images are {size} pixels of {channels} channels in patches of {patch}; only squares of 3 channels "
            "can be made.",
            where=place.path,
        )
    if size % patch:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the image size {size} is no multiple of the patch {patch}.",
            where=place.path / "config.json",
            hint="Correct vision_config in config.json as the model's source has it.",
        )


def weights_of(place: Place) -> tuple[Path, ...]:
    """Return the files of weights of a folder of transformers; () where it has none, which `load_start` refuses."""
    return place.find_weights(*HUB_WEIGHTS)


class _Reading(UserDict[str, "Tensor"]):
    """A state dict that remembers which of its tensors were read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.read: set[str] = set()
        super().__init__(state)

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


def converter(renamed: Callable[..., dict[str, Tensor]], *numbers: int) -> Convert:
    """Make a converter of tensors' names that refuses weights with tensors which no tower takes.

    Args:
        renamed: Function that reads each tensor that it needs from the file's state dict; a KeyError names one that is
            missing.
        numbers: Numbers of blocks, further arguments of `renamed`.
    """

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        reading = _Reading({name: value for name, value in state.items() if not name.endswith(_IGNORED)})
        tensors = renamed(reading, *numbers)
        if others := sorted(set(reading.data) - reading.read):
            raise MedclipError(
                Reason.PACK_INVALID,
                f"the weights do not fit the config beside them: {printable(others[0])} is unknown"
                f"{f' (and {len(others) - 1} more)' if len(others) > 1 else ''}.",
                hint="Take both from their source again.",
            )
        return tensors

    return convert


_IN_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_IN_TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def blocks(
    state: Mapping[str, Tensor], tower: str, target: str, layers: int, *, timm: bool = False
) -> dict[str, Tensor]:
    """Return the blocks of a tower under open_clip's or timm's names; query, key and value become one matrix.

    Args:
        state: State dict of the file.
        tower: Name of the tower: "text_model" or "vision_model".
        target: Name before the number of the block: "visual.transformer.resblocks".
        layers: Number of blocks.
        timm: Whether the names are timm's.

    Raises:
        KeyError: Naming a tensor that is missing.
    """
    import torch

    joined = "attn.qkv.{}" if timm else "attn.in_proj_{}"
    renamed: dict[str, Tensor] = {}
    for i in range(layers):
        source = f"{tower}.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            parts = [state[f"{source}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            renamed[f"{target}.{i}.{joined.format(kind)}"] = torch.cat(parts)
            for old, new in (_IN_TIMM_BLOCK if timm else _IN_BLOCK).items():
                renamed[f"{target}.{i}.{new}.{kind}"] = state[f"{source}.{old}.{kind}"]
    return renamed

"""The image tower of a pack as the start of another run's: other sizes, other pooling, and from images to volumes.

A pretrained encoder goes on as the image tower of a contrastive model, or under a classifier: patches and blocks are
taken over, positions interpolated to the new grid (Dosovitskiy et al., ICLR 2021), and a tower of images becomes one of
tubes by inflation (Carreira & Zisserman, CVPR 2017). What stands behind the blocks depends on how tokens are pooled and
begins anew where the pack has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import Preprocess, square_side
from medclip.models.packs.manifest import WEIGHTS_NAME, read_config
from medclip.models.packs.pack import find_pack, pack_card, read_preprocess
from medclip.models.towers.lens_tower import KEY as LENS
from medclip.models.towers.patch_decoder import inflate_patch_weights, resize_positions
from medclip.models.towers.state_dict import read_weights
from medclip.models.towers.table import ARGUMENTS, architecture_of, image_tower_of

_PREFIX, _POSITIONS, _PATCHES = "visual.trunk.", "pos_embed", "patch_embed.proj.weight"
_BEHIND = ("norm.", "fc_norm.", "attn_pool.", "head.", "classifier.")
"""Parts behind the blocks, which go with a pooling."""
_NAMED = 3


@dataclass(frozen=True, eq=False)
class PackTrunk:
    """What a pack has of its image tower."""

    pack: str
    """Its name, for errors."""
    tower: str
    """As timm calls it."""
    arguments: Mapping[str, Any]
    """timm's arguments of it."""
    vision_cfg: Mapping[str, Any]
    preprocess: Preprocess
    state: Mapping[str, Tensor]
    """Weights by timm's names."""

    def grid(self) -> tuple[int, ...]:
        """Return (rows, columns) of patches, or (time, rows, columns) of tubes."""
        weight = self.state[_PATCHES]
        side = square_side({"vision_cfg": self.vision_cfg}) // weight.shape[-1]
        if weight.ndim == 4:
            return side, side
        return int(self.vision_cfg["tubelet"]["num_frames"]) // weight.shape[2], side, side


def names_a_pack(weights: str) -> bool:
    """Whether weights of an image tower are those of a pack, by its name or folder, and no file."""
    try:
        find_pack(weights)
    except MedclipError:
        return False
    return True


def read_trunk(pack: str | Path) -> PackTrunk:
    """Read the image tower of a pack.

    Raises:
        MedclipError: RECIPE_INVALID for a tower that is none of timm.
    """
    place = find_pack(pack)
    name, config = pack_card(place).name, read_config(place)["model_cfg"]
    vision_cfg = config["vision_cfg"]
    if image_tower_of(vision_cfg).key == LENS:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: {name} is a lens in front of the image tower of another pack.",
            hint="Say model.lens to train another one, or adapt this pack: medclip adapt.",
        )
    tower = architecture_of(vision_cfg)
    if not tower:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: the image tower of {name} is one of open_clip's own, and not of timm.",
            hint="Go on with the whole model instead: model.start.",
        )
    state = {
        key.removeprefix(_PREFIX): value.float()
        for key, value in read_weights(place / WEIGHTS_NAME).items()
        if key.startswith(_PREFIX)
    }
    return PackTrunk(name, tower, vision_cfg.get(ARGUMENTS) or {}, vision_cfg, read_preprocess(place), state)


def start_trunk(trunk: nn.Module, source: PackTrunk) -> None:
    """Load a pack's tower into one that was built, which may be of another size, pooling, or of tubes.

    Args:
        trunk: A tower of timm, changed in place.
        source: Tower of the pack.

    Raises:
        MedclipError: RECIPE_INVALID where the towers are not of one architecture.
    """
    trunk_state = trunk.state_dict()
    state = {name: value for name, value in source.state.items() if name in trunk_state or not name.startswith(_BEHIND)}
    state = {
        name: _fitted(name, value, trunk_state[name], trunk, source) if name in trunk_state else value
        for name, value in state.items()
    }
    missing = [name for name in trunk_state if name not in state and not name.startswith(_BEHIND)]
    unknown = [name for name in state if name not in trunk_state]
    wrong = [name for name in state if name in trunk_state and state[name].shape != trunk_state[name].shape]
    if different := [*missing, *unknown, *wrong]:
        names = ", ".join(different[:_NAMED]) + (", …" if len(different) > _NAMED else "")
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"model.image_weights: the pack {source.pack} holds a {source.tower}, which is not the image tower that is "
            f"built (different: {names}).",
            hint="Leave model.image_tower out: it is that of the pack.",
        )
    trunk.load_state_dict(state, strict=False)


def _fitted(name: str, value: Tensor, weight: Tensor, trunk: Any, source: PackTrunk) -> Tensor:
    """Bring positions and patches to the size of the tower that is built; all else is returned as it is."""
    if value.shape == weight.shape:
        return value
    try:
        if name == _POSITIONS and _PATCHES in source.state:
            return resize_positions(value, source.grid(), tuple(trunk.patch_embed.grid_size))
        if name == _PATCHES and value.ndim == 4 and weight.ndim == 5:
            return inflate_patch_weights(value, weight.shape[2], weight.shape[1])
    except MedclipError as e:
        raise MedclipError(Reason.RECIPE_INVALID, f"model.image_weights, pack {source.pack}: {e.message}") from e
    return value

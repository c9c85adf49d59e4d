"""The recipe of fine-tuning: that of medical MAE, fitted to how many images there are. No torch here.

Reference: Xiao et al., Delving into masked autoencoders for multi-label thorax disease classification, WACV 2023.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.files.key_value import Overrides, read_overrides
from medclip.models.inputs.signal_input import TOWERS as SIGNAL_TOWERS
from medclip.models.inputs.volume_input import VolumeInput
from medclip.models.packs.manifest import read_config
from medclip.models.packs.pack import find_pack, list_packs, pack_card, read_preprocess
from medclip.models.towers.table import architecture_of
from medclip.sample import Modality
from medclip.text.vocabulary.task import Task
from medclip.training.recipe.schema import Recipe, load_recipe

_LR, _PER = 2.5e-4, 256
"""Learning rate for so many images in a batch; below 64 it stays: upstream scales it from hundreds up, and 60 steps of
8 images at a rate in proportion left the loss where it began."""
_FLOOR = 1e-5
_EPOCHS, _WARMUP = 75, 5
_LARGEST_BATCH, _FEWEST_STEPS = 64, 4
"""A batch is smaller where an epoch would have fewer steps than that."""
_MOST_VAL = 20_000
_SKIPPABLE = ("vit", "deit", "beit", "eva", "swin", "convnext", "efficientnet", "patch")
"""Kinds of towers whose blocks can be skipped (stochastic depth)."""
_SIZE_PX = 224
_STORED = 9 / 7
"""Longest side of stored images, relative to the model's: room for crops."""


@dataclass(frozen=True)
class Start:
    """What fine-tuning begins with."""

    pack: Path | None
    """Folder of a pack; None for a tower of random weights."""
    tower: str
    """timm's name of the tower, or that of a tower of ECGs."""

    @property
    def name(self) -> str:
        """Name it on a card."""
        return self.tower if self.pack is None else pack_card(self.pack).name

    @property
    def takes_signals(self) -> bool:
        """Whether it takes ECGs as signals, and no images."""
        return self.tower in SIGNAL_TOWERS if self.pack is None else read_preprocess(self.pack).signal is not None

    @property
    def modality(self) -> Modality | None:
        """The modality of all that it takes; None for towers of images and volumes."""
        return Modality.ECG if self.takes_signals else None

    @property
    def volume(self) -> VolumeInput | None:
        """How it takes volumes or loops; None for images."""
        return None if self.pack is None else read_preprocess(self.pack).volume

    @property
    def size_px(self) -> int:
        """Side of its images."""
        return _SIZE_PX if self.pack is None else read_preprocess(self.pack).size_px


def find_start(model: str | Path) -> Start:
    """Find a pack, or a tower of timm or of ECGs by its name.

    Raises:
        MedclipError: PACK_NOT_FOUND for what is neither, naming what is close; PACK_INVALID for any other folder;
            WRONG_USE for a tower that is none of timm's.
    """
    try:
        pack = find_pack(model)
        vision = read_config(pack)["model_cfg"]["vision_cfg"]
        tower = architecture_of(vision)
        if not tower:
            raise MedclipError(
                Reason.WRONG_USE,
                "the image tower of this pack is one of open_clip's own, and not of timm.",
                where=pack,
                hint="Name another pack, or adapt this one: medclip adapt.",
            )
        return Start(pack, tower)
    except MedclipError as e:
        if e.reason is not Reason.PACK_NOT_FOUND:
            raise
    import timm

    name = str(model)
    if name in SIGNAL_TOWERS or timm.is_model(name):
        return Start(None, name)
    names = [*timm.list_models(), *SIGNAL_TOWERS, *(pack.name for pack in list_packs())]
    raise MedclipError(
        Reason.PACK_NOT_FOUND,
        f"there is no model pack, no folder and no tower of timm or of ECGs named {name!r}.",
        hint=f"{did_you_mean(name, names)} A pack elsewhere on disk is given by its folder; a tower by its name begins "
        "with random weights.".strip(),
    )


def stored_side(size_px: int) -> int:
    """Return the longest side that images are stored with."""
    return max(288, round(size_px * _STORED))


def recipe_of(
    start: Start,
    task: Task,
    classes: tuple[str, ...],
    *,
    out: Path,
    task_file: Path,
    shards: Path,
    num_train: int,
    num_val: int,
    seed: int,
    name: str | None,
    overrides: Overrides = (),
) -> Recipe:
    """Write the recipe.

    Args:
        start: Model to start from; random weights learn at one rate in all layers.
        task: Task that is learned.
        classes: Classes of the task, in the order of logits.
        out: Folder of the run.
        task_file: File of the task.
        shards: Folder of the shards with the images.
        num_train: Images to learn from.
        num_val: Images to choose weights with.
        seed: Seed of all chance.
        name: Name on the card; made of start and task where None.
        overrides: Changes to the recipe, by their paths.

    Raises:
        MedclipError: RECIPE_INVALID, WRONG_USE.
    """
    own = read_overrides(overrides)
    batch = _LARGEST_BATCH
    while batch > 2 and num_train < _FEWEST_STEPS * batch:
        batch //= 2
    batch = _number(own.get("train.batch_size"), batch)
    epochs, lr = _number(own.get("train.epochs"), _EPOCHS), own.get("train.lr", _LR * max(batch, _LARGEST_BATCH) / _PER)
    steps = epochs * max(1, num_train // batch)
    skips = any(kind in start.tower for kind in _SKIPPABLE)
    model: dict[str, Any] = {"freeze_bn": start.pack is not None} | ({"drop_path": 0.2} if skips else {})
    model["image_weights"] = None if start.pack is None else str(start.pack)
    if start.takes_signals:
        model["signal"] = {"tower": start.tower} if start.pack is None else {}
    else:
        model |= {"size_px": start.size_px} | ({"image_tower": start.tower} if start.pack is None else {})
    augment: dict[str, Any] = {
        "crop_scale": (0.5, 1.0),
        "stretch": 4 / 3,
        "flip": 0.5,
        "rotate_deg": 0,
        "brightness": 0,
        "contrast": 0,
    }
    if start.takes_signals:
        augment = {"signal": {}}
    elif start.volume is None:
        augment["rand_augment"] = "rand-m6-mstd0.5-inc1"
    else:
        model["volume"] = start.volume.to_config()
    values = {
        "name": name or re.sub(r"[^A-Za-z0-9._-]+", "-", f"{start.name}-{task.name}").strip("-._"),
        "seed": seed,
        "out": str(out),
        "data": {"shards": [str(shards)], "max_val": max(2, min(num_val, _MOST_VAL)), "decode": "full"},
        "model": model,
        "augment": augment,
        "objective": {"contrastive": 0, "supervised": {"task": str(task_file), "classes": list(classes)}},
        "train": {
            "epochs": epochs,
            "batch_size": batch,
            "lr": lr,
            "min_lr": min(_FLOOR, lr) if isinstance(lr, float) else 0,
            "warmup_steps": round(steps * _WARMUP / _EPOCHS),
            "layer_decay": 1.0 if start.pack is None else 0.55,
            "image_lr_factor": 1,
            "weight_decay": 0.05,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "clip_norm": None,
            "export": "best",
        },
    }
    return load_recipe(values, overrides)


def _number(given: Any, otherwise: int) -> int:
    """Return what was given where it is a number; what is none is refused by the recipe."""
    return given if isinstance(given, int) and given > 0 else otherwise

"""Words that stand for a whole way to train, written out where a recipe says nothing else. No torch here."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from medclip.errors import did_you_mean

MEDICAL_RATIO = 0.9
"""Share of hidden patches for chest films; photographs want 0.75."""
_BATCH_SIZE = 64
"""`train.batch_size` of a recipe without one."""
_LR, _PER = 1.5e-4, 256
"""Learning rate for so many samples in a batch."""

_MASKED: dict[str, Any] = {
    "objective": {
        "contrastive": 0,
        "masked": {"weight": 1, "ratio": MEDICAL_RATIO, "decoder": "dec128d2", "normalise": False},
    },
    "augment": {
        "crop_scale": (0.5, 1.0),
        "stretch": 4 / 3,
        "flip": 0.5,
        "rotate_deg": 0,
        "brightness": 0,
        "contrast": 0,
    },
    "model": {"image_tower": "vit_small_patch16_224", "image_weights": None},
    "train": {"betas": (0.9, 0.95), "weight_decay": 0.05, "image_lr_factor": 1, "schedule": "cosine"},
}
"""Of Xiao et al., Delving into masked autoencoders for multi-label thorax disease classification, WACV 2023: medical
images want more hidden and less cut away than photographs."""
_NATURAL: dict[str, Any] = {
    "objective": {
        "contrastive": 0,
        "masked": {"weight": 1, "ratio": 0.75, "decoder": "dec512d8", "normalise": True},
    },
    "augment": {"crop_scale": (0.2, 1.0)},
}
"""Of He et al., Masked autoencoders are scalable vision learners, CVPR 2022; all else as above."""
_OF_TUBES: dict[str, Any] = {"weight": 1, "decoder": "video", "normalise": True, "decode_ratio": 0.5}
"""Of Wang et al., VideoMAE V2, CVPR 2023; nothing is mirrored, for left and right of a body differ."""
_TUBE_RATIOS = {"volume": 0.8, "cine": 0.9}
"""Anatomy changes faster along slices than a scene in time: at 0.9 too little is left to guess from."""
_MERL: dict[str, Any] = {
    "objective": {"contrastive": 2, "temperature": 0.07, "unimodal": {"weight": 2, "dropout": 0.1}},
    "augment": {},
    "model": {"image_weights": None},
    "train": {"lr": 1e-3, "weight_decay": 1e-8, "batch_size": 128, "image_lr_factor": 1, "schedule": "cosine"},
}
"""Of Liu et al., MERL, ICML 2024: both terms add their two directions up. Records of the same report are no negatives
here, which one ECG in three would have (sinus rhythm, normal ECG)."""
_OF_SIGNALS: dict[str, Any] = {"weight": 1, "decoder": "dec128d2", "ratio": 0.75, "normalise": False}
"""Of ECGs: a beat is a second long, and at 0.9 some go by unseen; plain values, for amplitude is what is read."""
SHORTHANDS: dict[str, dict[str, Any]] = {
    "masked": _MASKED,
    "masked_natural": {part: _MASKED[part] | _NATURAL.get(part, {}) for part in _MASKED},
    "merl": _MERL,
}
"""What `objective: NAME` stands for."""


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write out what the word under `objective` stands for, and leave any other recipe as it is.

    For ECGs (`model.signal`) three quarters are hidden, nothing is cut away or mirrored, and the tower is the
    section's own. For volumes and loops (`model.volume`) tubes are hidden and half of them guessed, whatever the masked
    word. The learning rate of these follows the batch: 1.5e-4 for 256 samples. What the recipe says itself has the last
    word; towers that `model.start` or a pack under `model.image_weights` brings stay as they are.

    Args:
        values: A recipe as it was read.

    Raises:
        ValueError: For a word that is not known.

    Example:
        >>> recipe = written_out({"objective": "masked", "train": {"batch_size": 512}})
        >>> recipe["train"]["lr"], recipe["augment"]["crop_scale"]
        (0.0003, (0.5, 1.0))
    """
    name = values.get("objective")
    if not isinstance(name, str):
        return dict(values)
    if name not in SHORTHANDS:
        raise ValueError(f"objective is {name!r}. {did_you_mean(name, SHORTHANDS, 'Known are')}".rstrip("."))
    parts = copy.deepcopy(SHORTHANDS[name])
    own = {part: values.get(part, {}) for part in parts if part != "objective"}
    train, model = own["train"], own["model"]
    size = train.get("batch_size", _BATCH_SIZE) if isinstance(train, dict) else _BATCH_SIZE
    parts["train"].setdefault("lr", _LR * size / _PER if isinstance(size, int | float) else _LR)
    if isinstance(model, dict) and model.get("start") is not None:
        parts["model"] = {}
    elif isinstance(model, dict) and model.get("image_weights") not in (None, "imagenet"):
        parts["model"].pop("image_tower", None)
    if isinstance(model, dict) and isinstance(model.get("signal"), dict):
        parts["model"], parts["augment"] = {}, {}
        if "masked" in parts["objective"]:
            parts["objective"]["masked"] = dict(_OF_SIGNALS)
    if "masked" in parts["objective"] and isinstance(model, dict) and isinstance(volume := model.get("volume"), dict):
        parts["objective"]["masked"] = _OF_TUBES | {"ratio": _TUBE_RATIOS.get(volume.get("kind", "volume"), 0.9)}
        parts["augment"] |= {"flip": 0, "stretch": 1}
    chosen = {part: parts[part] | keys if isinstance(keys, dict) else keys for part, keys in own.items()}
    return dict(values) | chosen | {"objective": parts["objective"]}

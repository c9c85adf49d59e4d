"""What is compared, by what, and how often: fixed before the first figure of a test patient was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TEACHER = "medclip-mini"
"""EfficientNet-Lite0 at 192 px. Students learn from its own training patients; those it was tested on are tested on."""


@dataclass(frozen=True)
class Arm:
    """How one student is trained."""

    taught: bool
    """By the stored answers of the teacher, with the recipe of `medclip models distil`; else by the texts of the images
    with that of pipelines/mini."""
    start: Literal["teacher", "imagenet"]
    """What the image tower begins with."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the recipe."""


ARMS: Mapping[str, Arm] = {
    "distil": Arm(taught=True, start="teacher"),
    "warm": Arm(taught=False, start="teacher"),
    "alone": Arm(taught=False, start="imagenet"),
}
UNTRAINED = ("teacher", "shrunk")
COMPARED = (("distil", "teacher"), ("distil", "alone"), ("distil", "warm"), ("distil", "shrunk"), ("warm", "teacher"))
MEASURES = {"balanced_accuracy": "mean over tasks", "macro_auroc": "the same as areas"}
SEEDS = (0, 1, 2)
BAR = -0.02
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Scale:
    """Which student, and how much it sees."""

    tower: str
    size_px: int
    augmentations: int
    epochs: int
    steps: int
    recipe: Mapping[str, Any]
    """Changes to the recipe of every arm."""


SCALES: Mapping[str, Scale] = {
    "shared": Scale("tf_efficientnet_lite0", 112, 4, 6, 618, {"model.freeze_blocks": 5}),
}

"""How a heat map is computed and shown: one table of methods. Imports nothing heavy: options are checked first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medclip.errors import MedclipError, Reason, did_you_mean

Tower = Literal["transformer", "convolution", "record"]
"""What is explained: an image tower that is read by its attention, any other, or a tower of ECGs."""


@dataclass(frozen=True)
class Explainer:
    """One row of the table."""

    title: str
    """What the page says of its maps."""
    target: str
    """module:function, of a `Work` (of records a `RecordWork`) to a map of each image and the layer that was read."""
    towers: tuple[Tower, ...]
    """Those that it explains."""
    squares_only: bool = False
    """It changes square images: none at their own aspect ratio."""
    follows_gradient: bool = True
    """A score that is twice as steep draws the same map twice as strong. Others do without the score's gradient, or
    look at what it becomes."""


_ALL: tuple[Tower, ...] = ("convolution", "transformer")
EXPLAINERS: Mapping[str, Explainer] = {
    "gradient-attention": Explainer(
        "gradient-weighted attention relevance (Chefer et al. 2021), all blocks",
        "medclip.explaining.relevance:gradient_attention_maps",
        ("transformer",),
    ),
    "gradient-rollout": Explainer(
        "gradient-weighted attention rollout", "medclip.explaining.relevance:gradient_rollout_maps", ("transformer",)
    ),
    "rollout": Explainer(
        "attention rollout (Abnar and Zuidema 2020), whatever is asked",
        "medclip.explaining.relevance:rollout_maps",
        ("transformer",),
        follows_gradient=False,
    ),
    "grad-cam": Explainer(
        "Grad-CAM (Selvaraju et al. 2017)", "medclip.explaining.class_activation:grad_cam_maps", _ALL
    ),
    "score-cam": Explainer(
        "Score-CAM (Wang et al. 2020)",
        "medclip.explaining.class_activation:score_cam_maps",
        _ALL,
        squares_only=True,
        follows_gradient=False,
    ),
    "gscore-cam": Explainer(
        "gScoreCAM (Chen et al. 2022), the 300 channels of the largest mean gradient",
        "medclip.explaining.class_activation:gscore_cam_maps",
        _ALL,
        squares_only=True,
        follows_gradient=False,
    ),
    "occlusion": Explainer(
        "of ECGs: each second of each lead as a flat line, and the score without it (Zeiler and Fergus 2014)",
        "medclip.explaining.records:occlusion_maps",
        ("record",),
        follows_gradient=False,
    ),
}
"""Names, as --method has them."""
DEFAULTS: Mapping[Tower, str] = {
    "transformer": "gradient-attention",
    "convolution": "grad-cam",
    "record": "occlusion",
}
"""The method of a tower where none is named."""
_READS: Mapping[Tower, str] = {
    "transformer": "follows attention",
    "convolution": "weights feature maps of images",
    "record": "is of models of ECGs",
}
_TAKES: Mapping[Tower, str] = {
    "transformer": "takes images",
    "convolution": "takes images with a tower that has none to follow",
    "record": "takes ECGs",
}

OWN, COMMON = "own", "common"
SCALES = (OWN, COMMON)
"""What the strongest colour stands for: the largest value of a prompt's own maps, or of all prompts'."""
NONE, QUICK, ALL = "none", "quick", "all"
CHECKS = (NONE, QUICK, ALL)
"""What of a map is checked. Quick: the least related question, and random weights, each a map more; all: weights drawn
anew block by block, and insertion and deletion, some hundred passes of the image."""
Empty = Literal["", "zero gradient", "nothing raises it"]
"""Why a map is zero all over."""


@dataclass(frozen=True)
class ExplainOptions:
    """How maps are computed and shown."""

    method: str | None = None
    """One of `EXPLAINERS`; None chooses by tower."""
    checks: str = QUICK
    """One of `CHECKS`; the quick ones cost two maps more, and their verdicts are the same when all are made."""
    scale: str = OWN
    seed: int = 0


def choose_explainer(method: str | None, tower: Tower, *, squares: bool = True) -> str:
    """Return the name of a method that explains a tower: the one named, or the default.

    Args:
        method: Name of one of `EXPLAINERS`; None for the default.
        tower: Kind of the tower that is explained.
        squares: Whether the tower takes square images.

    Raises:
        MedclipError: WRONG_USE for a method that does not fit.
    """
    name = DEFAULTS[tower] if method is None else method
    if name not in EXPLAINERS:
        hint = did_you_mean(name, EXPLAINERS, "Methods are")
        raise MedclipError(Reason.WRONG_USE, f"there is no method {name!r} of heat maps.", hint=hint)
    fitting = [key for key, row in EXPLAINERS.items() if tower in row.towers and (squares or not row.squares_only)]
    if name in fitting:
        return name
    row = EXPLAINERS[name]
    why = f"{_READS[row.towers[0]]}, and this model {_TAKES[tower]}"
    if tower in row.towers:
        why = "changes square images, and this model takes images at their own aspect ratio"
    raise MedclipError(Reason.WRONG_USE, f"{name} {why}.", hint=f"It takes {', '.join(fitting)}.")

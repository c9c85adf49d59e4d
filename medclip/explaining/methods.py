"""How a heat map is computed and shown, as options name it. Imports nothing heavy: options are checked first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OCCLUSION = "occlusion"
METHODS: Mapping[str, str] = {
    "gradient-attention": "gradient-weighted attention relevance (Chefer et al. 2021), all blocks",
    "gradient-rollout": "gradient-weighted attention rollout",
    "rollout": "attention rollout (Abnar and Zuidema 2020), whatever is asked",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017)",
    "score-cam": "Score-CAM (Wang et al. 2020)",
    "gscore-cam": "gScoreCAM (Chen et al. 2022), the 300 channels of the largest mean gradient",
    OCCLUSION: "of ECGs: each second of each lead as a flat line, and the score without it (Zeiler and Fergus 2014)",
}
TRANSFORMER_ONLY = ("gradient-attention", "gradient-rollout", "rollout")
CAM_ONLY = tuple(name for name in METHODS if name not in (*TRANSFORMER_ONLY, OCCLUSION))
MASKING = ("score-cam", "gscore-cam")
DEFAULT_TRANSFORMER = "gradient-attention"
DEFAULT_CONVOLUTION = "grad-cam"

OWN, COMMON = "own", "common"
SCALES = (OWN, COMMON)
"""What the strongest colour stands for: the largest value of a prompt's own maps, or of all prompts'."""
Empty = Literal["", "zero gradient", "nothing raises it"]
"""Why a map is zero all over."""


@dataclass(frozen=True)
class ExplainOptions:
    """How maps are computed and shown."""

    method: str | None = None
    """One of `METHODS`; None chooses by tower."""
    checks: bool = True
    scale: str = OWN
    seed: int = 0

"""The head of a risk: an additive hazard over image features, so that no year is less likely than the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.heads import ArrayHead


@dataclass(frozen=True, eq=False)
class HazardHead(ArrayHead):
    """The logit of an event by the end of a year: f B + b, and all years' relu(f W + c) up to it.

    The form of Mirai (`medclip.objectives.hazard.AdditiveHazard`), in plain arrays.
    """

    base_weight_D: NDArray[np.float32]
    base_bias: float
    weight_DK: NDArray[np.float32]
    bias_K: NDArray[np.float32]
    years_C: NDArray[np.float32]
    """The asked ones, of the years 1 to K."""
    kind: ClassVar[str] = "hazard"

    def logits(self, features_ND: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C], of the asked years."""
        features_ND = np.asarray(features_ND, np.float32)
        rises_NK = np.maximum(features_ND @ self.weight_DK + self.bias_K, 0)
        base_N = features_ND @ self.base_weight_D + np.float32(self.base_bias)
        logits_NK = base_N[:, None] + rises_NK.cumsum(axis=1)
        return logits_NK[:, self.years_C.astype(np.int64) - 1]

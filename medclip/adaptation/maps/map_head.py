"""The head of a pack that answers with a map: how much each place of a tower's grid looks like a structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.heads import ArrayHead
from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class MapHead(ArrayHead):
    """A line over the token of each place: the logit of each structure less that of the background.

    Its logits are those of all places, so that a map is answered while its batch is in memory and travels as any answer
    of tokens does.
    """

    weight_DC: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    rows: int
    """Of the tower's grid."""
    columns: int
    levels: bool
    """Whether tokens are of several depths (`medclip.models.towers.depths.level_tokens`); else of the last map."""
    kind: ClassVar[str] = "map"
    takes: ClassVar[Literal["features", "tokens"]] = "tokens"

    @property
    def num_logits(self) -> int:
        """Number of logits of an image."""
        return self.rows * self.columns * len(self.bias_C)

    def logits(self, tokens: Any, model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C * rows * columns]: of each structure the logits of all places, row by row.

        Args:
            tokens: Tokens of N images, all of the grid that was learned on.
            model: Unused; heads that run the text tower look at it.

        Raises:
            MedclipError: NOT_SUPPORTED_YET for tokens of another grid.
        """
        if tokens.grid != (self.rows, self.columns):
            raise MedclipError(
                Reason.NOT_SUPPORTED_YET,
                f"the map was learned on {self.rows} x {self.columns} places, and the tower has others here.",
                hint="Score with the model and the back-end that it was learned with.",
            )
        tokens_NLD = np.asarray(tokens.tokens_BLD, np.float32)[:, : self.rows * self.columns]
        logits_NLC = tokens_NLD @ self.weight_DC + self.bias_C
        return np.ascontiguousarray(logits_NLC.swapaxes(1, 2)).reshape(len(logits_NLC), -1)

    def grids(self, logits_X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of an image on its grid, float32 [C, rows, columns]; above 0 where a structure is."""
        return logits_X.reshape(len(self.bias_C), self.rows, self.columns)


def map_head(learned: nn.Sequential, grid: tuple[int, int], *, levels: bool) -> MapHead:
    """Write BatchNorm and 1 x 1 convolution of a head that was learned as one line.

    Args:
        learned: Head of `medclip.adaptation.maps.decoders.train_head`, in eval mode.
        grid: Rows and columns of the tower's grid.
        levels: Whether it was learned on tokens of several depths.
    """
    parts: Any = list(learned)
    norm, line = parts
    scale_D = norm.weight / (norm.running_var + norm.eps).sqrt()
    of_class_CD = line.weight.flatten(1)
    less_CD = (of_class_CD[1:] - of_class_CD[:1]) * scale_D
    bias_C = (line.bias[1:] - line.bias[:1]) + less_CD @ (norm.bias / scale_D - norm.running_mean)
    return MapHead(np.ascontiguousarray(less_CD.T.numpy()), bias_C.numpy(), *grid, levels)

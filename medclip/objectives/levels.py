"""Images and texts at three levels, compared pair by pair with softened targets.

Images: the global view G, a local view L, regions R. Texts: a summary S, the full text T, attributes A. Peers (GS, LT)
share 1 − l − m of the weight, regions with texts (RS, RT) have l, attributes with views (GA, LA) have m; R and A are
never compared. Each pair has the softened loss, whose others are alike.

Reference: Gao et al., PyramidCLIP, NeurIPS 2022. Its loss was not released: this is a reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from medclip.objectives.pairs import Pairs
from medclip.objectives.softened import softened_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def level_weights(regions: float, attributes: float) -> dict[str, float]:
    """Return the weight of each pair of levels; together they are 1.

    Args:
        regions: Weight of both pairs of regions (lambda of the paper).
        attributes: Weight of both pairs of attributes (mu of the paper).
    """
    peers = (1 - regions - attributes) / 2
    return {
        "GS": peers,
        "LT": peers,
        "RS": regions / 2,
        "RT": regions / 2,
        "GA": attributes / 2,
        "LA": attributes / 2,
    }


def levels_loss(
    images: Mapping[str, Tensor],
    texts: Mapping[str, Tensor],
    scale: Tensor | float,
    share: float,
    weights: Mapping[str, float],
    *,
    pairs: Mapping[str, Pairs | None] | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the weighted sum of the softened losses of the pairs of levels.

    Args:
        images: [B, D] unit-norm features by level: G, L, R.
        texts: [B, D] unit-norm features by level: S, T, A.
        scale: Factor of the cosines.
        share: Share of each target that goes to the others.
        weights: Weight of each pair, from `level_weights`; one of weight 0 has no part in the graph.
        pairs: Pairs of samples by level of text, as in `clip_loss`.
        group: Ranks, as in `clip_loss`.

    Returns:
        Scalar float32.
    """
    total = next(iter(images.values())).new_zeros(())
    for name, weight in weights.items():
        if weight:
            of_text = None if pairs is None else pairs[name[1]]
            features = images[name[0]], texts[name[1]]
            total = total + weight * softened_loss(*features, scale, share, similarity=0.0, pairs=of_text, group=group)
    return total

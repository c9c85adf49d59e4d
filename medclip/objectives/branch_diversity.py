"""How alike the branches of attention over a bag are: ACMIL's diversity loss, which keeps them on different patches.

Reference: Zhang et al., Attention-challenging multiple instance learning for whole slide image classification, ECCV
2024; as PathGen's slide classifiers have it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def branch_diversity(attention_TN: Tensor) -> Tensor:
    """Compute the mean cosine of each two branches' attention.

    Args:
        attention_TN: float [T, N], attention of T branches over N patches before the softmax.

    Returns:
        Scalar: 1 where all branches coincide; 0 for one branch, with gradients of 0.
    """
    num_branches = len(attention_TN)
    unit_TN = normalize(attention_TN.softmax(dim=-1), dim=-1)
    first, second = torch.triu_indices(num_branches, num_branches, offset=1)
    if not len(first):
        return attention_TN.sum() * 0
    return (unit_TN[first] * unit_TN[second]).sum(dim=-1).mean()

"""No loss makes a table of batch x batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.distill import relational_loss
from medclip.objectives.multi_view import multi_view_clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.sigmoid import siglip_loss
from tests.kits.objectives import unit

SIZE, WIDTH, CHUNK = 96, 4, 8


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


def _pairs() -> Pairs:
    keys = torch.arange(SIZE)[:, None] // 3
    return Pairs(keys, keys // 2, torch.rand(SIZE), torch.arange(SIZE) % 7 != 0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clip": lambda a, b: clip_loss(a, b, 5.0, chunk=CHUNK),
    "clip with pairs": lambda a, b: clip_loss(a, b, 5.0, _pairs(), chunk=CHUNK),
    "siglip with pairs": lambda a, b: siglip_loss(a, b, 5.0, -5.0, _pairs(), chunk=CHUNK),
    "views": lambda a, b: multi_view_clip_loss([a, b], [b, a], 5.0, w_vv=1, w_tt=1, pairs=_pairs(), chunk=CHUNK),
    "relations": lambda a, b: relational_loss(a, b, chunk=CHUNK),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_largest_tensor_is_a_chunk_of_rows(name: str) -> None:
    image, text = unit(SIZE, WIDTH, 0).requires_grad_(), unit(SIZE, WIDTH, 1).requires_grad_()
    with Largest() as largest:
        LOSSES[name](image, text).backward()
    assert image.grad is not None
    assert SIZE * WIDTH <= largest.elements <= SIZE * CHUNK

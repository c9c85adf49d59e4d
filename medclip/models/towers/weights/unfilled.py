"""Towers built for weights that are read into them at once: no random numbers are drawn that nothing would keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWING = frozenset({"uniform_", "normal_", "erfinv_", "kaiming_uniform_"})
"""Methods of tensors that fill them with numbers of a random law, and what torch asks for before it calls them."""


class Unfilled(TorchFunctionMode):
    """Within it, parameters that would get random numbers keep what the memory held.

    Those of a ViT-B/16 with its text tower take about a second of one core, and the weights of a pack replace them all.
    What is computed in another way, such as masks, positions of fixed waves, ones and zeros, is as ever. Every
    parameter must be loaded afterwards: `load_state_dict` with `strict`.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Leave a parameter as it is; call all else."""
        given = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            tensor = args[0] if args else given["tensor"]
            if isinstance(tensor, nn.Parameter) or tensor.requires_grad:
                return tensor
        return func(*args, **given)

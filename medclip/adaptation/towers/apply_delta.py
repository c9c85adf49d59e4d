"""Dense towers made of a base and what a method learned of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from medclip.adaptation.towers.clip_svd import decompose, load_singular_values, merge
from medclip.adaptation.towers.layers import list_layers
from medclip.adaptation.towers.split_attention import join_attention, split_attention
from medclip.errors import MedclipError, Reason


def apply_delta(method: str, clip: nn.Module, delta: Mapping[str, Tensor], settings: Mapping[str, Any]) -> nn.Module:
    """Make the dense towers of a base and what a method learned.

    Args:
        method: svd, lora, norm or full.
        clip: The base's dual encoder; it is copied.
        delta: From `Fitted.delta`.
        settings: From `Fitted.settings`.

    Returns:
        A dual encoder of the base's classes with the base's names of weights.

    Raises:
        MedclipError: PACK_INVALID when the change is not one of this base's.
    """
    merged = copy.deepcopy(clip)
    try:
        if method == "svd":
            split_attention(merged)
            layers = [layer for layer in list_layers(merged) if layer.name in delta]
            decompose(merged, layers, settings["rank_ratio"], settings["rank_compat"])
            load_singular_values(merged, delta)
            merge(merged)
        elif method == "lora":
            split_attention(merged)
            _add_low_rank(merged, delta, settings["alpha"] / settings["rank"])
            join_attention(merged)
        elif method in ("norm", "full"):
            own = dict(merged.named_parameters())
            with torch.no_grad():
                for name, value in delta.items():
                    own[name].copy_(value)
        else:
            raise MedclipError(Reason.PACK_INVALID, f"the method {method!r} changes no towers.")
    except (KeyError, AttributeError, RuntimeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"what {method} learned does not fit this base ({e}).",
            hint="Take the base it was made on.",
        ) from e
    return merged.eval().requires_grad_(False)


@torch.no_grad()
def _add_low_rank(clip: nn.Module, delta: Mapping[str, Tensor], scale: float) -> None:
    for name in sorted({key.rpartition(".")[0] for key in delta}):
        weight = cast(Tensor, clip.get_submodule(name).weight)
        low, high = (delta[f"{name}.{part}"].to(weight) for part in "AB")
        weight.add_((scale * (high @ low)).reshape(weight.shape))

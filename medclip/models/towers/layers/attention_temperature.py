"""Softer attention: softmax(QKᵀ / (T·√d)) in every block of an image tower, without training.

A tower that attends less sharply is drawn less onto one odd patch. Scaling the query's weights by 1/T does the same as
scaling the logits, in any implementation of attention.

Reference: Gu, Tresp and Qin, Are vision transformers robust to patch perturbations? ECCV 2022 (the idea; that all
blocks share one T is an assumption).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from medclip.models.model import Model


def with_attention_temperature(model: Model, temperature: float) -> Model | None:
    """Return the model with softer attention in its image tower.

    Args:
        model: Any model; it is not changed.
        temperature: 1 for the attention as it is; larger is softer.

    Returns:
        None where a tower has no attention whose queries can be scaled: convolutional ones, and those that normalise
        their queries.
    """
    clip: Any = copy.deepcopy(model.clip)
    scaled = [scale_queries(module, temperature) for module in clip.visual.modules()]
    return model.with_towers(clip) if any(scaled) else None


def scale_queries(module: nn.Module, temperature: float) -> bool:
    """Divide the query's weights of one attention by the temperature; False for a module that is none."""
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        weight, bias = module.in_proj_weight, module.in_proj_bias
    else:
        joint, norm = getattr(module, "qkv", None), getattr(module, "q_norm", None)
        if not isinstance(joint, nn.Linear) or not (norm is None or isinstance(norm, nn.Identity)):
            return False
        weight, bias = joint.weight, joint.bias
    width = len(weight) // 3
    with torch.no_grad():
        weight[:width] /= temperature
        if bias is not None:
            bias[:width] /= temperature
    return True

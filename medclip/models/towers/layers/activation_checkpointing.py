"""Activation checkpointing: keep no activations inside blocks and compute them again in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

_PLAIN = {"use_reentrant": False}
"""torch's newer form: it also works where the embeddings are locked and ask for no gradient."""


def recompute_activations(model: nn.Module) -> None:
    """Turn activation checkpointing on in both towers.

    As open_clip's `set_grad_checkpointing`, and for BERT towers in the way that present versions of transformers want
    (open_clip calls one that they deprecate).

    Args:
        model: open_clip dual encoder or an image tower alone, changed in place. Losses and gradients stay the same.
    """
    clip: Any = model
    clip.visual.set_grad_checkpointing(True)
    language_model: Any = getattr(getattr(clip, "text", None), "transformer", None)
    if hasattr(language_model, "activation_checkpointing_enable"):
        language_model.activation_checkpointing_enable(activation_checkpointing_kwargs=_PLAIN)
    elif hasattr(language_model, "gradient_checkpointing_enable"):
        language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_PLAIN)
    elif hasattr(clip, "text"):
        clip.text.set_grad_checkpointing(True)
    elif hasattr(clip, "transformer"):
        clip.transformer.grad_checkpointing = True

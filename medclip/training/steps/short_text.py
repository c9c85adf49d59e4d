"""Encode a batch of captions at the length of the longest one instead of the full context."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def encode_short(model: nn.Module, tokens_BL: Tensor, pad_id: int = 0, num_tokens: int | None = None) -> Tensor:
    """Return the same features as `model.encode_text`, without computing columns that are padding in every row.

    Causal towers that pool at the end token, and BERT towers, which mask padding, are not influenced by what comes
    after the caption; others are given the whole context. Captions fill a third of the context on average: this halves
    the cost of the text tower in a training step. open_clip builds its causal mask once for the full context; a cut of
    it stands in during the call.

    Args:
        model: open_clip dual encoder: CustomTextCLIP with its text tower in `model.text`, or CLIP, which is it itself.
        tokens_BL: int64 [B, L].
        pad_id: Id of the padding token.
        num_tokens: Columns that the longest caption needs, or more; they are counted where None, for which the host
            waits for a GPU.

    Returns:
        float [B, D], not normalised.
    """
    text: Any = getattr(model, "text", model)
    if hasattr(text, "pooler"):  # HFTextEncoder: attends to what is not padding
        return text(tokens_BL[:, : num_tokens or int((tokens_BL != pad_id).sum(dim=1).max())])
    full = getattr(text, "attn_mask", None)
    if full is None or getattr(text, "text_pool_type" if text is model else "pool_type", None) != "argmax":
        return text.encode_text(tokens_BL) if text is model else text(tokens_BL)
    # The end token has the highest id; padding's may stand in a word.
    used = num_tokens or int(tokens_BL.argmax(dim=1).max()) + 1
    if text is model:
        x_BLW = text.token_embedding(tokens_BL[:, :used]) + text.positional_embedding[:used]
        x_BLW = text.ln_final(text.transformer(x_BLW, attn_mask=full[:used, :used]))
        pooled_BW = x_BLW[torch.arange(len(x_BLW), device=x_BLW.device), tokens_BL.argmax(dim=1)]
        projection = text.text_projection
        if projection is None:
            return pooled_BW
        return projection(pooled_BW) if isinstance(projection, nn.Linear) else pooled_BW @ projection
    try:
        text.attn_mask = full[:used, :used]
        return text(tokens_BL[:, :used])
    finally:
        text.attn_mask = full

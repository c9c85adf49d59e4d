"""One more pooling for open_clip's BERT text towers: the end token.

open_clip knows CLS, mean, max and the pooler's output. A config with `"hf_pooler_type": "eos_pooler"` therefore loads
in plain open_clip only after `import medclip.models.towers.poolers`, which puts the class below into
open_clip's own table.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import register_pooler
from torch import Tensor, nn


@register_pooler
class EosPooler(nn.Module):
    """Last hidden state at the last token that is not padding: [SEP] in BERT's vocabulary."""

    def forward(self, x: Any, attention_mask: Tensor) -> Tensor:
        """Pool.

        Args:
            x: Output of the text model; `last_hidden_state` is [B, L, D].
            attention_mask: int64 [B, L], 1 where there is a token; padding on the right.

        Returns:
            [B, D].
        """
        last_B = attention_mask.sum(dim=1).clamp(min=1) - 1
        states_BLD: Tensor = x.last_hidden_state
        return states_BLD[torch.arange(len(last_B), device=last_B.device), last_B]

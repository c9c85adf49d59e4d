"""CONCH's attention pooling: one learned query looks at all tokens of a ViT.

Of CONCH's two poolers this is the contrastive one; the other, of 256 queries, feeds the decoder that writes captions.
Reference: Lu et al., A visual-language foundation model for computational pathology, Nature Medicine 2024.
"""

from __future__ import annotations

import torch
from open_clip.transformer import AttentionalPooler
from torch import Tensor, nn

HEADS = "query_pool_heads"
"""Key of `vision_cfg`: the pool's attention heads. open_clip has no such key."""


class QueryPool(nn.Module):
    """From all tokens of a tower to the joint space; stands where open_clip's wrapper of timm has its projection.

    Args:
        width: Width of the tokens.
        embed_dim: Width of the joint space; the query is as wide.
        heads: Attention heads.
    """

    def __init__(self, width: int, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.attn_pool = AttentionalPooler(embed_dim, width, n_head=heads, n_queries=1, norm_layer=nn.LayerNorm)
        self.ln = nn.LayerNorm(embed_dim)
        self.proj = nn.Parameter(embed_dim**-0.5 * torch.randn(embed_dim, embed_dim))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return one vector for each image, [B, embed_dim]."""
        return self.ln(self.attn_pool(tokens_BLD)[:, 0]) @ self.proj

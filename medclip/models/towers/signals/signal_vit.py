"""Vision transformers over ECGs: patches of all leads together, or of each lead by itself.

Both are timm's, over an "image" of one channel, 12 rows and T columns, so that masked autoencoders, layer-wise rates
and freezing work as with images. `joint_patch` is that of MERL (Liu et al., ICML 2024): one token for each stretch of
time, over all leads. `lead_patch` has one for each lead and stretch of time; those of missing leads take no part.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NUM_LEADS = 12
SHAPES = {"test": (24, 2, 2), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""Width, blocks and heads of the sizes; `test` is for tests."""


class SignalViT(VisionTransformer):
    """A transformer over ECGs [B, 1, 12, T]; a lead of zeros alone is one that is missing.

    Args:
        num_samples: Samples of a lead, T.
        patch: Samples of a token.
        by_lead: Whether each lead has tokens of its own.
        width: Width of a token, D.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Width of the hidden layer, relative to D.
    """

    def __init__(
        self, num_samples: int, patch: int, *, by_lead: bool, width: int, depth: int, heads: int, mlp_ratio: float = 4.0
    ) -> None:
        rows = 1 if by_lead else NUM_LEADS
        size: Any = (NUM_LEADS, num_samples)
        super().__init__(
            img_size=size,
            patch_size=(rows, patch),
            in_chans=1,
            num_classes=0,
            global_pool="avg",  # type: ignore
            class_token=False,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            norm_layer=nn.LayerNorm,  # with torch's epsilon, as MERL's
        )
        self.by_lead = by_lead
        self.patch_embed.proj = nn.Conv2d(1, width, (rows, patch), stride=(rows, patch), bias=False)
        leads, times = self.patch_embed.grid_size
        with torch.no_grad():  # of lead and time, together N(0, 1)
            positions_LTD = torch.randn(leads, 1, width) + torch.randn(1, times, width) if by_lead else None
            table_LTD = torch.randn(leads, times, width) if positions_LTD is None else positions_LTD / 2**0.5
            self.pos_embed = nn.Parameter(table_LTD.flatten(0, 1)[None].clone())

    def present(self, records_B1LT: Tensor) -> Tensor | None:
        """Return which tokens are of leads that are there.

        Returns:
            bool [B, L]; None where every token is of all leads. A record without any lead counts as complete, so that
            an empty row of a batch gives numbers.
        """
        if not self.by_lead:
            return None
        there_BL = (records_B1LT[:, 0] != 0).any(-1)
        there_BL = there_BL | ~there_BL.any(1, keepdim=True)
        return there_BL.repeat_interleave(self.patch_embed.grid_size[1], dim=1)

    def run_blocks(self, tokens_BND: Tensor, present_BN: Tensor | None) -> Tensor:
        """Run the blocks; tokens that are not present are looked at by none."""
        mask = None
        if present_BN is not None:  # a masked record may show missing leads alone: then they are looked at
            mask = (present_BN | ~present_BN.any(1, keepdim=True))[:, None, None, :]
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks.children():
            if recompute:
                tokens_BND = checkpoint(block, tokens_BND, mask, use_reentrant=False)  # type: ignore[assignment]
            else:
                tokens_BND = block(tokens_BND, attn_mask=mask)
        return tokens_BND

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the tokens [B, L, D] before pooling and norm."""
        assert attn_mask is None
        assert not is_causal
        return self.norm(self.run_blocks(self._pos_embed(self.patch_embed(x)), self.present(x)))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return features [B, D]: the norm of the mean of the tokens that are present."""
        return self.pool_present(self.forward_features(x, attn_mask, is_causal), self.present(x))

    def pool_present(self, tokens_BLD: Tensor, present_BL: Tensor | None) -> Tensor:
        """Return the norm of the mean of the tokens that are present, [B, D]."""
        if present_BL is None:
            return self.fc_norm(tokens_BLD.mean(1))
        sum_BD = tokens_BLD.masked_fill(~present_BL[:, :, None], 0).sum(1)
        return self.fc_norm(sum_BD / present_BL.sum(1, keepdim=True).to(sum_BD.dtype))

"""The decoder of a masked autoencoder: from what the encoder saw to the pixels of patches that it did not see.

Two things that a plain stack of blocks computes are left out, and nothing changes but the rounding. Mask tokens enter
the first block as a table of positions, the same for every image: its queries, keys and values are computed once for
the batch. And behind the keys and values of the last block only the patches that are asked for go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, scaled_dot_product_attention

from medclip.errors import MedclipError, Reason


@dataclass(frozen=True)
class DecoderShape:
    """How large a decoder is."""

    width: int
    depth: int
    heads: int
    bias: bool = True
    """Whether the layer between encoder and decoder has a bias (VideoMAE's has none)."""


DECODERS = {
    "dec128d2": DecoderShape(128, 2, 16),
    "dec512d2": DecoderShape(512, 2, 16),
    "dec512d8": DecoderShape(512, 8, 16),
}
"""Decoders of masked autoencoders by name; `video` beside them is half as wide as the encoder, with 4 blocks."""


def decoder_shape(decoder: str | DecoderShape, encoder_width: int) -> DecoderShape:
    """Return the shape that a decoder's name stands for.

    Raises:
        MedclipError: RECIPE_INVALID for an unknown name.

    Example:
        >>> decoder_shape("video", 384)
        DecoderShape(width=192, depth=4, heads=3, bias=False)
    """
    if isinstance(decoder, DecoderShape):
        return decoder
    if decoder == "video":
        width = max(64, encoder_width // 2 // 64 * 64)
        return DecoderShape(width, 4, width // 64, bias=False)
    if decoder not in DECODERS:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"no decoder is called {decoder!r}.",
            hint=f"Known are {', '.join(DECODERS)} and video.",
        )
    return DECODERS[decoder]


class PatchDecoder(nn.Module):
    """A small transformer over what was visible and what is asked for.

    Args:
        shape: Shape of the decoder.
        encoder_width: Width of the encoder's tokens D.
        values: Pixels of a patch, over all channels, P.
        positions_LD: float [L, shape.width], the fixed positions of patches.
    """

    positions_LD: Tensor

    def __init__(self, shape: DecoderShape, encoder_width: int, values: int, positions_LD: Tensor) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, shape.width, bias=shape.bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.blocks = nn.ModuleList(_Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.head = nn.Linear(shape.width, values)
        self.register_buffer("positions_LD", positions_LD, persistent=False)

    def forward(self, latent_BND: Tensor, visible_BK: Tensor, asked_BM: Tensor, *, every: bool = False) -> Tensor:
        """Guess the pixels of patches.

        Args:
            latent_BND: The encoder's tokens: a prefix, which has no position, then the visible patches.
            visible_BK: int64 numbers of the visible patches.
            asked_BM: int64 numbers of the patches that are asked for; may name visible ones, too.
            every: Whether what the tokens of visible patches become is returned, too.

        Returns:
            [B, M, P], or [B, K + M, P] with the visible patches first.
        """
        tokens_BND = self.embed(latent_BND)
        prefix = tokens_BND.shape[1] - visible_BK.shape[1]
        tokens_BND = torch.cat([tokens_BND[:, :prefix], tokens_BND[:, prefix:] + self.positions_LD[visible_BK]], dim=1)
        hidden_LD = (self.mask_token[0] + self.positions_LD).to(tokens_BND.dtype)
        wanted = asked_BM.shape[1] + (visible_BK.shape[1] if every else 0)
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            tokens_BND = block(tokens_BND, (hidden_LD, asked_BM) if i == 0 else None, wanted if last else None)
        return self.head(self.norm(tokens_BND[:, -wanted:]))


class _Block(nn.Module):
    """A pre-norm transformer block, MLP four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, tokens_BND: Tensor, new: tuple[Tensor, Tensor] | None = None, wanted: int | None = None
    ) -> Tensor:
        """Return tokens [B, N, D].

        Args:
            tokens_BND: Tokens.
            new: A table [L, D] and int64 [B, M]: tokens to append, rows of the table.
            wanted: Number of tokens at the end that are computed; None: all.
        """
        qkv_BNE = self.qkv(self.norm1(tokens_BND))
        if new is not None:
            table_LD, index_BM = new
            qkv_BNE = torch.cat([qkv_BNE, embedding(index_BM, self.qkv(self.norm1(table_LD)))], dim=1)
            tokens_BND = torch.cat([tokens_BND, embedding(index_BM, table_LD)], dim=1)
        query, key, value = qkv_BNE.unflatten(2, (3, self._heads, -1)).unbind(2)  # [B, N, heads, head width] each
        if wanted is not None:
            query, tokens_BND = query[:, -wanted:], tokens_BND[:, -wanted:]
        mixed_BHND = scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        tokens_BND = tokens_BND + self.proj(mixed_BHND.transpose(1, 2).flatten(2))
        return tokens_BND + self.fc2(gelu(self.fc1(self.norm2(tokens_BND))))

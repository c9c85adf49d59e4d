"""The decoder of a masked autoencoder: from what the encoder saw to the pixels of patches that it did not see.

Two things that a plain stack of blocks computes are left out, and nothing changes but the rounding. Mask tokens enter
the first block as a table of positions, the same for every image: its queries, keys and values are computed once for
the batch. And behind the keys and values of the last block only the patches that are asked for go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, interpolate, scaled_dot_product_attention

from medclip.errors import MedclipError, Reason
from medclip.objectives.masked import sides_in_words


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


_BASE = 10_000.0


def sincos_positions(grid: Sequence[int], dim: int, *, prefix: int = 0) -> Tensor:
    """Return the fixed positions of a grid of patches or tubes.

    Args:
        grid: (rows, columns) of patches: the first half of the channels encodes the column and the second half the
            row, each as sines, then cosines. (time, rows, columns) of tubes: one running number over all tubes, time
            slowest, with sine and cosine in turn.
        dim: Width D, divisible by 4 for patches and by 2 for tubes.
        prefix: Rows of zeros to put before them, for class and register tokens.

    Returns:
        float64 [prefix + L, D].

    Raises:
        MedclipError: WRONG_USE for a width that cannot be divided so.

    Example:
        >>> sincos_positions((14, 14), 384, prefix=1).shape
        torch.Size([197, 384])
    """
    parts = 4 if len(grid) == 2 else 2
    if dim % parts:
        raise MedclipError(
            Reason.WRONG_USE,
            f"sin-cos positions of {len(grid)} dimensions cannot be {dim} wide: no multiple of {parts}.",
        )
    frequencies_F = _BASE ** -(torch.arange(dim // parts, dtype=torch.float64) / (dim // parts))
    if len(grid) == 2:
        rows, cols = grid
        row_L = torch.arange(rows, dtype=torch.float64).repeat_interleave(cols)
        col_L = torch.arange(cols, dtype=torch.float64).repeat(rows)
        angles = [torch.outer(x_L, frequencies_F) for x_L in (col_L, row_L)]
        table_LD = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
    else:
        angle_LF = torch.outer(torch.arange(math.prod(grid), dtype=torch.float64), frequencies_F)
        table_LD = torch.stack([angle_LF.sin(), angle_LF.cos()], dim=2).flatten(1)
    return torch.cat([table_LD.new_zeros(prefix, dim), table_LD])


def resize_positions(positions_1ND: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Interpolate positions to another grid: bicubic over rows and columns, linear over time, as upstream does.

    Args:
        positions_1ND: [1, prefix + L, D]; the rows before the L of the old grid are kept as they are.
        old: The grid that they have, (rows, columns) or (time, rows, columns).
        new: The grid that is wanted. With three numbers where `old` has two, every time gets the positions of the
            image: a clip that stands still is then read as the image is.

    Returns:
        [1, prefix + L', D] of the same dtype.

    Raises:
        MedclipError: WRONG_USE where positions and grid do not fit, or tubes are to become patches.
    """
    prefix, dim = positions_1ND.shape[1] - math.prod(old), positions_1ND.shape[2]
    if prefix < 0 or len(new) < len(old):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{positions_1ND.shape[1]} positions of a grid of {sides_in_words(old)} cannot become a grid of "
            f"{sides_in_words(new)}.",
        )
    kept_1PD, table = positions_1ND[:, :prefix], positions_1ND[:, prefix:]
    times, plane = (old[0], old[1:]) if len(old) == 3 else (1, tuple(old))
    table_TDHW = table.reshape(times, *plane, dim).permute(0, 3, 1, 2)
    if tuple(plane) != tuple(new[-2:]):
        table_TDHW = interpolate(table_TDHW.float(), size=tuple(new[-2:]), mode="bicubic", align_corners=False)
    if len(new) == 3 and new[0] != times:
        line_1XT = table_TDHW.flatten(1).T[None].float()
        line_1XT = interpolate(line_1XT, size=new[0], mode="linear", align_corners=False)
        table_TDHW = line_1XT[0].T.unflatten(1, (dim, *new[-2:]))
    table_1LD = table_TDHW.permute(0, 2, 3, 1).reshape(1, -1, dim).to(positions_1ND.dtype)
    return torch.cat([kept_1PD, table_1LD], dim=1)


def inflate_patch_weights(weight_DCHW: Tensor, tubelet: int, channels: int | None = None) -> Tensor:
    """Turn the weights of a patch embedding into those of a tube embedding.

    Args:
        weight_DCHW: [D, C, p, p].
        tubelet: Frames or slices of a tube.
        channels: Channels of the clips; 1 where an image tower of 3 is to read grey ones (weights are summed over the
            channels, as if grey were replicated). None: as many.

    Returns:
        [D, channels, tubelet, p, p]: a tube whose frames are all the same is embedded as the image patch is.

    Raises:
        MedclipError: WRONG_USE for other channels than the same number, or 1.
    """
    num_channels = weight_DCHW.shape[1]
    if channels == 1:
        weight_DCHW = weight_DCHW.sum(1, keepdim=True)
    elif channels not in (None, num_channels):
        raise MedclipError(Reason.WRONG_USE, f"a patch embedding of {num_channels} channels cannot read {channels}.")
    return (weight_DCHW / tubelet).unsqueeze(2).repeat(1, 1, tubelet, 1, 1)

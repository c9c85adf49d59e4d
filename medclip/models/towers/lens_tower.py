"""A lens in front of a frozen vision transformer: ECGs and volumes come into the space that a pack has for images.

Tokens of the new kind are looked at by a fixed number of learned latents, which come out as the patch tokens of the
transformer. That is the pack's and stays as it is; so do its projection and, beside it, its text tower. Each round of
the lens is cross-attention from the latents to the tokens, a gated feed-forward layer, and blocks of self-attention
among the latents, which are not pooled.

References: Lei et al., ViT-Lens, CVPR 2024; Perceiver: Jaegle et al., ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import KEY as SIGNAL
from medclip.models.inputs.volume_input import TUBELET
from medclip.models.towers.masked_autoencoder import check_trunk
from medclip.models.towers.timm_tower import ImageTower
from medclip.models.towers.tokens import Tokens, timm_tokens, wrapped_head


@dataclass(frozen=True)
class LensShape:
    """How large a lens is; the published ones of ViT-L have 256 latents of 1,024, 16 heads of 64 among them."""

    latents: int
    """Latents that come out, N."""
    width: int
    """Of a latent, D: that of the ViT behind it."""
    token_width: int
    """Of the tokens that it looks at, C."""
    depth: int = 2
    """Rounds."""
    self_per_cross: int = 1
    """Blocks of self-attention in a round."""
    cross_heads: int = 1
    """Heads that look at tokens."""
    latent_heads: int = 16
    """Heads among latents."""
    head_dim: int = 64
    """Width of a head."""
    tied: bool = False
    """Whether all rounds but the first share their weights."""

    def to_config(self) -> dict[str, Any]:
        """Return the values as a config has them."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LensShape:
        """Read the values back.

        Raises:
            ValueError: They are of another form; the message says which.
        """
        fields = cls.__dataclass_fields__
        for name, value in values.items():
            right = (
                type(value) is bool if name == "tied" else type(value) is int and value >= (name != "self_per_cross")
            )
            if name not in fields or not right:
                raise ValueError(f"{name} is {str(value)[:60]!r}")
        if lacking := [name for name in ("latents", "width", "token_width") if name not in values]:
            raise ValueError(f"{lacking[0]} is not stated")
        return cls(**values)


class PerceiverLens(nn.Module):
    """Latents that look at tokens.

    Args:
        shape: Shape of the lens.
    """

    def __init__(self, shape: LensShape) -> None:
        super().__init__()
        self.shape = shape
        self.latents = nn.Parameter(torch.randn(shape.latents, shape.width) * 0.02)
        self.layers = nn.ModuleList(_round(shape) for _ in range(min(shape.depth, 2) if shape.tied else shape.depth))

    def forward(self, tokens_BLC: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """Return the latents [B, N, D].

        Args:
            tokens_BLC: Tokens with their positions in them; their order does not matter.
            mask_BL: bool, False for a token that nobody looks at; None looks at all.
        """
        latents_BND = self.latents.expand(len(tokens_BLC), -1, -1)
        for n in range(self.shape.depth):
            cross, feed, others = self.layers[min(n, len(self.layers) - 1)].children()
            latents_BND = latents_BND + cross(latents_BND, tokens_BLC, mask_BL)
            latents_BND = latents_BND + feed(latents_BND)
            for block in others.children():
                attend, then = block.children()
                latents_BND = latents_BND + attend(latents_BND)
                latents_BND = latents_BND + then(latents_BND)
        return latents_BND


def _round(shape: LensShape) -> nn.ModuleList:
    def attention(heads: int, context: int | None) -> _PreNorm:
        return _PreNorm(shape.width, _Attention(shape.width, context or shape.width, heads, shape.head_dim), context)

    def feed() -> _PreNorm:
        return _PreNorm(shape.width, _FeedForward(shape.width))

    blocks = (nn.ModuleList([attention(shape.latent_heads, None), feed()]) for _ in range(shape.self_per_cross))
    return nn.ModuleList([attention(shape.cross_heads, shape.token_width), feed(), nn.ModuleList(blocks)])


class _PreNorm(nn.Module):
    def __init__(self, width: int, fn: nn.Module, context: int | None = None) -> None:
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(width)
        self.norm_context = None if context is None else nn.LayerNorm(context)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if self.norm_context is None or context is None:
            return self.fn(self.norm(x))
        return self.fn(self.norm(x), self.norm_context(context), mask)


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self._heads = heads
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x_BND: Tensor, context_BLC: Tensor | None = None, mask_BL: Tensor | None = None) -> Tensor:
        key, value = self.to_kv(x_BND if context_BLC is None else context_BLC).chunk(2, dim=-1)
        query, key, value = (t.unflatten(2, (self._heads, -1)).transpose(1, 2) for t in (self.to_q(x_BND), key, value))
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        mixed_BHNC = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(mixed_BHNC.transpose(1, 2).flatten(2))


class _Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * gelu(gate)


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 8 * width), _Gated(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def fourier_positions(positions_X: Tensor, bands: int, max_frequency: float) -> Tensor:
    """Return sines and cosines of places in [-1, 1], and the places themselves: [X, 2 * bands + 1].

    Frequencies lie evenly from 1 to half of `max_frequency`.
    """
    angles_XF = positions_X[:, None] * torch.linspace(1.0, max_frequency / 2, bands) * math.pi
    return torch.cat([angles_XF.sin(), angles_XF.cos(), positions_X[:, None]], dim=1)


KEY = "lens"
"""Of `vision_cfg`: the shape of the lens, `patch` and `fourier_bands`."""
_MAX_FREQUENCY = 10.0


class LensTower(nn.Module):
    """Records [B, 1, 12, T] or clips [B, C, T, S, S] to features, through a lens and the tower of a pack.

    Args:
        visual: The tower of a pack: open_clip's wrapper of a plain vision transformer of timm, or `ImageTower`.
        shape: Shape of the lens; its latents stand for the patches of the transformer.
        size: Sides of what is cut into tokens: leads and samples, or slices, rows and columns.
        patch: Sides of a token.
        channels: Channels of the input.
        fourier_bands: Frequencies of fixed positions that tokens have beside their learned ones; 0: none.
    """

    def __init__(
        self,
        visual: nn.Module,
        shape: LensShape,
        size: tuple[int, ...],
        patch: tuple[int, ...],
        channels: int,
        fourier_bands: int = 0,
    ) -> None:
        super().__init__()
        grid = tuple(side // step for side, step in zip(size, patch, strict=True))
        fixed = len(grid) * (2 * fourier_bands + 1) if fourier_bands else 0
        self.patch = patch
        convolution = nn.Conv2d if len(grid) == 2 else nn.Conv3d
        self.tokenizer = convolution(channels, shape.token_width, patch, stride=patch)  # type: ignore[arg-type]
        self.positions = nn.Parameter(torch.randn(1, math.prod(grid), shape.token_width) * 0.02)
        self.fourier_LF: Tensor | None
        self.register_buffer("fourier_LF", _fourier(grid, fourier_bands) if fixed else None, persistent=False)
        self.lens = PerceiverLens(LensShape.of(shape.to_config() | {"token_width": shape.token_width + fixed}))
        self.visual: Any = visual
        patches = math.prod(visual.trunk.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
        self.latent_positions: nn.Parameter | None = None
        if patches != shape.latents:  # the pretrained table stands for the patches of a square
            self.latent_positions = nn.Parameter(torch.randn(1, shape.latents, shape.width) * 0.02)
        self.dim = int(getattr(visual, "dim", 0))
        self.mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        """With which the tower's images are normalised; set where features of slices are wanted in training."""
        self.keeps_tokens = False
        """Whether the tokens of the last pass of training are kept, for a loss that compares them."""
        self.kept_tokens: list[Tensor] = []

    def train(self, mode: bool = True) -> LensTower:
        """Keep the pack's tower in evaluation mode where nothing of it learns."""
        super().train(mode)
        if not any(p.requires_grad for p in self.visual.parameters()):
            self.visual.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside the blocks of the pack's tower."""
        self.visual.trunk.set_grad_checkpointing(enable)

    def input_tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens [B, L, C] with their positions, and which of them hold anything, bool [B, L].

        Of an ECG those in which no lead changes (padding around a short record, which is zero in some scales only) are
        looked at by no latent; of clips every token is.
        """
        tokens_BLC = self.tokenizer(inputs).flatten(2).transpose(1, 2) + self.positions
        if self.fourier_LF is not None:
            fixed_BLF = self.fourier_LF.to(tokens_BLC).expand(len(tokens_BLC), -1, -1)
            tokens_BLC = torch.cat([tokens_BLC, fixed_BLF], dim=2)
        if inputs.ndim != 4:
            return tokens_BLC, None
        stretches_BLPT = inputs[:, 0].unflatten(2, (-1, self.patch[1])).transpose(1, 2)
        first_BLP1 = stretches_BLPT[..., :1] if self.patch[1] > 1 else 0
        filled_BL = (stretches_BLPT != first_BLP1).flatten(2).any(2)
        return tokens_BLC, filled_BL | ~filled_BL.any(1, keepdim=True)

    @torch.no_grad()
    def features_of_middle(self, clips_BCTHW: Tensor) -> Tensor:
        """Return what the pack's tower sees in the middle slice or frame of each clip, [B, D]; nothing learns of it."""
        return self.visual(self._middle(clips_BCTHW))

    @torch.no_grad()
    def tokens_of_middle(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the tokens that the pack's tower makes of it, class token and all, [B, L, D]."""
        return self.visual.trunk.forward_features(self._middle(clips_BCTHW))

    def _middle(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the middle slice or frame of each clip as the pack's tower takes images."""
        assert self.mean_std is not None
        images_BCHW = clips_BCTHW[:, :, clips_BCTHW.shape[2] // 2]
        if images_BCHW.shape[1] == 1:
            mean_C11, std_C11 = (images_BCHW.new_tensor(values)[:, None, None] for values in self.mean_std)
            images_BCHW = (images_BCHW * std_C11[0] + mean_C11[0] - mean_C11) / std_C11
        return images_BCHW

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features [B, D] in the pack's space; they are not normalised."""
        return self.encode_tokens(inputs).pooled_BD

    def encode_tokens(self, inputs: Tensor, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
        """Return the latents as they come out of the pack's tower; they have no place in what was looked at."""
        latents_BND, trunk = self.lens(*self.input_tokens(inputs)), self.visual.trunk
        placed = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        table_1ND = trunk.pos_embed[:, placed:] if self.latent_positions is None else self.latent_positions
        tokens_BND = latents_BND + table_1ND
        if trunk.num_prefix_tokens:
            prefix_1PD = torch.cat([t for t in (trunk.cls_token, trunk.reg_token) if t is not None], dim=1)
            if placed:
                prefix_1PD = prefix_1PD + trunk.pos_embed[:, :placed]
            tokens_BND = torch.cat([prefix_1PD.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1)
        tokens_BND = trunk.norm_pre(trunk.pos_drop(tokens_BND))
        recompute = trunk.grad_checkpointing and torch.is_grad_enabled()
        for block in trunk.blocks:
            ran: Any = checkpoint(block, tokens_BND, use_reentrant=False) if recompute else block(tokens_BND)
            tokens_BND = ran
        head = self.visual.pooling_head if isinstance(self.visual, ImageTower) else wrapped_head(self.visual)
        state_BND = trunk.norm(tokens_BND)
        if self.keeps_tokens and self.training:
            self.kept_tokens = [state_BND]
        return replace(timm_tokens(trunk, inputs, head, project=project, pool=pool, state=state_BND), grids=None)


def _fourier(grid: tuple[int, ...], bands: int) -> Tensor:
    axes: list[Tensor] = [fourier_positions(torch.linspace(-1, 1, n), bands, _MAX_FREQUENCY) for n in grid]
    index = torch.cartesian_prod(*(torch.arange(n) for n in grid))
    return torch.cat([axis[index[:, n]] for n, axis in enumerate(axes)], dim=1)


def behind_lens(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `vision_cfg` of the tower behind a lens."""
    return {key: value for key, value in section.items() if key not in (KEY, SIGNAL, TUBELET)}


def finish_lens(visual: nn.Module, model_cfg: Mapping[str, Any]) -> nn.Module:
    """Place a lens with random weights in front of a tower that was built."""
    return add_lens(visual, model_cfg["vision_cfg"])


def add_lens(visual: nn.Module, vision_cfg: Mapping[str, Any]) -> LensTower:
    """Place a lens with random weights in front of a tower.

    Args:
        visual: Tower of a pack, as `LensTower` takes it.
        vision_cfg: Config with `lens`, and `signal` (patch, samples) or `tubelet` (num_frames, tubelet, channels);
            `image_size` is the side of clips.

    Raises:
        MedclipError: PACK_INVALID for a tower that takes no lens, or numbers that do not go together.
    """
    values = dict(vision_cfg[KEY])
    try:
        patch_px, bands = values.pop("patch_px", 16), values.pop("fourier_bands", 0)
        shape = LensShape.of(values)
        trunk: Any = getattr(visual, "trunk", visual)
        check_trunk(trunk)
        if shape.width != trunk.embed_dim:
            raise ValueError(f"its latents are {shape.width} wide, and the tower behind it {trunk.embed_dim}")
        if SIGNAL in vision_cfg:
            of_signal = vision_cfg[SIGNAL]
            size, patch, channels = (12, of_signal["samples"]), (12, of_signal["patch"]), 1
        else:
            tubelet, side = vision_cfg[TUBELET], vision_cfg["image_size"]
            size = (tubelet["num_frames"], side, side)
            patch, channels = (tubelet["tubelet"], patch_px, patch_px), tubelet["channels"]
        if any(type(n) is not int or n < 1 for n in (*size, *patch)) or bands not in range(65):
            raise ValueError(f"sizes {size}, patches {patch} and {bands!r} bands are no whole numbers")
        if any(side % step for side, step in zip(size, patch, strict=True)):
            raise ValueError(f"{' x '.join(map(str, size))} cannot be cut into tokens of {' x '.join(map(str, patch))}")
    except MedclipError as e:
        raise MedclipError(Reason.PACK_INVALID, f"no lens goes in front of its tower: {e.message}", hint=e.hint) from e
    except (ValueError, TypeError, LookupError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.{KEY} cannot be built: {e}.",
            hint="Choose a patch that divides the size, or take the pack from its source again.",
        ) from e
    return LensTower(visual, shape, size, patch, channels, bands)

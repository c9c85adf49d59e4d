"""A vision transformer that takes clips: its patch embedding becomes a Conv3d over tubelets.

Tokens come time-major, then by row, then by column, as in VideoMAE (Tong et al., NeurIPS 2022); blocks, norms and
pooling stay timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import square_side
from medclip.models.inputs.volume_input import TUBELET, TUBELET_KEYS


class TubeletEmbed(nn.Module):
    """Clips to tokens: a Conv3d whose kernel is its stride.

    Args:
        num_frames: Slices or frames of a clip, T.
        size_px: Side of a clip in pixels.
        tubelet: Slices or frames of a token.
        patch_px: Side of a token.
        channels: Channels of a clip.
        dim: Width of a token.
    """

    def __init__(self, num_frames: int, size_px: int, tubelet: int, patch_px: int, channels: int, dim: int) -> None:
        super().__init__()
        self.num_frames, self.tubelet = num_frames, tubelet
        self.img_size, self.patch_size = (size_px, size_px), (patch_px, patch_px)
        self.grid_size = (num_frames // tubelet, size_px // patch_px, size_px // patch_px)
        """Tokens along time, rows and columns."""
        self.num_patches = self.grid_size[0] * self.grid_size[1] * self.grid_size[2]
        kernel = (tubelet, patch_px, patch_px)
        self.proj = nn.Conv3d(channels, dim, kernel, stride=kernel)
        self.norm = nn.Identity()
        """As timm's embedding has it; masked autoencoders embed visible patches alone, and go by both."""

    def forward(self, images_BCTHW: Tensor) -> Tensor:
        """Return the tokens of clips, [B, L, D], without positions."""
        return self.proj(images_BCTHW).flatten(2).transpose(1, 2)


def section_of_squares(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `vision_cfg` of the tower of squares that one of clips is made of."""
    return {key: value for key, value in section.items() if key != TUBELET}


def finish_tubelets(visual: Any, model_cfg: Mapping[str, Any]) -> nn.Module:
    """Change a tower of timm that was built into one of clips, as `make_tubelets` does."""
    make_tubelets(getattr(visual, "trunk", visual), model_cfg["vision_cfg"][TUBELET], square_side(model_cfg))
    return visual


def make_tubelets(trunk: Any, values: Mapping[str, Any], size_px: int) -> None:
    """Replace embedding and positions of a plain vision transformer of timm by those of tubelets, of random weights.

    Args:
        trunk: Built for squares of `size_px`.
        values: `vision_cfg.tubelet`: num_frames, tubelet, channels.
        size_px: Side of its clips.

    Raises:
        MedclipError: PACK_INVALID for other towers and for numbers that do not go together.
    """
    frames, tubelet, channels = (values.get(name) for name in TUBELET_KEYS)
    if not all(type(n) is int and n > 0 for n in (frames, tubelet, channels)) or set(values) != set(TUBELET_KEYS):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's vision_cfg.{TUBELET} is {dict(values)}; it takes {', '.join(TUBELET_KEYS)}.",
        )
    assert isinstance(frames, int)
    assert isinstance(tubelet, int)
    assert isinstance(channels, int)
    if frames % tubelet:
        raise MedclipError(
            Reason.PACK_INVALID, f"its clips have {frames} slices or frames, which is no multiple of {tubelet}."
        )
    refuse_other_towers(trunk)
    (patch, _), dim = trunk.patch_embed.patch_size, trunk.embed_dim
    trunk.dynamic_img_size = False  # clips have one size
    trunk.patch_embed = TubeletEmbed(frames, size_px, tubelet, patch, channels, dim)
    prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    trunk.pos_embed = nn.Parameter(torch.empty(1, prefix + trunk.patch_embed.num_patches, dim))
    nn.init.trunc_normal_(trunk.pos_embed, std=0.02)


def refuse_other_towers(trunk: Any) -> None:
    """Refuse a tower that is no plain vision transformer of timm: nothing else is known to take clips.

    Raises:
        MedclipError: PACK_INVALID.
    """
    from timm.models.vision_transformer import VisionTransformer

    plain = type(trunk) is VisionTransformer and trunk.pos_embed is not None
    if not plain or not hasattr(trunk.patch_embed, "proj"):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"{type(trunk).__name__} cannot take clips: only a plain vision transformer with positions of its own can.",
            hint="Choose one of timm's, such as vit_small_patch16_224.",
        )

"""The part of a run that guesses hidden pixels: a masked autoencoder, or a linear layer on top of any tower.

The linear layer reads the last feature map of a tower that sees the image with patches painted over, one location for
each patch, so it works with any tower, convolutional or not. (The form of SimMIM: Xie et al., CVPR 2022.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.towers.masked_autoencoder import MaskedAutoencoder
from medclip.models.towers.signal_tower import SignalViT
from medclip.models.towers.tokens import image_tokens
from medclip.objectives.masked import (
    apply_patch_mask,
    draw_decoded,
    draw_patch_mask,
    draw_tube_mask,
    foreground_of,
    patch_errors,
)
from medclip.training.recipe.objective import Masked
from medclip.training.steps.fast_towers import FrozenPrefix


class MaskedPart(nn.Module):
    """Draws what is hidden and guesses its pixels. Trained and checkpointed, never exported.

    Args:
        clip: The dual encoder, or an image tower alone.
        size_px: Side of its images.
        settings: `objective.masked` of the recipe.
        pixel_std: Standard deviations that images are divided by, per channel.

    Raises:
        MedclipError: RECIPE_INVALID where tower, size and settings do not go together.
    """

    def __init__(self, clip: nn.Module, size_px: int, settings: Masked, pixel_std: Sequence[float]) -> None:
        super().__init__()
        self._settings = settings
        self.autoencoder: MaskedAutoencoder | None = None
        if settings.decoder == "linear":
            channels, side = _feature_map_shape(clip, size_px)
            self.grid: tuple[int, ...] = (side, side)
            self.patch_px = size_px // side
            self.head = nn.Linear(channels, self.patch_px**2 * 3, device=next(clip.parameters()).device)
        else:
            self.autoencoder = MaskedAutoencoder(
                trunk_of(clip), settings.decoder, normalise=settings.normalise, pixel_std=pixel_std
            )
            self.grid, self.patch_px = self.autoencoder.grid, self.autoencoder.patch[-1]
            is_square = len(set(self.autoencoder.patch[-2:])) == 1  # those of ECGs are not, and know their length
            if is_square and size_px % self.patch_px:
                raise _refused(
                    f"{size_px} px are no multiple of the patches of {self.patch_px} px",
                    f"Choose a model.size_px that is a multiple of {self.patch_px}.",
                )
        try:
            hidden_1L, decoded_1L = self.draw(1, torch.Generator())
        except MedclipError as e:
            raise _refused(e.message.rstrip("."), e.hint) from e
        num_hidden = int(hidden_1L.sum())
        self._counts = num_hidden, num_hidden if decoded_1L is None else int(decoded_1L.sum())

    @property
    def num_patches(self) -> int:
        """Patches of an image or tubes of a clip, L."""
        return math.prod(self.grid)

    @property
    def patch(self) -> tuple[int, ...]:
        """Sides of a patch (rows, columns) or a tube (frames, rows, columns)."""
        return (self.patch_px, self.patch_px) if self.autoencoder is None else self.autoencoder.patch

    @property
    def normalise(self) -> bool:
        """Whether patches are guessed after normalising each."""
        return self._settings.normalise

    def foreground(self, images: Tensor) -> Tensor | None:
        """Find what is not empty, where the recipe asks that each image shows its share of that.

        Args:
            images: uint8 as in a batch, on the CPU: [B, S, S, C], or clips [B, T, S, S, C].

        Returns:
            bool [B, L]; None where all patches are alike.
        """
        if not self._settings.foreground:
            return None
        return foreground_of(images.movedim(-1, 1), self.patch)

    def draw(
        self, batch: int, generator: torch.Generator, foreground_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Draw what is hidden, equally much in each image.

        Args:
            batch: Number of images B.
            generator: Source of chance, on the CPU.
            foreground_BL: Foreground of all B images, from `foreground`.

        Returns:
            bool [B, L], True where hidden; bool [B, L], True where the decoder guesses, None where it does so wherever
            something is hidden.

        Raises:
            MedclipError: WRONG_USE where nothing would stay visible.
        """
        ratio, leave_out = self._settings.ratio, self._settings.decode_ratio
        if len(self.grid) == 2:
            if leave_out is not None:
                raise MedclipError(
                    Reason.WRONG_USE,
                    "decode_ratio leaves out tubes of volumes and loops; these are images.",
                    hint="Leave it out.",
                )
            return draw_patch_mask(batch, self.num_patches, ratio, generator, foreground_BL=foreground_BL), None
        times, rows, columns = self.grid
        hidden_BL = draw_tube_mask(batch, (times, rows, columns), ratio, generator, foreground_BN=foreground_BL)
        if leave_out is None:
            return hidden_BL, None
        return hidden_BL, draw_decoded(batch, (times, rows, columns), leave_out, generator)

    def forward(
        self,
        clip: nn.Module,
        images: Tensor,
        mask_BL: Tensor,
        prefix: FrozenPrefix | None = None,
        decoded_BL: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the errors of each image's hidden patches and their number, float32 [B, 2].

        Args:
            clip: Dual encoder, as in the constructor.
            images: Normalised images [B, C, H, W], or clips [B, C, T, H, W], whole.
            mask_BL: bool [B, L] from `draw`, True where hidden; images of which nothing is hidden take no part.
            prefix: Frozen front of the tower.
            decoded_BL: bool [B, L], True where the decoder guesses; None: wherever something is hidden.
        """
        if self.autoencoder is not None:
            return self.autoencoder(trunk_of(clip), images, mask_BL, decoded_BL, self._counts)
        error_BL = patch_errors(self.guess(clip, images, mask_BL, prefix), images, self.patch_px, self.normalise)
        return torch.stack([torch.where(mask_BL, error_BL, 0).sum(1), mask_BL.sum(1).float()], dim=1)

    def count(self, clip: nn.Module, images: Tensor, mask_BL: Tensor, decoded_BL: Tensor | None = None) -> Tensor:
        """Count the patches of each image that `forward` compares, float32 [B]; the tower is not run."""
        if self.autoencoder is not None:
            return self.autoencoder.count(trunk_of(clip), images, mask_BL, decoded_BL)
        return mask_BL.sum(1).float()

    def guess(self, clip: nn.Module, images: Tensor, mask_BL: Tensor, prefix: FrozenPrefix | None = None) -> Tensor:
        """Return what every patch is taken for, float32 [B, L, P] in the order of `patches_of`.

        Arguments are those of `forward`.
        """
        if self.autoencoder is not None:
            return self.autoencoder.reconstruct(trunk_of(clip), images, mask_BL).float()
        hidden_BCHW = apply_patch_mask(images, mask_BL, self.patch_px)
        map_BCHW = prefix.feature_map(clip, hidden_BCHW) if prefix is not None else feature_map(clip, hidden_BCHW)
        return self.head(map_BCHW.flatten(2).transpose(1, 2)).float()


def trunk_of(clip: Any) -> nn.Module:
    """Return timm's tower, or open_clip's own where it is none of timm."""
    return getattr(clip.visual, "trunk", clip.visual)


def feature_map(clip: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return the last feature map [B, C, h, w] of the image tower."""
    seen = image_tokens(clip.visual, images_BCHW, pool=False)  # type: ignore[arg-type]
    assert seen.grid is not None
    return seen.tokens_BLD.transpose(1, 2).unflatten(2, seen.grid)


def _feature_map_shape(clip: nn.Module, size_px: int) -> tuple[int, int]:
    """Return channels and side of the last feature map."""
    trunk = trunk_of(clip)
    if any(isinstance(module, nn.Conv3d | nn.Conv1d) for module in trunk.modules()) or isinstance(trunk, SignalViT):
        raise _refused(
            "the decoder linear is for images, and this tower takes volumes, loops or ECGs",
            "Choose decoder: video, or dec128d2 with a tower of patches for ECGs.",
        )
    was_training = clip.training
    with torch.no_grad():
        zeros_BCHW = torch.zeros(1, 3, size_px, size_px, device=next(clip.parameters()).device)
        shape = feature_map(clip.eval(), zeros_BCHW).shape
    clip.train(was_training)
    if len(shape) != 4 or shape[2] != shape[3] or size_px % shape[2]:
        raise _refused(
            f"{size_px} px give a feature map of {list(shape[2:])}, no grid of whole patches",
            "Choose a model.size_px that is a multiple of the tower's stride.",
        )
    return shape[1], shape[2]


def _refused(why: str, remedy: str) -> MedclipError:
    return MedclipError(Reason.RECIPE_INVALID, f"objective.masked: {why}.", hint=remedy)

"""Masked autoencoders: the encoder reads visible patches only, a small decoder guesses the pixels of hidden ones.

The encoder is the image tower itself, a plain vision transformer of timm; here is what stays behind after pretraining.
Tokens are kept in the order prefix, visible, decoded: attention has no order of its own, so that nothing has to be put
back into its place, and hidden patches are never embedded.

Reference: He et al., Masked autoencoders are scalable vision learners, CVPR 2022; Xiao et al., Delving into masked
autoencoders for multi-label thorax disease classification, WACV 2023; Wang et al., VideoMAE V2, CVPR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss
from torch.utils.checkpoint import checkpoint

from medclip.errors import MedclipError, Reason
from medclip.models.towers.patch_decoder import DecoderShape, PatchDecoder, decoder_shape, sincos_positions
from medclip.models.towers.signal_tower import SignalViT
from medclip.objectives.masked import grid_of, normalise_tubes, patch_errors, patches_of, sides_in_words


class MaskedAutoencoder(nn.Module):
    """The decoder of a masked autoencoder, and the loss; trained and checkpointed, never exported.

    The trunk is handed to every call, as it belongs to the image tower.

    Args:
        trunk: A plain vision transformer of timm, of patches or of tubes.
        decoder: A name of `DECODERS`, `video`, or a shape.
        normalise: Whether patches of mean 0 and variance 1 are guessed instead of plain pixels. In tubes each channel
            is normalised by itself, with a floor of 0.01 under the deviation, and tubes of one value count nothing: the
            background of an ultrasound image or the air around a body would be all noise.
        pixel_std: Standard deviations that the images were divided by, per channel (of three, grey clips take the
            first): floors are in units of [0, 1].

    Raises:
        MedclipError: RECIPE_INVALID for a trunk that is no plain vision transformer, or an unknown decoder.
    """

    pixel_std_C: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        decoder: str | DecoderShape,
        *,
        normalise: bool,
        pixel_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_trunk(trunk)
        weight = _projection(trunk).weight
        self.patch: tuple[int, ...] = tuple(weight.shape[2:])
        self.grid: tuple[int, ...] = tuple(trunk.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
        self.normalise = normalise
        shape, channels = decoder_shape(decoder, weight.shape[0]), weight.shape[1]
        positions_LD = sincos_positions(self.grid, shape.width).float()
        self.decoder = PatchDecoder(shape, weight.shape[0], math.prod(self.patch) * channels, positions_LD)
        std_C = torch.tensor((pixel_std or [1.0] * channels)[:channels], dtype=torch.float32)
        assert len(std_C) == channels
        self.register_buffer("pixel_std_C", std_C, persistent=False)
        _init_layers(self)
        nn.init.normal_(self.decoder.mask_token, std=0.02)
        self.to(weight.device)

    @property
    def num_patches(self) -> int:
        """Patches of an image or tubes of a clip, L."""
        return math.prod(self.grid)

    def encode(self, trunk: nn.Module, images: Tensor, mask_BL: Tensor) -> Tensor:
        """Run the trunk on the visible patches alone.

        Args:
            trunk: Trunk, as in the constructor.
            images: [B, C, H, W] or [B, C, T, H, W], normalised.
            mask_BL: bool [B, L], True = hidden; equally many in each image.

        Returns:
            [B, N, D] after the last norm: prefix tokens (class token), then the visible patches in the order of the
            grid.

        Raises:
            MedclipError: WRONG_USE where shapes do not fit, or images show different numbers of patches.
        """
        self._check(images, mask_BL)
        return self._encode(trunk, images, _indices(~mask_BL))

    def reconstruct(
        self, trunk: nn.Module, images: Tensor, mask_BL: Tensor, decoded_BL: Tensor | None = None
    ) -> Tensor:
        """Guess the pixels of patches.

        Args:
            trunk: Trunk, as in the constructor.
            images: Images, as in `encode`.
            mask_BL: bool [B, L], True = hidden.
            decoded_BL: bool [B, L], True = decoded, equally many in each image; may name visible patches, too. None:
                all that is hidden.

        Returns:
            [B, L, P] in the order of `patches_of`: every patch, the visible ones, too, as their own tokens have them;
            [B, M, P] with decoded_BL: those M patches.
        """
        self._check(images, mask_BL)
        visible_BK = _indices(~mask_BL)
        asked_BM = _indices(mask_BL if decoded_BL is None else decoded_BL)
        latent_BND, every = self._encode(trunk, images, visible_BK), decoded_BL is None
        pixels_BMP = self.decoder(latent_BND, visible_BK, asked_BM, every=every)
        if not every:
            return pixels_BMP
        order_BL1 = torch.cat([visible_BK, asked_BM], dim=1)[:, :, None]
        return torch.empty_like(pixels_BMP).scatter(1, order_BL1.expand_as(pixels_BMP), pixels_BMP)

    def forward(
        self,
        trunk: nn.Module,
        images: Tensor,
        mask_BL: Tensor,
        decoded_BL: Tensor | None = None,
        counts: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the sum of the squared errors of what counts in each image, and how many patches that are.

        The loss of a batch is the first column's sum over all ranks divided by the second's: with running cells and
        with flat tubes images count different numbers of patches.

        Args:
            trunk: Trunk, as in the constructor.
            images: Images, as in `encode`.
            mask_BL: bool [B, L], True = hidden; equally many in each image. An image of which nothing is hidden takes
                no part: both of its numbers are 0.
            decoded_BL: Decoded patches, as in `reconstruct`; only patches that are hidden and decoded count.
            counts: Number of patches that every image hides, and of those that are decoded, where the caller knows it:
                the host then waits for no accelerator to count them. On a CPU, or with None, they are counted and
                checked.

        Returns:
            float32 [B, 2]; the error of a patch is the mean over its values.
        """
        self._check(images, mask_BL)
        stated = None if mask_BL.device.type == "cpu" else counts
        num_hidden, num_asked = stated or (int(mask_BL.sum(1).max()) or self.num_patches - 1, None)
        # A stand-in mask where nothing is hidden: the image goes through every layer, as on the other ranks, and counts
        # nothing.
        stand_in_L = torch.arange(self.num_patches, device=mask_BL.device) >= self.num_patches - num_hidden
        hidden_BL = torch.where(mask_BL.any(1, keepdim=True), mask_BL, stand_in_L)
        visible_BK = _indices(~hidden_BL, None if stated is None else self.num_patches - num_hidden)
        asked_BM = _indices(hidden_BL if decoded_BL is None else decoded_BL, num_asked)
        pixels_BMP = self.decoder(self._encode(trunk, images, visible_BK), visible_BK, asked_BM)
        counted_BM = mask_BL.gather(1, asked_BM)
        if self.normalise and len(self.grid) == 3:
            target_BMP, varied_BM = normalise_tubes(patches_of(images, self.patch, asked_BM), self.pixel_std_C)
            error_BM = mse_loss(pixels_BMP.float(), target_BMP, reduction="none").mean(-1)
            counted_BM = counted_BM & varied_BM
        else:
            error_BM = patch_errors(pixels_BMP, images, self.patch, self.normalise, asked_BM)
        present_BL = _present(trunk, images)
        if present_BL is not None:
            counted_BM = counted_BM & present_BL.gather(1, asked_BM)
        return torch.stack([torch.where(counted_BM, error_BM, 0).sum(1), counted_BM.sum(1).float()], dim=1)

    def count(self, trunk: nn.Module, images: Tensor, mask_BL: Tensor, decoded_BL: Tensor | None = None) -> Tensor:
        """Count the patches of each image that `forward` compares, float32 [B]; arguments as there.

        The tower is not run: so that a batch in parts knows before its first one what its mean is over.
        """
        counted_BL = mask_BL if decoded_BL is None else mask_BL & decoded_BL
        if self.normalise and len(self.grid) == 3:
            counted_BL = counted_BL & normalise_tubes(patches_of(images, self.patch), self.pixel_std_C)[1]
        present_BL = _present(trunk, images)
        if present_BL is not None:
            counted_BL = counted_BL & present_BL
        return counted_BL.sum(1).float()

    def _encode(self, trunk: Any, images: Tensor, visible_BK: Tensor) -> Tensor:
        projection = _projection(trunk)
        # A convolution whose stride is its side is a product: of the visible patches only, and in the order of
        # `patches_of`, so that one way of cutting serves the encoder and the target.
        weight_DP = projection.weight.movedim(1, -1).flatten(1)
        tokens_BKD = linear(patches_of(images, self.patch, visible_BK), weight_DP, projection.bias)
        if hasattr(trunk.patch_embed, "norm"):  # timm's; that of tubes has none
            tokens_BKD = trunk.patch_embed.norm(tokens_BKD)
        positions_1ND, prefix = trunk.pos_embed, trunk.num_prefix_tokens
        placed = 0 if trunk.no_embed_class else prefix
        tokens_BKD = tokens_BKD + positions_1ND[0, placed:][visible_BK]
        if prefix:
            prefix_1PD = torch.cat([t for t in (trunk.cls_token, trunk.reg_token) if t is not None], dim=1)
            if placed:
                prefix_1PD = prefix_1PD + positions_1ND[:, :placed]
            tokens_BKD = torch.cat([prefix_1PD.expand(len(images), -1, -1).to(tokens_BKD), tokens_BKD], dim=1)
        tokens_BND = trunk.norm_pre(trunk.pos_drop(tokens_BKD))
        if isinstance(trunk, SignalViT):
            present_BL = trunk.present(images)
            tokens_BND = trunk.run_blocks(tokens_BND, None if present_BL is None else present_BL.gather(1, visible_BK))
            return trunk.fc_norm(tokens_BND)
        recompute = trunk.grad_checkpointing and torch.is_grad_enabled()
        for block in trunk.blocks:
            tokens_BND = checkpoint(block, tokens_BND, use_reentrant=False) if recompute else block(tokens_BND)
        # Trunks that average their tokens first have the last norm behind the pooling.
        return (trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm)(tokens_BND)

    def _check(self, images: Tensor, mask_BL: Tensor) -> None:
        grid = grid_of(images, self.patch)
        if grid != self.grid or mask_BL.shape != (len(images), self.num_patches):
            raise MedclipError(
                Reason.WRONG_USE,
                f"images of {sides_in_words(grid)} patches and a mask of {list(mask_BL.shape)} do not go with a tower "
                f"of {sides_in_words(self.grid)} patches.",
            )


def prepare_trunk(trunk: nn.Module) -> None:
    """Start a trunk as masked autoencoders do; changed in place.

    Linear layers and the patch embedding (as a product) are Xavier-uniform with biases of 0, norms 1 and 0, the class
    token N(0, 0.02²), and positions fixed sines and cosines that take no gradient.

    Args:
        trunk: A plain vision transformer of timm, of patches or of tubes.

    Raises:
        MedclipError: RECIPE_INVALID for a trunk that is no plain vision transformer.
    """
    check_trunk(trunk)
    vit: Any = trunk
    _init_layers(trunk)
    projection = _projection(trunk)
    nn.init.xavier_uniform_(projection.weight.data.view(len(projection.weight), -1))
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token, std=0.02)
    grid, (_, rows, dim) = tuple(vit.patch_embed.grid_size), vit.pos_embed.shape
    positions_ND = sincos_positions(grid, dim, prefix=rows - math.prod(grid))
    with torch.no_grad():
        vit.pos_embed.copy_(positions_ND[None])
    vit.pos_embed.requires_grad_(False)


def check_trunk(trunk: nn.Module) -> None:
    """Refuse what has no patches that can be left out.

    Raises:
        MedclipError: RECIPE_INVALID for a trunk that is no plain vision transformer with positions of its own.
    """
    from timm.models.vision_transformer import VisionTransformer

    projection: Any = getattr(getattr(trunk, "patch_embed", None), "proj", None)
    plain = isinstance(trunk, VisionTransformer) and isinstance(projection, nn.Conv2d | nn.Conv3d)
    if not plain or trunk.pos_embed is None or projection.stride != projection.kernel_size:
        name = (getattr(trunk, "pretrained_cfg", None) or {}).get("architecture") or type(trunk).__name__
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"{name} is no plain vision transformer: it cannot read visible patches alone.",
            hint="Choose a tower such as vit_small_patch16_224, or decoder: linear, which works with any tower.",
        )


def _present(trunk: nn.Module, images: Tensor) -> Tensor | None:
    """Return which patches are of leads that are there, bool [B, L]; None where all are."""
    return trunk.present(images) if isinstance(trunk, SignalViT) else None


def _projection(trunk: nn.Module) -> Any:
    return trunk.patch_embed.proj  # type: ignore[union-attr]


def _init_layers(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def _indices(chosen_BL: Tensor, count: int | None = None) -> Tensor:
    """Return where a mask is True, int64 [B, K] in ascending order; every row has equally many, `count` if known."""
    if count is not None:
        return (~chosen_BL).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    rows_X, index_X = chosen_BL.nonzero(as_tuple=True)
    if len(rows_X) % len(chosen_BL) or not torch.equal(
        rows_X, torch.arange(len(chosen_BL), device=rows_X.device).repeat_interleave(len(rows_X) // len(chosen_BL))
    ):
        raise MedclipError(
            Reason.WRONG_USE,
            f"equally many patches must be chosen in each image; there are {sorted(set(chosen_BL.sum(1).tolist()))}.",
        )
    return index_X.view(len(chosen_BL), -1)

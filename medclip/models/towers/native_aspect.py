"""Vision transformers that take images of any aspect ratio: patches with their places, padding masked.

timm's ViTs become its NaFlexVit; open_clip's own ViT keeps its weights and names. On a square image of the training
size both give the features of the plain tower. Positions are interpolated for each image's own grid with the filter of
timm's `resample_abs_pos_embed`, bicubic and antialiased, here as a product with the weights of the filter: timm's loop
over the grids of a batch reads each of them back from the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.models.naflexvit import NaFlexEmbeds, NaFlexVit, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.preprocess import NATIVE_TOWER, square_side
from medclip.models.towers.tokens import Patches, Tokens, grids_of, place_patches, refuse_projection

MAX_DIFFERENCE = 1e-4
"""Largest difference to the plain tower on a square image, relative to the largest feature."""


def interpolated_positions(table_HWD: Tensor, coordinate_BN2: Tensor) -> Tensor:
    """Return the position embedding of each patch, [B, N, D], float32.

    Equal to torch's bicubic, antialiased `interpolate` of the table to each image's grid.

    Args:
        table_HWD: Table of learned embeddings of a grid of H x W patches.
        coordinate_BN2: Row and column of each patch; the largest of an image are those of its last patch.
    """
    last_B12 = coordinate_BN2.amax(dim=1, keepdim=True) + 1
    rows_BNH = _filter(coordinate_BN2[..., 0], last_B12[..., 0], table_HWD.shape[0])
    columns_BNW = _filter(coordinate_BN2[..., 1], last_B12[..., 1], table_HWD.shape[1])
    with torch.autocast(table_HWD.device.type, enabled=False):
        weights_BNL = (rows_BNH[..., :, None] * columns_BNW[..., None, :]).flatten(2)
        return weights_BNL @ table_HWD.flatten(0, 1).float()


def _filter(place_BN: Tensor, size_B1: Tensor, num_places: int) -> Tensor:
    """Return what each of `own` places counts for a place of another size: the cubic kernel that torch and PIL use."""
    scale_B11 = num_places / size_B1[..., None].float()
    centre_BN1 = (place_BN[..., None] + 0.5) * scale_B11
    t = ((torch.arange(num_places, device=place_BN.device) + 0.5) - centre_BN1).abs() / scale_B11.clamp_min(1)
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
    return weights / weights.sum(-1, keepdim=True)


class NativeBlock(ResidualAttentionBlock):
    """open_clip's block with a mask of keys: bool [B, 1, 1, L], True where a token is padding."""

    def attention(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attend to what is no padding."""
        k_x, v_x = q_x if k_x is None else k_x, q_x if v_x is None else v_x
        padding_BL = None if attn_mask is None else attn_mask[:, 0, 0]
        return self.attn(q_x, k_x, v_x, need_weights=False, key_padding_mask=padding_BL)[0]


class NativeVisionTransformer(VisionTransformer):
    """open_clip's ViT for images of any aspect ratio; weights and their names are those of the plain one."""

    def forward(self, x: Patches) -> Any:  # type: ignore[override]
        """Return the features of a batch, [B, D]."""
        return self._run(x)[1]

    def encode_tokens(self, batch: Patches, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
        """Return the tokens of a batch; each image has a grid of its own."""
        out_BLD, pooled_BD = self._run(batch)
        if project:
            projection = self.proj
            refuse_projection("" if projection is not None else "it projects nothing")
            out_BLD = (self.ln_post(out_BLD) if self.final_ln_after_pool else out_BLD) @ cast(Any, projection)
        return Tokens(out_BLD[:, 1:], batch["patch_valid"], out_BLD[:, :1], grids_of(batch), pooled_BD)

    def _run(self, x: Patches) -> tuple[Tensor, Tensor]:
        """Return all tokens [B, 1 + N, D] and the features [B, E]."""
        patches_BNP, valid_BN = x["patches"], x["patch_valid"]
        side: int = self.patch_size[0]  # type: ignore[index]
        column_BCHW = patches_BNP.unflatten(2, (side, side, 3)).flatten(1, 2).permute(0, 3, 1, 2)
        tokens_BND = self.conv1(column_BCHW).flatten(2).transpose(1, 2)  # the patches of an image stand in a column
        table_LD = self.positional_embedding
        positions_BND = interpolated_positions(table_LD[1:].unflatten(0, self.grid_size), x["patch_coord"])
        first_1D = (self.class_embedding + table_LD[0]).to(tokens_BND.dtype)[None]
        tokens_BND = tokens_BND + positions_BND.to(tokens_BND.dtype)
        tokens_BLD = torch.cat([first_1D.expand(len(tokens_BND), 1, -1), tokens_BND], dim=1)
        padding_BL = nn.functional.pad(~valid_BN, (1, 0), value=False)
        out_BLD = self.transformer(self.ln_pre(tokens_BLD), attn_mask=padding_BL[:, None, None])
        if not self.final_ln_after_pool:
            out_BLD = self.ln_post(out_BLD)
        pooled_BD = out_BLD[:, 0] if self.pool_type == "tok" else _mean(out_BLD[:, 1:], valid_BN)
        if self.final_ln_after_pool:
            pooled_BD = self.ln_post(pooled_BD)
        return out_BLD, pooled_BD if self.proj is None else pooled_BD @ self.proj


def _mean(tokens_BND: Tensor, valid_BN: Tensor) -> Tensor:
    counted = valid_BN[..., None].to(tokens_BND.dtype)
    return (tokens_BND * counted).sum(1) / counted.sum(1)


class _Embeds(NaFlexEmbeds):
    """timm's, without its loop over the grids of a batch."""

    def _apply_learned_naflex_pos_embed(self, x: Tensor, patch_coord: Tensor) -> None:
        table_HWD: Any = self.pos_embed
        x += interpolated_positions(table_HWD[0], patch_coord).to(x.dtype)


def patch_side(visual: Any) -> int:
    """Return the side of a native tower's patches, in pixels."""
    embed = visual.trunk.embeds if hasattr(visual, "trunk") else visual
    return int(embed.patch_size[0])


def plain_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `vision_cfg` of the tower of squares that a native one is made of."""
    return {key: value for key, value in section.items() if key != NATIVE_TOWER}


def finish_native(visual: Any, model_cfg: Mapping[str, Any]) -> nn.Module:
    """Change a tower that was built into one that takes patches, as `make_native` does."""
    if model_cfg.get("text_cfg") is None:
        raise MedclipError(Reason.PACK_INVALID, "images at their own aspect ratio are for models with words.")
    make_native(visual, model_cfg["vision_cfg"].get("timm_model_name"), square_side(model_cfg))
    return visual


def make_native(visual: Any, name: str | None, size_px: int) -> None:
    """Change an image tower, in place, into one that takes patches; its weights are kept.

    Args:
        visual: Plain image tower of open_clip's.
        name: The timm model of its trunk; None for open_clip's own.
        size_px: Side of the images that it was built for.

    Raises:
        MedclipError: RECIPE_INVALID for any tower but a ViT with a learned grid of positions.
    """
    if name:
        if visual.trunk.global_pool == "" or hasattr(visual.head, "pool"):
            raise _refused("a timm tower with pooling of open_clip's")
        visual.trunk = _naflex(visual.trunk, name, size_px)
        return
    if type(visual) is not VisionTransformer:
        raise _refused(f"of the class {type(visual).__name__}")
    if visual.attn_pool is not None or visual.pool_type == "none" or len(set(visual.patch_size)) != 1:
        raise _refused("a ViT with attention pooling or patches that are not square")
    if not isinstance(visual.patch_dropout, nn.Identity):
        raise _refused("a ViT that drops patches")
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock or not block.attn.batch_first:
            raise _refused("a ViT with blocks of another form")
        block.__class__ = NativeBlock  # another class over the same weights: nothing is built or copied
    visual.__class__ = NativeVisionTransformer


@torch.no_grad()
def check_equal(native: Any, plain: Any, size_px: int) -> None:
    """Compare a native tower with the plain one that it was made of, on a square image.

    Raises:
        MedclipError: RECIPE_INVALID when their features differ: timm's two forms of this model are not the same.
    """
    was_training = native.training, plain.training
    generator = torch.Generator().manual_seed(0)
    side, count = patch_side(native), size_px // patch_side(native)
    patches_BNP = torch.randn(1, count * count, side * side * 3, generator=generator)
    image_BCHW = patches_BNP.view(1, count, count, side, side, 3).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    expected = plain.eval()(image_BCHW)
    features = native.eval()(place_patches(patches_BNP, torch.tensor([[count, count]])))
    native.train(was_training[0])
    plain.train(was_training[1])
    if float((features - expected).abs().max()) > MAX_DIFFERENCE * float(expected.abs().max()):
        raise _refused("a ViT whose features on a square image would change")


def _naflex(trunk: Any, name: str, size_px: int) -> nn.Module:
    """Build timm's NaFlex form of a plain ViT, with its weights."""
    built: dict[str, Any] = {
        "num_classes": trunk.num_classes,
        "global_pool": trunk.global_pool,
        "fc_norm": not isinstance(getattr(trunk, "fc_norm", None), nn.Identity),
    }
    native: Any = trunk
    if type(trunk) is TimmVisionTransformer:
        try:
            native = timm.create_model(name, pretrained=False, img_size=size_px, use_naflex=True, **built)
        except TypeError as e:
            raise _refused(f"{name}, which timm has no native form of") from e
        state = {k: v.detach().clone() for k, v in trunk.state_dict().items()}  # the filter adds to tokens in place
        try:
            native.load_state_dict(checkpoint_filter_fn(state, native), strict=True)
        except RuntimeError as e:
            raise _refused(f"{name}, whose weights have another form in timm's NaFlexVit") from e
    embeds: Any = getattr(native, "embeds", None)
    if not isinstance(native, NaFlexVit) or type(embeds) is not NaFlexEmbeds:
        raise _refused(f"{name}, of the class {type(trunk).__name__}")
    sides: Any = embeds.patch_size
    settings = (
        embeds.pos_embed_type,
        embeds.pos_embed_interp_mode,
        embeds.pos_embed_antialias,
        embeds.pos_embed_ar_preserving or embeds.pos_embed_align_corners,
        native.rope,
        len(set(sides)),
    )
    if settings != ("learned", "bicubic", True, False, None, 1) or not embeds.is_linear:
        raise _refused(f"{name}, whose positions are not a learned grid of square patches")
    embeds.__class__ = _Embeds
    native.use_key_only_attn_mask = True
    return native.to(next(trunk.parameters()).device)


def _refused(what: str) -> MedclipError:
    return MedclipError(
        Reason.RECIPE_INVALID,
        f"model.native_aspect: the image tower is {what}.",
        hint="It takes timm's plain ViTs and open_clip's own, with learned positions.",
    )

"""Image towers of timm: in open_clip's wrapper beside a text tower, or without words, pooled as their authors do.

One of clips has a Conv3d over tubelets for its patch embedding: tokens come time-major, then by row, then by column, as
in VideoMAE (Tong et al., NeurIPS 2022); blocks, norms and pooling stay timm's.

References: Wightman, PyTorch Image Models; pooling of Virchow (class token beside the mean of the patch tokens):
Vorontsov et al., Nature Medicine 2024; pooling of CONCH (one learned query looks at all tokens; its other pooler, of
256 queries, feeds the decoder that writes captions): Lu et al., Nature Medicine 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import AttentionalPooler
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.inputs.preprocess import square_side
from medclip.models.inputs.volume_input import TUBELET, TUBELET_KEYS
from medclip.models.towers.table import ARGUMENTS, OF_TIMM, POOLINGS, image_tower_of
from medclip.models.towers.tokens import Head, Tokens, timm_tokens
from medclip.wording import list_of

HEADS = "query_pool_heads"
"""Key of `vision_cfg`: the pool's attention heads. open_clip has no such key."""
SMALLEST = "test_vit"
"""timm's smallest ViT, which stands where another will be."""
_MLPS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")
"""Layers of timm that a config may name; JSON cannot hold a class."""
_NOT_ARGUMENTS = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "num_classes",
        "global_pool",
        "scriptable",
        "exportable",
        "no_jit",
    }
)
"""What a config states elsewhere, or what would fetch or load something."""


class ImageTower(nn.Module):
    """A tower of timm and how its tokens become one vector.

    Args:
        trunk: The tower, without a classifier.
        pooling: Name of a pooling, one of `POOLINGS`.
    """

    def __init__(self, trunk: nn.Module, pooling: str) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.pooling = pooling
        width = int(getattr(trunk, "head_hidden_size", None) or trunk.num_features)  # type: ignore[arg-type]
        self.dim = 2 * width if pooling == "token+mean" else width

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features of images, [B, D]; they are not normalised."""
        if self.pooling in OF_TIMM:
            return self.trunk(images_BCHW)
        return self.pool(self.trunk.forward_features(images_BCHW))

    def encode_tokens(self, batch: Tensor, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
        """Return the tokens of images; nothing projects them, their vectors are of the same space."""
        return timm_tokens(self.trunk, batch, self.pooling_head, project=project, pool=pool)

    @property
    def pooling_head(self) -> Head:
        """What makes the vector of the tokens."""
        return Head(self.pool, "it projects nothing")

    def pool(self, tokens_BLD: Tensor) -> Tensor:
        """Return one vector [B, D] of the tokens behind the last norm of a transformer."""
        if self.pooling in OF_TIMM:
            return self.trunk.forward_head(tokens_BLD)
        mean_BD = tokens_BLD[:, self.trunk.num_prefix_tokens :].mean(dim=1)
        return mean_BD if self.pooling == "mean" else torch.cat([tokens_BLD[:, 0], mean_BD], dim=-1)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside blocks; they are computed again in the backward pass."""
        self.trunk.set_grad_checkpointing(enable)


class ImageOnly(nn.Module):
    """An image tower, of any kind, in the place of a dual encoder: `visual`, and `encode_image` as open_clip's have."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Return the features of images, [B, D]."""
        features_BD = self.visual(image)
        return nn.functional.normalize(features_BD, dim=-1) if normalize else features_BD


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


def without_words(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a dual encoder's image tower alone: its tokens become one vector by their plain mean.

    Args:
        model_cfg: Config with a tower of timm; with or without a text tower.

    Raises:
        MedclipError: WRONG_USE for a tower that timm does not build.
    """
    vision_cfg = model_cfg["vision_cfg"]
    name = vision_cfg.get("timm_model_name")
    if image_tower_of(vision_cfg).build is not None:
        return {"vision_cfg": {key: value for key, value in vision_cfg.items() if not key.startswith("timm_")}}
    if not name:
        raise MedclipError(
            Reason.WRONG_USE,
            "its image tower is one of open_clip's own, which no image-only pack can hold.",
            hint="Begin with a tower of timm.",
        )
    kept = {key: value for key, value in vision_cfg.items() if not key.startswith("timm_") or key == ARGUMENTS}
    return {"vision_cfg": kept | {"timm_model_name": name, "timm_pool": _mean_of(name, kept.get(ARGUMENTS) or {})}}


def _mean_of(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the pooling that is a plain mean: of patch tokens, or of the last feature map."""
    import timm

    if not timm.is_model(name):  # refused by name when it is built
        return "mean"
    with torch.device("meta"):
        trunk = timm.create_model(name, num_classes=0, **timm_arguments(arguments))
    return "mean" if hasattr(trunk, "num_prefix_tokens") else "avg"


def takes_pooling(name: str, pooling: str, arguments: Mapping[str, Any], *, words: bool) -> bool:
    """Return whether a tower of timm has what `token` or `map` needs; True where building it says what is wrong.

    With words open_clip builds the tower as timm has it and changes its pooling afterwards, which adds no weights.
    """
    import timm

    if pooling not in ("token", "map") or not timm.is_model(name):
        return True
    stated = {"num_classes": 0, **timm_arguments(arguments)}
    try:
        with torch.device("meta"):
            if words:
                timm.create_model(name, **stated).reset_classifier(0, global_pool=pooling)  # type: ignore[operator]
            else:
                timm.create_model(name, global_pool=pooling, **stated)
    except AssertionError:  # what timm says of a pooling that a tower does not have
        return False
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return True
    return True


def build_timm_tower(config: Mapping[str, Any]) -> ImageTower:
    """Build a tower for a model without words, with random weights.

    Args:
        config: `model_cfg` without a `text_cfg`: a `vision_cfg` with `timm_model_name`, `image_size`, `timm_pool` (one
            of `POOLINGS`) and `timm_model_args`.

    Raises:
        MedclipError: PACK_INVALID when timm cannot build it, or its size and pooling do not go together.
    """
    import timm

    values = config["vision_cfg"]
    name, pooling = str(values.get("timm_model_name") or ""), values.get("timm_pool")
    _refuse_hub(name)
    if pooling not in POOLINGS:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"it is not stated how its tokens become one vector (vision_cfg.timm_pool is {pooling!r}).",
            hint=f"Name what its authors use: --pooling {' | '.join(POOLINGS)}.",
        )
    arguments = {"num_classes": 0, **timm_arguments(values.get(ARGUMENTS) or {})}
    try:
        trunk: Any = timm.create_model(
            name, pretrained=False, global_pool=pooling if pooling in OF_TIMM else "", **arguments
        )
    except (TypeError, ValueError, RuntimeError, LookupError, AssertionError, ArithmeticError, AttributeError) as e:
        first_line = (str(e).strip().splitlines() or [""])[0].rstrip(".")
        raise MedclipError(
            Reason.PACK_INVALID,
            f"timm cannot build its image tower {name!r} ({type(e).__name__}: {first_line[:200]}).",
            hint="Check its arguments (model_args)."
            if timm.is_model(name)
            else did_you_mean(name, timm.list_models()) or "timm.list_models() names its towers.",
        ) from e
    _check_pooling(trunk, name, pooling)
    _fit_size(trunk, square_side(config))
    return ImageTower(trunk, pooling)


def _refuse_hub(name: str) -> None:
    if ":" in name or "/" in name:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its image tower is the hub model {name!r}, which would need the network.",
            hint="Only towers that timm builds by their own names can be taken.",
        )


def timm_section(section: Mapping[str, Any], model_cfg: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Return the `vision_cfg` that open_clip builds its wrapper from; what it does not know is done afterwards."""
    _refuse_hub(section["timm_model_name"])
    plain = {key: value for key, value in section.items() if key not in (ARGUMENTS, HEADS)}
    if ARGUMENTS in section:  # open_clip passes no arguments on: the tower is put in afterwards
        plain["timm_model_name"] = SMALLEST
    return plain


def finish_timm(visual: Any, model_cfg: Mapping[str, Any]) -> nn.Module:
    """Replace what open_clip's wrapper cannot build: trunks with arguments, CONCH's pooling, the size of images."""
    import timm

    section = model_cfg["vision_cfg"]
    if section.get(ARGUMENTS) is not None:  # nothing is projected there
        if section.get("timm_proj") != "none":
            raise ValueError(f"vision_cfg.{ARGUMENTS} goes with timm_proj 'none'")
        visual.trunk = timm.create_model(
            section["timm_model_name"],
            pretrained=False,
            num_classes=0,
            global_pool=section.get("timm_pool"),
            **timm_arguments(section[ARGUMENTS]),
        )
    if section.get(HEADS) is not None:
        width: Any = visual.trunk.num_features
        visual.head = QueryPool(width, model_cfg["embed_dim"], section[HEADS])
    size = section.get("image_size", 224)  # open_clip resizes the grid of positions on demand only
    stated = getattr(getattr(visual.trunk, "patch_embed", None), "img_size", None)
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    if stated is not None and tuple(stated) != wanted:
        visual.set_input_size(wanted)
    return visual


def timm_arguments(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tower's arguments with the layers that they name; `norm_eps` becomes a LayerNorm with it.

    Raises:
        MedclipError: PACK_INVALID for a layer that is not known, or an epsilon that is no number.
    """
    import timm.layers

    arguments = {name: value for name, value in stated.items() if name not in _NOT_ARGUMENTS}
    if (eps := arguments.pop("norm_eps", None)) is not None:
        if type(eps) not in (int, float) or not 0 < eps < 1:
            raise MedclipError(Reason.PACK_INVALID, f"its argument norm_eps is {str(eps)[:60]!r}, no number of 0 to 1.")
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=float(eps))
    mlp = arguments.get("mlp_layer")
    if mlp is not None and mlp not in _MLPS:
        raise MedclipError(
            Reason.PACK_INVALID, f"its arguments name the layer {mlp!r}; known are {list_of(list(_MLPS))}."
        )
    return arguments if mlp is None else arguments | {"mlp_layer": getattr(timm.layers, mlp)}


def _check_pooling(trunk: Any, name: str, pooling: str) -> None:
    """Refuse a pooling that the tower has no tokens for."""
    if pooling == "avg" or pooling == "map":
        return
    needs_class = pooling != "mean"
    if not hasattr(trunk, "num_prefix_tokens") or (needs_class and not getattr(trunk, "has_class_token", False)):
        lacks = "class token" if needs_class else "patch tokens"
        raise MedclipError(
            Reason.PACK_INVALID,
            f"{name} has no {lacks}, so that it cannot be pooled by {pooling!r}.",
            hint=f"Name what its authors use: --pooling {' | '.join(POOLINGS)}.",
        )


def _fit_size(trunk: Any, size_px: int) -> None:
    """Resize the position grid of a ViT to the size of the images, which has to be whole patches."""
    embed = getattr(trunk, "patch_embed", None)
    patch, size = getattr(embed, "patch_size", None), getattr(embed, "img_size", None)
    if patch is None:
        return
    if any(size_px % side for side in patch):
        raise MedclipError(
            Reason.PACK_INVALID,
            f"its images are {size_px} pixels wide, which is no multiple of its patches of {patch[0]}.",
            hint="Correct the size as the model's source has it.",
        )
    if size is not None and tuple(size) != (size_px, size_px):
        trunk.set_input_size(img_size=(size_px, size_px))


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

"""Tokens of a tower: what it sees at each place of an image, volume or ECG, or in each word, and its vector of them.

Tokens are in the state that the pooling reads: behind the last norm. A tower that norms only what it has pooled (timm's
mean, open_clip's `final_ln_after_pool`, attention pooling of CoCa) has no norm before it; projected tokens have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason

Patches = dict[str, Tensor]
"""timm's NaFlex batch: `patches` float [B, N, p * p * 3], `patch_coord` int64 [B, N, 2] (row, column), `patch_valid`
bool [B, N]."""


def unpack_batch(packed_BMP: Tensor, mean: Tensor, std: Tensor) -> Patches:
    """Normalise images from `TokenBudget.pack` and put them into the form that the towers take.

    Args:
        packed_BMP: uint8 [B, 1 + N, p * p * 3]; zeros alone are an image of one black patch.
        mean: Mean of each channel, in units of [0, 1], in any shape.
        std: Standard deviation of each channel, in units of [0, 1], in any shape.
    """
    low_B2, high_B2 = packed_BMP[:, 0, 0:4:2].long(), packed_BMP[:, 0, 1:4:2].long()
    pixels_BNPC = packed_BMP[:, 1:].float().div_(255).unflatten(2, (-1, 3)).sub_(mean.flatten()).div_(std.flatten())
    return place_patches(pixels_BNPC.flatten(2), (low_B2 + 256 * high_B2).clamp_min(1))


def place_patches(patches_BNP: Tensor, grid_B2: Tensor) -> Patches:
    """Write normalised patches with their places in the form that the towers take.

    Args:
        patches_BNP: float [B, N, p * p * 3], row by row of each image, anything after its last patch.
        grid_B2: Whole numbers [B, 2], rows and columns of patches of each image.
    """
    num = patches_BNP.shape[1]
    place_N = torch.arange(num, device=grid_B2.device)
    rows_B1, columns_B1 = grid_B2[:, :1], grid_B2[:, 1:]
    valid_BN = place_N < rows_B1 * columns_B1
    coordinate_BN2 = torch.stack([place_N // columns_B1, place_N % columns_B1], dim=-1)
    return {
        "patches": patches_BNP,
        "patch_coord": torch.where(valid_BN[..., None], coordinate_BN2, 0),
        "patch_valid": valid_BN,
    }


Array = TypeVar("Array")
Grid = tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Tokens(Generic[Array]):
    """What a tower sees of B images, volumes, ECGs or texts; arrays, or tensors where a tower is asked itself."""

    tokens_BLD: Array
    """float32 [B, L, D]: patches in the order of their grid, its last axis fastest; or words with the tokens of begin
    and end, in their order."""
    mask_BL: Array
    """bool [B, L]: False for padding, and for patches of a lead that is missing."""
    before_BPD: Array
    """Class and register tokens, which have no place; P is 0 where a tower has none."""
    grids: tuple[Grid, ...] | None
    """Grid of each of the B: rows and columns of an image; slices, rows and columns of a clip; leads (1 where a token
    is of all) and stretches of time of an ECG. None where tokens have no place: words, latents of a lens, and what is
    left of merged tokens. With native aspect ratios the first rows x columns tokens are those of the grid."""
    pooled_BD: Array
    """Vector of each in the shared space, as the tower makes it of its tokens; of unit norm from `Model.encode_tokens`,
    where it is that of `encode_image` or `encode_text`."""

    def __repr__(self) -> str:
        """Return shapes and grid in one line."""
        shapes: list[Any] = [self.tokens_BLD, self.before_BPD]
        tokens, before = (" x ".join(map(str, array.shape)) for array in shapes)
        return f"Tokens({tokens}, before them {before}, grid {self.grid or self.grids})"

    @property
    def grid(self) -> Grid | None:
        """The grid that all of them have; None where there is none, or they differ."""
        return self.grids[0] if self.grids and len(set(self.grids)) == 1 else None

    def map_arrays(self, change: Callable[[Array], Any]) -> Tokens[Any]:
        """Return these with each array changed."""
        arrays = (change(x) for x in (self.tokens_BLD, self.mask_BL, self.before_BPD, self.pooled_BD))
        tokens, mask, before, pooled = arrays
        return Tokens(tokens, mask, before, self.grids, pooled)


def joined(parts: Iterable[Tokens[Any]], concatenate: Callable[[list[Any]], Any]) -> Tokens[Any]:
    """Return the tokens of several batches as one."""
    several = list(parts)
    names = ("tokens_BLD", "mask_BL", "before_BPD", "pooled_BD")
    tokens, mask, before, pooled = (concatenate([getattr(part, name) for part in several]) for name in names)
    grids = None
    if all(part.grids is not None for part in several):
        grids = tuple(grid for part in several for grid in part.grids or ())
    return Tokens(tokens, mask, before, grids, pooled)


def image_tokens(visual: nn.Module, batch: Any, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
    """Return the tokens of a batch; part of the graph.

    Args:
        visual: Image tower of a pack: one with a method of this meaning, `encode_tokens(batch, project=, pool=)`, or
            one of open_clip's own.
        batch: Input of the tower, as `Model.normalise` returns it.
        project: Whether each token is projected into the shared space, as if the tower had pooled it alone.
        pool: Whether the vectors are computed, too; without them `pooled_BD` is empty, [B, 0].

    Raises:
        MedclipError: WRONG_USE for a projection where the tower has no linear one, or pools by attention;
            NOT_SUPPORTED_YET for a tower that has no tokens.
    """
    of_tower = getattr(visual, "encode_tokens", None)
    if of_tower is not None:
        return of_tower(batch, project=project, pool=pool)
    if hasattr(visual, "trunk"):
        return timm_tokens(visual.trunk, batch, wrapped_head(visual), project=project, pool=pool)
    if hasattr(visual, "conv1") and hasattr(visual, "transformer"):
        return _open_clip_vit_tokens(visual, batch, project, pool)
    if hasattr(visual, "attnpool") and hasattr(visual, "stem"):
        return _open_clip_resnet_tokens(visual, batch, project, pool)
    raise MedclipError(
        Reason.NOT_SUPPORTED_YET,
        f"an image tower of the class {type(visual).__name__} has no tokens here.",
        hint="Give it a method encode_tokens(batch, *, project, pool), as medclip.models.towers.tokens says.",
    )


@dataclass(frozen=True)
class Head:
    """What makes the vector of the tokens of a trunk of timm."""

    pool: Callable[[Any], Tensor]
    """Turns what the trunk's `forward_features` returned into vectors [B, E]."""
    why_not: str
    """Why it cannot project a token by itself; "" where it can."""


def wrapped_head(visual: Any) -> Head:
    """Return the head of open_clip's wrapper of timm."""
    trunk, head = visual.trunk, visual.head
    children = dict(head.named_children())
    classifier = getattr(trunk, "get_classifier", lambda: None)()
    if not isinstance(head, nn.Sequential) or "pool" in children:
        why_not = "it pools by attention"
    elif "mlp" in children:
        why_not = "its projection is an MLP, made for what was pooled"
    elif "proj" not in children and not isinstance(classifier, nn.Linear):
        why_not = "it projects nothing"
    else:
        why_not = ""
    return Head(lambda state: head(timm_head(trunk, state)), why_not)


def timm_head(trunk: Any, state: Any) -> Tensor:
    """Pool what a trunk's `forward_features` returned."""
    return trunk.forward_head(**state) if isinstance(state, dict) else trunk.forward_head(state)


def timm_tokens(
    trunk: Any, batch: Any, head: Head, *, project: bool = False, pool: bool = True, state: Any = None
) -> Tokens[Tensor]:
    """Return the tokens of a trunk of timm: of a transformer, or the places of the last feature map.

    Args:
        trunk: Trunk with `forward_features` and `forward_head`.
        batch: Input of the trunk.
        head: Head behind the trunk.
        project: Whether each token is projected.
        pool: Whether the vectors are computed.
        state: Output of `forward_features`, where it was computed before.
    """
    if state is None:
        state = trunk.forward_features(**batch) if isinstance(batch, dict) else trunk.forward_features(batch)
    x, valid_BL = (state["patches"], state["patch_valid"]) if isinstance(state, dict) else (state, None)
    prefix, channels_last = int(getattr(trunk, "num_prefix_tokens", 0)), str(getattr(trunk, "output_fmt", "")) == "NHWC"
    if x.ndim == 4:
        before_BPD = x.new_zeros(len(x), 0, x.shape[3 if channels_last else 1])
        sides = x.shape[1:3] if channels_last else x.shape[2:]
        tokens_BLD, grid = (x.flatten(1, 2) if channels_last else x.flatten(2).transpose(1, 2)), tuple(sides)
    else:
        before_BPD, tokens_BLD = x[:, :prefix], x[:, prefix:]
        grid = grid_of(trunk, tokens_BLD.shape[1])
    grids = None if grid is None else (grid,) * len(x)
    if isinstance(batch, dict):
        grids = grids_of(batch)

    def alone(tokens: Tensor) -> Tensor:
        """Pool each token as if the image had it at each place."""
        one_ND = tokens.flatten(0, 1)
        if x.ndim == 4:
            single = one_ND[:, None, None] if channels_last else one_ND[:, :, None, None]
        else:
            single = one_ND[:, None].expand(-1, prefix + 1, -1)
        return head.pool(single).unflatten(0, tokens.shape[:2])

    if project:
        why_not = "it pools by attention" if getattr(trunk, "attn_pool", None) is not None else head.why_not
        refuse_projection(why_not)
        before_BPD, projected = alone(before_BPD) if prefix else before_BPD, alone(tokens_BLD)
        if not prefix:
            before_BPD = projected[:, :0]
    else:
        projected = tokens_BLD
    return Tokens(projected, _mask(tokens_BLD, valid_BL), before_BPD, grids, _pooled(x, pool, lambda: head.pool(state)))


def grids_of(patches: Patches) -> tuple[Grid, ...]:
    """Return rows and columns of each image of a batch with native aspect ratios."""
    return tuple((rows + 1, columns + 1) for rows, columns in patches["patch_coord"].amax(dim=1).tolist())


def grid_of(trunk: Any, num_tokens: int) -> Grid | None:
    """Return the grid of a transformer's patches; None where its tokens are others, as where some were merged."""
    embed = getattr(trunk, "patch_embed", None) or getattr(trunk, "stem", None)
    grid = getattr(trunk, "grid_size", None) or getattr(embed, "grid_size", None)
    if grid is None:
        side = math.isqrt(num_tokens)
        grid = (side, side)
    return tuple(int(side) for side in grid) if math.prod(grid) == num_tokens else None


def refuse_projection(why_not: str) -> None:
    """Refuse to project tokens.

    Args:
        why_not: Reason, as it goes on after "the tower cannot project its tokens: "; "" refuses nothing.

    Raises:
        MedclipError: WRONG_USE.
    """
    if why_not:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the tower cannot project its tokens into the shared space: {why_not}.",
            hint="Leave project out: the tokens are those of the tower's own space then.",
        )


def _mask(tokens_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    if valid_BL is not None:
        return valid_BL
    return torch.ones(tokens_BLD.shape[:2], dtype=torch.bool, device=tokens_BLD.device)


def _pooled(like: Tensor, pool: bool, compute: Callable[[], Tensor]) -> Tensor:
    return compute() if pool else like.new_zeros(len(like), 0)


def _open_clip_vit_tokens(visual: Any, batch: Tensor, project: bool, pool: bool) -> Tokens[Tensor]:
    """Of open_clip's own vision transformer, with whatever pooling."""
    state_BND = visual.transformer(visual._embeds(batch))
    normed_before = visual.attn_pool is None or visual.attn_pool_contrastive is not None
    x_BND = visual.ln_post(state_BND) if normed_before and not visual.final_ln_after_pool else state_BND

    def pooled() -> Tensor:
        pooled_BD, _ = visual._pool(state_BND)
        return pooled_BD if visual.proj is None else pooled_BD @ visual.proj

    pooled_BD = _pooled(state_BND, pool, pooled)
    if project:
        if visual.attn_pool is not None:
            refuse_projection("it pools by attention")
        refuse_projection("" if visual.proj is not None else "it projects nothing")
        x_BND = (visual.ln_post(x_BND) if visual.final_ln_after_pool else x_BND) @ visual.proj
    grid = grid_of(visual, x_BND.shape[1] - 1)
    tokens_BLD = x_BND[:, 1:]
    grids = None if grid is None else (grid,) * len(x_BND)
    return Tokens(tokens_BLD, _mask(tokens_BLD, None), x_BND[:, :1], grids, pooled_BD)


def _open_clip_resnet_tokens(visual: Any, batch: Tensor, project: bool, pool: bool) -> Tokens[Tensor]:
    """Of open_clip's residual networks, which pool by attention."""
    if project:
        refuse_projection("it pools by attention")
    map_BCHW = visual.stem(batch)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        map_BCHW = stage(map_BCHW)
    tokens_BLD, grid = map_BCHW.flatten(2).transpose(1, 2), tuple(map_BCHW.shape[2:])
    pooled_BD = _pooled(map_BCHW, pool, lambda: visual.attnpool(map_BCHW))
    return Tokens(tokens_BLD, _mask(tokens_BLD, None), tokens_BLD[:, :0], (grid,) * len(map_BCHW), pooled_BD)


def text_tokens(clip: Any, ids_BT: Tensor, pad_id: int, *, project: bool = False) -> Tokens[Tensor]:
    """Return the tokens of texts; part of the graph.

    Args:
        clip: open_clip's model, with its text tower in `text` or not.
        ids_BT: int64 [B, T] from the pack's tokenizer.
        pad_id: Number of the token that fills up.
        project: Whether each token is projected into the shared space.
    """
    text = getattr(clip, "text", clip)
    if hasattr(text, "pooler"):
        return _bert_tokens(text, ids_BT, project)
    names = ("pool_type", "eos_id") if text is not clip else ("text_pool_type", "text_eos_id")
    pool_type, eos_id = (getattr(text, name, None) for name in names)
    class_token = getattr(text, "cls_emb", None)
    if hasattr(text, "_embeds"):
        embedded_BND, attn_mask = text._embeds(ids_BT)
        state_BND = text.transformer(embedded_BND, attn_mask=attn_mask)
    else:
        embedded_BTD = text.token_embedding(ids_BT).to(text.transformer.get_cast_dtype())
        embedded_BTD = embedded_BTD + text.positional_embedding.to(embedded_BTD.dtype)
        state_BND = text.transformer(embedded_BTD, attn_mask=text.attn_mask)
    x_BND = text.ln_final(state_BND)
    if class_token is not None:  # CoCa's, which stands last
        tokens_BTD, before_BPD = x_BND[:, :-1], x_BND[:, -1:]
        pooled_BD = before_BPD[:, 0]
    else:
        from open_clip.transformer import text_global_pool

        tokens_BTD, before_BPD = x_BND, x_BND[:, :0]
        pooled_BD = text_global_pool(x_BND, ids_BT, pool_type=pool_type or "argmax", eos_token_id=eos_id)
    projection = text.text_projection

    def projected(x: Tensor) -> Tensor:
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    seen = Tokens(tokens_BTD, ids_BT != pad_id, before_BPD, None, projected(pooled_BD))
    if not project:
        return seen
    refuse_projection("" if projection is not None else "it projects nothing")
    return replace(seen, tokens_BLD=projected(tokens_BTD), before_BPD=projected(before_BPD))


def _bert_tokens(text: Any, ids_BT: Tensor, project: bool) -> Tokens[Tensor]:
    """Of a text model of transformers; [CLS] is the first of its tokens."""
    mask_BT = ids_BT != text.config.pad_token_id
    states = text.transformer(input_ids=ids_BT, attention_mask=mask_BT.long())
    x_BTD = states.last_hidden_state
    pooled_BD = text.proj(text.pooler(states, mask_BT.long()))
    if project:
        why_not = {nn.Linear: "", nn.Identity: "it projects nothing"}.get(
            type(text.proj), "its projection is an MLP, made for what was pooled"
        )
        refuse_projection(why_not)
        x_BTD = text.proj(x_BTD)
    return Tokens(x_BTD, mask_BT, x_BTD[:, :0], None, pooled_BD)

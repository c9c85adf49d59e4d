"""A text transformer whose queries and keys are turned by their place, in the stead of a table of positions.

A table has a row for each token that it was trained with; angles are there for any number of them, so that a tower of
77 tokens can read reports of 512. The weights are those of open_clip's own tower under the same names, but for the
table, which is left out: what is turned has to be learned anew, by distillation of the tower with its table
(`objective.losses.distilled_captions`). Half-split form: of a head's D numbers the first D/2 are turned with the last.

Reference: Su et al., RoFormer: enhanced transformer with rotary position embedding, 2021. That a tower of CLIP gets it
by distillation is CLIP-IN's; its formulas are a reconstruction. The scaled base is that of "NTK-aware" interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional

from medclip.errors import MedclipError, Reason
from medclip.models.towers.table import ROTARY

BASE = 10_000.0
_POSITIONS = ("positional_embedding", "text.positional_embedding")
_OTHER_FORMS = ("hf_model_name", "embed_cls", "no_causal_mask", "block_type", "scaled_cosine_attn", "qk_norm")
"""Keys of `text_cfg` of towers that are built in another way."""


def turned(states_BHLD: Tensor, base: float = BASE) -> Tensor:
    """Turn the states of each place by its angles: place m and pair i by m * base^(-2i/D).

    The product of two turned states depends on the distance of their places alone. Angles, sines and products are
    float32 at least, whatever the states are.

    Args:
        states_BHLD: Queries or keys; place 0 stays as it is. D is even.
        base: Number whose powers are the slowness of the pairs.

    Returns:
        [B, H, L, D], the same dtype.

    Example:
        >>> turned(torch.tensor([[1.0, 0.0], [1.0, 0.0]])[None, None])[0, 0, 1]  # by one radian
        tensor([0.5403, 0.8415])
    """
    length, dim = states_BHLD.shape[-2:]
    precise = torch.promote_types(states_BHLD.dtype, torch.float32)
    place_L = torch.arange(length, device=states_BHLD.device, dtype=precise)
    pair_H = torch.arange(0, dim, 2, device=states_BHLD.device, dtype=precise)
    angle_LD = torch.outer(place_L, base ** (-pair_H / dim)).repeat(1, 2)
    first, second = states_BHLD.to(precise).chunk(2, dim=-1)
    crossed = torch.cat([-second, first], dim=-1)
    return (states_BHLD.to(precise) * angle_LD.cos() + crossed * angle_LD.sin()).to(states_BHLD.dtype)


def base_of(text_cfg: Mapping[str, Any]) -> float:
    """Return the base that a config's tower turns by.

    With `scaled_from`, the tokens that it was trained with, it grows with the context:
    base * (context / scaled_from)^(D / (D - 2)), so that the slowest pair turns no further than it did in training.
    """
    section, dim = text_cfg[ROTARY], _head_dim(text_cfg)
    base, trained = float(section.get("base", BASE)), section.get("scaled_from")
    ratio = 1.0 if trained is None else max(1.0, text_cfg.get("context_length", 77) / trained)
    return base if dim <= 2 else base * ratio ** (dim / (dim - 2))


def _head_dim(text_cfg: Mapping[str, Any]) -> int:
    return int(text_cfg.get("width", 512)) // int(text_cfg.get("heads", 8))


class RotaryAttention(nn.MultiheadAttention):
    """torch's attention with turned queries and keys; weights and their names are those of the plain one."""

    base: float

    def turn(self, states_BHLD: Tensor) -> Tensor:
        """Turn queries or keys; who writes attention out in another way calls it, too."""
        return turned(states_BHLD, self.base)

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Attend among the tokens of B texts, [B, L, W]; `query`, `key` and `value` are the same."""
        packed = functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in packed.chunk(3, dim=-1))
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        mixed = functional.scaled_dot_product_attention(self.turn(q), self.turn(k), v, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


class RotaryTextTransformer(TextTransformer):
    """open_clip's text tower without a table of positions; the causal mask stays.

    Outside training no column behind the longest text of a batch is computed: nothing that is read depends on it, and a
    prompt of ten tokens would cost 512. In training who calls it has cut them off (`encode_short`).
    """

    def forward(self, text: Tensor) -> Any:
        """Return the features of B texts, [B, D]."""
        if not self.training and self.pool_type == "argmax":
            text = text[:, : int(text.argmax(dim=1).max()) + 1]  # the end has the highest id
        return super().forward(text)

    def _embeds(self, text: Tensor) -> tuple[Tensor, Tensor]:
        mask: Any = self.attn_mask
        length = text.shape[1]
        return self.token_embedding(text).to(self.transformer.get_cast_dtype()), mask[:length, :length]


def table_section(text_cfg: Mapping[str, Any], model_cfg: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Return the `text_cfg` of the tower with a table that a rotary one is made of.

    Raises:
        MedclipError: PACK_INVALID for a tower of another form, or a value of the section that cannot be.
    """
    other = next((name for name in _OTHER_FORMS if text_cfg.get(name)), None)
    if other is not None:
        raise _refused(f"with {other}")
    section = text_cfg[ROTARY]
    keys = ("base", "scaled_from")
    values = [section.get(name, 1) for name in keys] if isinstance(section, Mapping) and {*section} <= {*keys} else []
    if not all(type(value) in (int, float) and value > 0 for value in values) or not values:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the config's text_cfg.{ROTARY} is {section!r}; it takes numbers above 0 under the keys base and "
            "scaled_from, or none.",
        )
    if _head_dim(text_cfg) % 2:
        raise _refused("with heads of an odd width")
    return {key: value for key, value in text_cfg.items() if key != ROTARY}


def finish_rotary(text: Any, model_cfg: Mapping[str, Any]) -> nn.Module:
    """Change a text tower that was built, in place, as its config says: the table goes, queries and keys are turned.

    Raises:
        MedclipError: PACK_INVALID for a tower of another form.
    """
    if type(text) is not TextTransformer:
        raise _refused(f"of the class {type(text).__name__}")
    base = base_of(model_cfg["text_cfg"])
    blocks: Any = text.transformer.resblocks
    for block in blocks:
        if type(block) is not ResidualAttentionBlock or not block.attn.batch_first:
            raise _refused("with blocks of another form")
        attention: Any = block.attn
        attention.__class__ = RotaryAttention  # another class over the same weights: nothing is built or copied
        attention.base = base
    del text.positional_embedding
    text.__class__ = RotaryTextTransformer
    return text


def without_table(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a dual encoder without its text tower's table of positions."""
    return {name: value for name, value in state.items() if name not in _POSITIONS}


def describe_positions(model_cfg: Mapping[str, Any]) -> str:
    """Return what a card says of a rotary text tower; "" for any other."""
    text_cfg = model_cfg.get("text_cfg") or {}
    if text_cfg.get(ROTARY) is None:
        return ""
    return f"rotary, base {base_of(text_cfg):,.0f}, {text_cfg.get('context_length', 77)} tokens"


def _refused(what: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"rotary positions are for open_clip's own causal text transformer, and this is one {what}.",
        hint="Leave model.text.positions out, or begin with a model that has such a text tower.",
    )

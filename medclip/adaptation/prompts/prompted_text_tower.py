"""A text tower run from token embeddings, so that learned vectors can stand where words stood.

The placeholder sentence is tokenised as ever; its ids decide positions, attention mask and pooling, as in CoOp. Only
what the token embedding gives is replaced, by a hook: open_clip's CLIP, its TextTransformer and BERT towers (with their
position and type embeddings on top) all run their own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.training.steps.fast_towers import encode_short

if TYPE_CHECKING:
    from medclip.text.tokenizers.tokenizer import Tokenizer

Position = Literal["end", "middle", "front"]


@dataclass(frozen=True, eq=False)
class Placeholders:
    """Tokenised sentences with room for M vectors: [BOS] m × placeholder, the name's tokens, what ends the sentence."""

    tokens_CL: Tensor
    """int64 [C, L]."""
    num_vectors: int
    """M."""
    name_lens: tuple[int, ...]
    """Tokens of each name, without its full stop."""
    prefix: int
    """Tokens before the vectors: 1 with a begin token, 0 without."""


def placeholders(
    tokenizer: Tokenizer, phrases: Sequence[str], num_vectors: int, names: Sequence[str] | None = None
) -> Placeholders:
    """Tokenise "phrase." and make room for vectors before it.

    Args:
        tokenizer: Tokenizer of the base.
        phrases: Phrases of C classes.
        num_vectors: Number of vectors, M, at least 1.
        names: Names of the classes in errors; the phrases where None.

    Raises:
        MedclipError: WRONG_USE when vectors and words are longer than the context, naming the class.
    """
    called = names or phrases
    plain = tokenizer.encode([f"{p}." for p in phrases])
    prefix = _common(tokenizer.encode([""])[0], tokenizer.encode(["x"])[0])
    rows = []
    for row, phrase, name in zip(plain, phrases, called, strict=True):
        ids = row[: _length(row, tokenizer)]
        if num_vectors < 1 or len(ids) + num_vectors > tokenizer.context_length:
            raise MedclipError(
                Reason.WRONG_USE,
                f"{num_vectors} learned vectors and the words of the class {name!r} do not fit the text tower's "
                f"context of {tokenizer.context_length} tokens.",
                hint="Take fewer vectors (at least one), or a shorter first wording for the class.",
            )
        stand_in = int(tokenizer.encode([phrase])[0][prefix])
        tokens = torch.full((tokenizer.context_length,), tokenizer.pad_id, dtype=torch.int64)
        joined = [*ids[:prefix], *([stand_in] * num_vectors), *ids[prefix:]]
        tokens[: len(joined)] = torch.tensor([int(i) for i in joined])
        rows.append(tokens)
    lens = [_common(a, b) - prefix for a, b in zip(tokenizer.encode(list(phrases)), plain, strict=True)]
    return Placeholders(torch.stack(rows), num_vectors, tuple(lens), prefix)


def place(embedded_CLW: Tensor, vectors: Tensor, words: Placeholders, position: Position = "end") -> Tensor:
    """Put learned vectors into embedded placeholder sentences.

    Args:
        embedded_CLW: Token embeddings of `words.tokens_CL`.
        vectors: [M, W] for all classes, or [C, M, W] for each its own.
        words: The sentences.
        position: Position of the vectors: before the name ("end", as CoOp calls where the name goes), half before and
            half after it, or after.

    Returns:
        [C, L, W]; the sentence's length is unchanged.

    Raises:
        MedclipError: WRONG_USE for another position.
    """
    if position not in get_args(Position):
        raise MedclipError(
            Reason.WRONG_USE,
            f"there is no position {position!r}.",
            hint=f"It is one of {', '.join(get_args(Position))}.",
        )
    start, count = words.prefix, words.num_vectors
    own = vectors if vectors.ndim == 3 else vectors.expand(len(embedded_CLW), -1, -1)
    before = {"end": count, "middle": count // 2, "front": 0}[position]
    rows = []
    for row_LW, vectors_MW, length in zip(embedded_CLW, own, words.name_lens, strict=True):
        name, rest = row_LW[start + count :][:length], row_LW[start + count + length :]
        rows.append(torch.cat([row_LW[:start], vectors_MW[:before], name, vectors_MW[before:], rest]))
    return torch.stack(rows)


def embed(clip: nn.Module, tokens_BL: Tensor) -> Tensor:
    """Return the token embeddings of ids, [B, L, W], without positions and without gradient."""
    with torch.no_grad():
        return token_embedding(clip)(tokens_BL)


def encode_embedded(clip: nn.Module, tokens_BL: Tensor, embedded_BLW: Tensor, pad_id: int) -> Tensor:
    """Encode sentences whose token embeddings are given.

    Args:
        clip: Any dual encoder that medclip loads.
        tokens_BL: Placeholder ids: they decide the mask, the positions and where the sentence ends.
        embedded_BLW: Vectors that stand for their embeddings.
        pad_id: Id of the padding token.

    Returns:
        float [B, D] of unit norm; gradients reach `embedded_BLW`.
    """
    with _instead(token_embedding(clip), embedded_BLW):
        return normalize(encode_short(clip, tokens_BL, pad_id).float(), dim=-1)


def token_embedding(clip: nn.Module) -> nn.Module:
    """Return the module that turns ids into vectors."""
    text: Any = getattr(clip, "text", clip)
    return text.transformer.get_input_embeddings() if hasattr(text, "pooler") else text.token_embedding


@contextmanager
def _instead(embedding: nn.Module, embedded_BLW: Tensor) -> Iterator[None]:
    """Have a module return these vectors for a while, cut to the length it is asked for."""

    def replace_output(_module: nn.Module, _ids: Any, out_BLW: Tensor) -> Tensor:
        return embedded_BLW[:, : out_BLW.shape[1]].to(out_BLW.dtype)

    handle = embedding.register_forward_hook(replace_output)
    try:
        yield
    finally:
        handle.remove()


def _length(row: Any, tokenizer: Tokenizer) -> int:
    """Count tokens up to the end token, or up to the padding where the end has no id of its own."""
    ends = [i for i, token in enumerate(row) if token == tokenizer.eos_id]
    return ends[0] + 1 if ends else int((row != tokenizer.pad_id).sum())


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the leading ids that two rows share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))

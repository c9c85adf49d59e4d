"""Heads that take tokens in the place of vectors: how they are read, answered while a batch is there, and scored.

Tokens of an image are hundreds of times its vector (600 KB of a ViT-B/16 at 224 px). They are therefore not kept: what
is scored is answered while its batch is in memory, and its logits stand behind its vector. Shots, which a method passes
over again and again, are kept up to `MOST_STORED_BYTES`; the others are encoded anew from their pixels each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medclip.adaptation.data.examples import Examples
from medclip.errors import MedclipError, Reason
from medclip.models.encoding.parallel_encoding import ImageEncoder

if TYPE_CHECKING:
    from medclip.adaptation.data.heads import Head
    from medclip.models.inputs.preprocess import Images
    from medclip.models.model import Model
    from medclip.models.towers.tokens import Tokens

MOST_STORED_BYTES = 2 << 30
"""Tokens of shots that are kept: those of 3,500 images of a ViT-B/16 at 224 px."""


def takes_tokens(head: Head) -> bool:
    """Whether a head takes `Tokens` of views, and not their vectors."""
    return getattr(head, "takes", "features") == "tokens"


def takes_levels(head: Head) -> bool:
    """Whether a head takes tokens of several depths of the tower."""
    return bool(getattr(head, "levels", False))


class AnsweringModel:
    """A model whose row of an image is its vector, and behind it what heads answer of its tokens.

    Args:
        model: Loaded model.
        heads: Heads that take tokens, in the order of their logits.
    """

    def __init__(self, model: Model, heads: Sequence[Head]) -> None:
        self.preprocess, self.batch_size = model.preprocess, model.batch_size
        self.dim = model.dim
        self._model, self._heads = model, tuple(heads)

    def encode_image(self, images: Images, *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Return float32 [N, D + C]: vectors of unit norm, then the logits of each head."""
        step = batch_size or self.batch_size
        rows = []
        for start in range(0, len(images), step):
            some, of = images[start : start + step], {}
            for levels in dict.fromkeys(takes_levels(head) for head in self._heads):
                of[levels] = self._model.encode_tokens(some, batch_size=step, levels=levels)
            logits = [head.logits(of[takes_levels(head)], self._model) for head in self._heads]
            pooled_BD = next(iter(of.values())).pooled_BD
            rows.append(np.concatenate([pooled_BD, *logits], axis=1, dtype=np.float32))
        return np.concatenate(rows)


def answering(model: Model, heads: Sequence[Head]) -> ImageEncoder:
    """Return what images are encoded with, so that these heads can answer: the model itself where none takes tokens."""
    chosen = [head for head in heads if takes_tokens(head)]
    return AnsweringModel(model, chosen) if chosen else model


def view_logits(head: Head, model: Model, rows_VX: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of views, float32 [V, C].

    Args:
        head: The head.
        model: The model of the rows.
        rows_VX: Rows of `answering(model, [head])`: vectors, of a head of tokens with its logits behind them.
    """
    return rows_VX[:, model.dim :] if takes_tokens(head) else head.logits(rows_VX, model)


def columns_of(heads: Mapping[str, tuple[Head, int]], dim: int) -> dict[str, slice]:
    """Return where the logits of each head of tokens stand in a row of `answering`.

    Args:
        heads: Heads by task, with their number of classes, in the order that `answering` was given.
        dim: Width of a vector.
    """
    columns, start = {}, dim
    for task, (head, num_classes) in heads.items():
        if takes_tokens(head):
            end = start + getattr(head, "num_logits", num_classes)  # of a map those of all places
            columns[task], start = slice(start, end), end
    return columns


def needs_tokens(task: str) -> MedclipError:
    """Return the refusal of a task that a head of tokens answers, where there are vectors only."""
    return MedclipError(
        Reason.WRONG_USE,
        f"the task {task} is answered by a head that takes tokens of images, and here are their vectors alone.",
        hint="Score the images themselves: medclip score FOLDER.",
    )


class ShotTokens(Sequence["Tokens[NDArray[Any]]"]):
    """The tokens of units that a method learns from, one `Tokens` of its V views for each.

    Args:
        base: Loaded model.
        examples: The units, with their pixels.
        most_bytes: Bytes of tokens that are kept; a unit beyond is encoded each time it is asked for.
    """

    def __init__(self, base: Model, examples: Examples, most_bytes: int = MOST_STORED_BYTES) -> None:
        self._base, self._pixels, self._room = base, examples.pixels, most_bytes
        self._stored: dict[int, Tokens[NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def __iter__(self) -> Iterator[Tokens[NDArray[Any]]]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, n: int) -> Tokens[NDArray[Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if n in self._stored:
            return self._stored[n]
        tokens = self._base.encode_tokens(self._pixels[n])
        num_bytes = tokens.tokens_BLD.nbytes + tokens.before_BPD.nbytes
        if num_bytes <= self._room:
            self._room -= num_bytes
            self._stored[n] = tokens
        return tokens

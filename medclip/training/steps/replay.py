"""The model that a run began with, frozen, and the random sentences by which the new one is held to it (VR-LwF)."""

from __future__ import annotations

import copy
import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.recipe.sections.keep import Keep

_SENTENCE_STREAM = 17
_AT_ONCE = 64
"""Sentences that are encoded together."""
_FEWEST_WORDS = 2


class Replay:
    """Encodes images and random sentences as the old model does.

    The old model is a copy: no step of the optimizer reaches it. It is in eval mode, sees the very pixels that the new
    one sees, and is no part of a checkpoint: a run that goes on makes it again from `model.start`, and the checkpoint
    holds the hash by which it must be the same.

    Args:
        keep: The section of the recipe.
        clip: The dual encoder that the run begins with, on its device; it is copied.
        tokenizer: Tokenizer of the dual encoder.
        seed: Seed of the recipe.

    Raises:
        MedclipError: MISSING_FILE or TABLE_INVALID for `keep.words`; RECIPE_INVALID where a sentence does not fit.
    """

    def __init__(
        self,
        keep: Keep,
        clip: nn.Module,
        tokenizer: Tokenizer,
        seed: int,
    ) -> None:
        self.keep, self._tokenizer, self._seed = keep, tokenizer, seed
        self._old: Any = copy.deepcopy(clip).eval().requires_grad_(False)
        self._words = None if keep.words is None else _read_words(keep)
        self.scale = float(self._old.logit_scale.exp())
        """Of the old model, for both: holding similarities does not move the learned scale."""
        self._drawn: tuple[int, Tensor] | None = None

    @torch.no_grad()
    def images(self, images: Any) -> Tensor:
        """Return float32 unit-norm features [B, D] of normalised images by the old model.

        It computes in what the caller's autocast says, as the new towers do.
        """
        return normalize(self._old.encode_image(images).float(), dim=-1)

    @torch.no_grad()
    def sentences(self, step: int) -> Tensor:
        """Return float32 unit-norm features [V, D] of the random sentences of a step by the old model."""
        draw = step // self.keep.resample_every if self.keep.resample_every else 0
        if self._drawn is None or self._drawn[0] != draw:
            device = self._old.logit_scale.device
            tokens_VL = torch.from_numpy(self._tokens(draw)).to(device)
            parts = [self._old.encode_text(part) for part in tokens_VL.split(_AT_ONCE)]
            self._drawn = draw, normalize(torch.cat(parts).float(), dim=-1)
        return self._drawn[1]

    @cached_property
    def digest(self) -> str:
        """Hash of the old model's weights and of its first sentences; 16 hex characters."""
        state = hashlib.sha256(self._tokens(0).tobytes())
        for name, value in sorted(self._old.state_dict().items()):
            state.update(name.encode())
            state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()[:16]

    def _tokens(self, draw: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self._seed, draw, _SENTENCE_STREAM))
        if self._words is None:
            return random_sentences(self._tokenizer, self.keep.sentences, self.keep.length, rng)
        chosen = rng.choice(self._words, size=(self.keep.sentences, self.keep.length))
        return self._tokenizer.encode([" ".join(words) for words in chosen.tolist()])


def random_sentences(tokenizer: Tokenizer, count: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw pseudo-sentences: token ids that are all equally likely, framed as the tokenizer frames a sentence.

    Special ids are never drawn: an end in the middle would cut the sentence short.

    Args:
        tokenizer: Tokenizer of the model.
        count: Number of sentences, V.
        length: Random ids in each.
        rng: Source of all chance.

    Returns:
        int64 [V, context_length].

    Raises:
        MedclipError: RECIPE_INVALID where so many do not fit between begin and end.
    """
    empty_L = tokenizer.encode([""])[0]
    ends = np.flatnonzero(empty_L == tokenizer.eos_id)
    place = int(ends[0]) if len(ends) else int(np.flatnonzero(empty_L == 0)[0])  # CLIPA writes 0 for the end
    front, rest = empty_L[:place], empty_L[place:]
    free = int((empty_L == tokenizer.pad_id).sum())
    if length > free:
        raise MedclipError(
            Reason.RECIPE_INVALID,
            f"train.keep.length is {length}, and the text tower takes {free} tokens beside begin and end.",
            hint="Name a smaller number.",
        )
    known = np.setdiff1d(np.arange(tokenizer.vocab_size), sorted(tokenizer.special_ids))
    drawn_VL = rng.choice(known, size=(count, length))
    on_the_left = place > 0 and empty_L[0] == tokenizer.pad_id != tokenizer.eos_id
    front, rest = (front[length:], rest) if on_the_left else (front, rest[: len(rest) - length])
    return np.concatenate([np.tile(front, (count, 1)), drawn_VL, np.tile(rest, (count, 1))], axis=1).astype(np.int64)


def _read_words(keep: Keep) -> list[str]:
    assert keep.words is not None
    try:
        lines = keep.words.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise MedclipError(
            Reason.MISSING_FILE,
            "this is no readable text file of words.",
            where=keep.words,
            hint="Name one with one word or term a line, or leave train.keep.words out.",
        ) from e
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < _FEWEST_WORDS:
        raise MedclipError(
            Reason.TABLE_INVALID,
            f"it has {len(words)} words, and sentences are made of at least {_FEWEST_WORDS}.",
            where=keep.words,
            hint="Write one word or term a line.",
        )
    return words

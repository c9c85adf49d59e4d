"""Frozen models that a training is held to.

They are the model that a run began with, with the random sentences by which the new one is held to it (VR-LwF); a
Hugging Face sentence encoder from a folder: mean pooling over tokens, unit norm; and the text tower of a model whose
contexts are shorter than those of the one that learns from it.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from medclip.errors import MedclipError, Reason
from medclip.text.free_text import sentences
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.recipe.train import Keep
from medclip.training.steps.fast_towers import encode_short, word_states


class SentenceTeacher:
    """Turns sentences into unit vectors; never trained and never shipped.

    Args:
        folder: config.json, model.safetensors and tokenizer files.
        device: Torch device.
        max_tokens: Number of tokens that longer sentences are cut to.

    Raises:
        MedclipError: READ_ERROR when the folder does not hold such a model; UNSAFE_WEIGHTS when it has only pickled
            weights.
    """

    def __init__(self, folder: Path, device: str = "cpu", max_tokens: int = 64) -> None:
        if not (folder / "model.safetensors").is_file():
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS,
                "there is no model.safetensors here; pickled weights are not loaded.",
                where=folder,
            )
        with _offline():
            transformers: Any = import_module("transformers")  # its types take a type checker a minute
            import_module("transformers.utils.logging").disable_progress_bar()  # 0.1 s of loading needs none

            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._model = transformers.AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
            except (OSError, ValueError) as e:
                raise MedclipError(Reason.READ_ERROR, "this is not a sentence encoder.", where=folder) from e
        self._model.eval().requires_grad_(False).to(device)
        self._device = device
        self._max_tokens = max_tokens
        # A frozen teacher loses nothing that matters in bf16, and is five times faster where the CPU multiplies it.
        self._bf16 = device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return what the encoder reads of B sentences, on the CPU."""
        return dict(
            self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            )
        )

    @torch.no_grad()
    def __call__(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Encode tokens of B sentences, on the encoder's device, into float32 [B, E] of unit norm.

        Nothing is remembered between calls: the same batch gives the same bits before and after a resume.
        """
        with torch.autocast(self._device.split(":")[0], torch.bfloat16, enabled=self._bf16):
            hidden_BLD = self._model(**tokens).last_hidden_state.float()
        mask_BL1 = tokens["attention_mask"].unsqueeze(-1).to(hidden_BLD.dtype)
        mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp_min(1e-9)
        return torch.nn.functional.normalize(mean_BD.float(), dim=-1)


@contextmanager
def _offline() -> Iterator[None]:
    before = {k: os.environ.get(k) for k in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


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
        return _digest(self._old, self._tokens(0).tobytes())

    def _tokens(self, draw: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self._seed, draw, _SENTENCE_STREAM))
        if self._words is None:
            return random_sentences(self._tokenizer, self.keep.sentences, self.keep.length, rng)
        chosen = rng.choice(self._words, size=(self.keep.sentences, self.keep.length))
        return self._tokenizer.encode([" ".join(words) for words in chosen.tolist()])


def _digest(model: nn.Module, more: bytes = b"") -> str:
    state = hashlib.sha256(more)
    for name, value in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


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
    ordinary_ids = np.setdiff1d(np.arange(tokenizer.vocab_size), sorted(tokenizer.special_ids))
    drawn_VL = rng.choice(ordinary_ids, size=(count, length))
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


class TowerTeacher:
    """The text tower of a dual encoder, frozen: features and token states of short texts, windows of long ones.

    Args:
        clip: Dual encoder; its image tower is let go.
        tokenizer: Tokenizer of the dual encoder.
        words: The student's tokenizer: the same words, in a context that may be longer.
        device: Torch device.
    """

    def __init__(self, clip: nn.Module, tokenizer: Tokenizer, words: Tokenizer, device: torch.device) -> None:
        clip.visual = nn.Identity()
        self._clip: Any = clip.eval().requires_grad_(False).to(device)
        self._tokenizer, self._words = tokenizer, words
        self._frame = self._lengths([""])[0]

    @cached_property
    def digest(self) -> str:
        """Hash of its weights; 16 hex characters."""
        return _digest(self._clip)

    @torch.no_grad()
    def states(self, tokens_BL: Tensor, num_tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Read what a student read.

        Args:
            tokens_BL: int64 ids in the student's context.
            num_tokens: Columns that the longest of them needs, or more.

        Returns:
            States of the first l tokens [B, l, W], and features [B, D], float32 of unit norm; bool [B, l], which of
            them are words with begin and end; bool [B], which texts fit the teacher's context. Of others nothing holds.
        """
        context = self._tokenizer.context_length
        fits_B = (tokens_BL[:, context:] == self._words.pad_id).all(dim=1)
        short_BL = tokens_BL[:, :context]
        with word_states(self._clip) as noted:
            pooled_BD = encode_short(self._clip, short_BL, self._words.pad_id, min(context, num_tokens))
        states_BLW = noted[0][:, :num_tokens]
        end_B1 = (short_BL == self._words.eos_id).int().argmax(dim=1, keepdim=True)
        place_L = torch.arange(states_BLW.shape[1], device=tokens_BL.device)
        return states_BLW, normalize(pooled_BD.float(), dim=-1), place_L <= end_B1, fits_B

    def windows(self, texts: Sequence[str], *, only_longer: bool) -> dict[str, Tensor]:
        """Cut texts into windows of as many whole sentences as fit the teacher's context; on the CPU.

        A sentence that does not fit by itself is halved between words until its parts do. What the student's own
        context cuts off is in no window.

        Args:
            texts: B texts; blank ones have no window.
            only_longer: Whether texts that fit as they are have none, either.

        Returns:
            `tokens_WL`, int64 ids; `text_W`, int64, the number of each window's text.
        """
        windows: list[str] = []
        numbers: list[int] = []
        for number, (text, length) in enumerate(zip(texts, self._lengths(texts), strict=True)):
            if not text.strip():
                continue
            fits = length <= self._tokenizer.context_length
            parts = self._parts(text) if not fits else [] if only_longer else [text]
            windows += parts
            numbers += [number] * len(parts)
        tokens_WL = torch.from_numpy(self._tokenizer.encode(windows)) if windows else torch.zeros(0, 1).long()
        return {"tokens_WL": tokens_WL, "text_W": torch.tensor(numbers, dtype=torch.int64)}

    @torch.no_grad()
    def features(self, tokens_WL: Tensor) -> Tensor:
        """Return float32 features [W, D] of windows, of unit norm."""
        parts = [encode_short(self._clip, part, self._tokenizer.pad_id) for part in tokens_WL.split(_AT_ONCE)]
        return normalize(torch.cat(parts).float(), dim=-1)

    def _parts(self, text: str) -> list[str]:
        room, all_room = (x.context_length - self._frame for x in (self._tokenizer, self._words))
        pieces = [piece for sentence in sentences(text, 1) for piece in self._halved(sentence)]
        parts: list[list[str]] = []
        in_part = total = 0
        for piece, length in zip(pieces, self._lengths(pieces), strict=True):
            size = length - self._frame
            total += size
            if parts and total > all_room:
                break
            if not parts or in_part + size > room:
                parts.append([])
                in_part = 0
            parts[-1].append(piece)
            in_part += size
        return [" ".join(part) for part in parts]

    def _halved(self, sentence: str) -> list[str]:
        words = sentence.split()
        if len(words) < 2 or self._lengths([sentence])[0] <= self._tokenizer.context_length:
            return [sentence]
        middle = len(words) // 2
        return [part for half in (words[:middle], words[middle:]) for part in self._halved(" ".join(half))]

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts with begin and end, up to the student's context."""
        if not texts:
            return []
        ids_BL = self._words.encode(list(texts))
        return ((ids_BL == self._words.eos_id).argmax(axis=1) + 1).tolist()

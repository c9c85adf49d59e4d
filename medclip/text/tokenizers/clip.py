"""CLIP's byte-pair tokenizer (49,408 ids, 77 tokens): open_clip's own, in the form of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason
from medclip.text.tokenizers.cleaning import cleaner

MARK = "clip_tokenizer.json"
"""What `save` writes: the vocabulary comes with open_clip, so that the context length and the cleaning are enough."""
DEFAULT_CONTEXT = 77


class ClipTokenizer:
    """Equal to `open_clip.tokenizer.SimpleTokenizer` with the same context length.

    Args:
        context_length: Tokens per sentence, begin and end included. A longer sentence is cut and still ends with the
            end token.
        clean: "lower" (CLIP's), "whitespace" or "canonicalize".
    """

    def __init__(self, context_length: int = DEFAULT_CONTEXT, *, clean: str = "lower") -> None:
        cleaner(clean)  # a name that does not exist is refused here, in a sentence
        self.context_length = context_length
        """Tokens per sentence, begin and end included."""
        self._clean = clean
        self._simple = _simple(context_length, clean)

    @property
    def vocab_size(self) -> int:
        """Number of ids: 49,408."""
        return self._simple.vocab_size

    @property
    def pad_id(self) -> int:
        """0, which is also the id of an exclamation mark inside a word."""
        return 0

    @property
    def eos_id(self) -> int:
        """The highest id; argmax pooling finds it."""
        return self._simple.eot_token_id

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode N sentences to int64 [N, context_length]."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self._simple(texts).numpy().astype(np.int64, copy=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence back, lower-cased, without special tokens."""
        kept: list[int] = []
        for number in (int(i) for i in ids):
            if number == self.eos_id:
                break
            if number != self._simple.sot_token_id:
                kept.append(number)
        return self._simple.decode(kept).strip()

    def save(self, folder: Path) -> None:
        """Write one small file with the settings."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"context_length": self.context_length, "clean": self._clean}, indent=1)
        (folder / MARK).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ClipTokenizer:
        """Read what `save` wrote.

        Raises:
            MedclipError: PACK_INVALID when it is something else.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(values["context_length"]), clean=str(values["clean"]))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise MedclipError(Reason.PACK_INVALID, "these are not the settings of a tokenizer.", where=path) from e


def _simple(context_length: int, clean: str) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length, clean=clean)

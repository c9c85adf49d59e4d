"""How much of a long text a model reads: what does not fit into its context is cut off."""

from __future__ import annotations

from bisect import bisect_left

from medclip.text.tokenizers.tokenizer import Tokenizer


def num_words_read(tokenizer: Tokenizer, text: str) -> int | None:
    """Return how many words of a text fit into the context, None where all of them do.

    A text whose last word alone is cut through counts as one that fits.
    """
    words = text.split()
    if not _is_full(tokenizer, text):
        return None
    num_read = bisect_left(range(len(words)), 1, key=lambda n: int(_is_full(tokenizer, " ".join(words[: n + 1]))))
    return num_read if num_read < len(words) - 1 else None


def _is_full(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text takes the whole context."""
    tokens = tokenizer.encode([text])[0]
    place = -2 if tokenizer.eos_id == tokenizer.pad_id else -1
    return int(tokens[place]) != tokenizer.pad_id

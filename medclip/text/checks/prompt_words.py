"""Prompts before they are asked: words that are likely misspelt or unknown, and prompts that are too long.

A word that a tokenizer cuts into pieces is not unknown by that: byte pairs and word pieces are made for it. Pointed out
is a word that is no piece of its own and close to one of the vocabulary; one that becomes no token at all; and, in a
tokenizer so small that it was trained on the pack's own captions, a word that it has to spell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache

import numpy as np
from numpy.typing import NDArray

from medclip.text.checks.closed_words import NEUTRAL
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.text.vocabulary.load import load_task, spoken_names
from medclip.text.vocabulary.own_words import Prompt, opposite
from medclip.text.vocabulary.prompts import CONTEXTS, expand
from medclip.wording import list_of, number

_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST = 5
"""Letters of a word that a misspelling is looked for in; among shorter ones real words are too close to each other."""
_CLOSE = 0.86
"""Of difflib's ratio: pneumotorax and pneumothorax have 0.96, infusion and effusion 0.75."""
_OWN_IDS = 8192
"""A tokenizer with no more ids was trained on a pack's own captions; CLIP's has 49,408, PubMedBERT's 30,522."""
_SPELT = 4
"""Pieces of a word that such a tokenizer hardly knows."""
_SPELLINGS = (("ae", "e"), ("oe", "e"), ("our", "or"), ("ise", "ize"), ("isation", "ization"))
_ENDING = re.compile(r"(?:ies|es|ed|ing|ally|ly|al|ic|ous|s|d|y|e)$")
_BEGINNING = 8
"""Words of a prompt that a note repeats."""
_WORDS_AT_ONCE, _TEXTS_AT_ONCE = 12, 8192


def prompt_notes(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> tuple[str, ...]:
    """Write what a person should know of their prompts before anything is read: hints, never a refusal.

    Returns:
        Sentences: on each word that is likely misspelt or no token, on all that training hardly had, and on each prompt
        that is cut.
    """
    words = _unknown_words([text for prompt in prompts for text in (*prompt.texts, *prompt.against)])
    hints = [hint for word in words if (hint := _hint(word, tokenizer))]
    if strange := _spelt(words, tokenizer):
        hints.append(
            f"Hardly in the texts that the model was trained on: {list_of([f'“{word}”' for word in strange])} (its "
            "tokenizer has to spell such a word). What it answers to that means little."
        )
    return (*hints, *_cuts(prompts, tokenizer))


def strange_words(prompt: Prompt, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the words of a prompt that the model cannot know: misspelt ones, no tokens, and those that it spells.

    Args:
        prompt: Prompt as asked; what it is compared with is not looked at.
        tokenizer: Tokenizer of the pack.
    """
    words = _unknown_words(prompt.texts)
    spelt = _spelt(words, tokenizer)
    return tuple(word for word in words if word in spelt or _hint(word, tokenizer))


def num_cut(texts: Sequence[str], tokenizer: Tokenizer) -> int:
    """Count the texts of which the model does not read every word."""
    full = (text for text in texts if _length(text, tokenizer) >= tokenizer.context_length - 1)
    return sum(num_read(text, tokenizer) < len(text.split()) for text in full)


def num_read(text: str, tokenizer: Tokenizer) -> int:
    """Count the words of a text that fit whole into the context of a tokenizer."""
    words = text.split()
    begin = _length("", tokenizer)
    room = tokenizer.context_length - begin - 1
    for place, word in enumerate(words):
        room -= _length(word, tokenizer) - begin
        if room < 0:
            return place
    return len(words)


def num_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Count the tokens of N texts, begin and end included, also of those that the context cuts.

    A few words are encoded at once, which hardly a context cuts; words are tokenized alike wherever they stand.
    """
    parts = [
        (row, " ".join(words[at : at + _WORDS_AT_ONCE]))
        for row, text in enumerate(texts)
        for words in [text.split()]
        for at in range(0, len(words), _WORDS_AT_ONCE)
    ]
    begin = _length("", tokenizer)
    nums_N = np.full(len(texts), begin + 1, np.int64)
    for start in range(0, len(parts), _TEXTS_AT_ONCE):
        rows, words = zip(*parts[start : start + _TEXTS_AT_ONCE], strict=True)
        ids_KL = tokenizer.encode(words)
        is_end_KL = ids_KL == tokenizer.eos_id
        # CLIPA's tokenizers blank the end.
        filled_K = np.where(ids_KL != tokenizer.pad_id, np.arange(1, ids_KL.shape[1] + 1), 0).max(axis=1)
        lengths_K = np.where(is_end_KL.any(axis=1), is_end_KL.argmax(axis=1), filled_K)
        for k in np.flatnonzero(lengths_K >= tokenizer.context_length - 1).tolist():  # the context may have cut them
            lengths_K[k] = begin + sum(_pieces(word, tokenizer) for word in words[k].split())
        np.add.at(nums_N, list(rows), lengths_K - begin)
    return nums_N


def _unknown_words(texts: Sequence[str]) -> list[str]:
    """Return the words of some texts that are none of the vocabulary's, each once."""
    words = dict.fromkeys(word for text in dict.fromkeys(texts) for word in _WORD.findall(text))
    return [word for word in words if not _is_known(word.lower())]


def _spelt(words: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Return the words that a tokenizer of the pack's own captions has to spell."""
    if tokenizer.vocab_size > _OWN_IDS:
        return []
    return [word for word in words if not _close(word) and _pieces(word, tokenizer) >= _SPELT]


def _hint(word: str, tokenizer: Tokenizer) -> str:
    pieces = _pieces(word, tokenizer)
    if pieces < 1 or not tokenizer.decode(tokenizer.encode([word])[0].tolist()).strip():
        return f"The model's tokenizer does not know the word “{word}”, which is left out of the question."
    return f"“{word}”: did you mean “{near}”?" if pieces > 1 and (near := _close(word)) else ""


def _close(word: str) -> str:
    """Return the word of the vocabulary that was likely meant; blank where none is close."""
    if len(word) < _SHORTEST:
        return ""
    near = get_close_matches(word.lower(), _vocabulary(), 3, _CLOSE)
    return next((candidate for candidate in near if abs(len(candidate) - len(word)) < 2), "")


def _cuts(prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a sentence for each prompt that is cut; the opposite that was made of one is not worth another."""
    for prompt in prompts:
        opposites = [no for no in prompt.against if no not in map(opposite, prompt.texts)]
        for text in (*prompt.texts, *opposites):
            words = text.split()
            kept = num_read(text, tokenizer)
            if kept < len(words):
                begin = " ".join(words[:_BEGINNING])
                yield (
                    f"The prompt “{begin} …” has {number(len(words))} words; the model reads the first {number(kept)} "
                    "and nothing after them."
                )


def _pieces(word: str, tokenizer: Tokenizer) -> int:
    return _length(word, tokenizer) - _length("", tokenizer)


def _length(text: str, tokenizer: Tokenizer) -> int:
    """Count the tokens of a text that begin it or stand for it, without its end and what fills up."""
    ids = tokenizer.encode([text])[0].tolist()
    if tokenizer.eos_id in ids:
        return ids.index(tokenizer.eos_id)
    while ids and ids[-1] in (0, tokenizer.pad_id):  # CLIPA's tokenizers blank the end
        ids.pop()
    return len(ids)


def _is_known(word: str) -> bool:
    return word in NEUTRAL or _stem(word) in _stems()


@cache
def _vocabulary() -> tuple[str, ...]:
    """Return the words of the vocabulary that a misspelling may stand for: of prompts, terms, stems and contexts."""
    texts: set[str] = set()
    for task in map(load_task, spoken_names()):
        texts.update(text for c in expand(task) for text in (*c.positive, *c.negative))
        texts.update(text for c in task.classes for text in (c.title, *c.nouns, *c.stems))
        texts.update((task.title, *task.none_prompts, *task.image_names))
    for attributes in CONTEXTS.values():
        texts.update(text for values in attributes.values() for phrases in values.values() for text in phrases)
    words = {word for text in texts for word in _WORD.findall(text.lower())}
    return tuple(sorted(word for word in words if len(word) >= _SHORTEST))


@cache
def _stems() -> frozenset[str]:
    return frozenset(map(_stem, _vocabulary()))


def _stem(word: str) -> str:
    for british, american in _SPELLINGS:
        word = word.replace(british, american)
    return _ENDING.sub("", word)

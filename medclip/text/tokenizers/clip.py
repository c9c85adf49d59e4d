"""CLIP's byte-pair tokenizer (49,408 ids, 77 tokens), and the ways of mending text before it is cut into tokens.

The same ids as open_clip's, whose vocabulary it reads; ways of mending have the names that open_clip gives them. It
does without torch, which open_clip's own imports: processes that read batches have no room for it.
"""

from __future__ import annotations

import gzip
import html
import json
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medclip.errors import MedclipError, Reason

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def mend(text: str) -> str:
    """Mend broken Unicode, HTML entities and white space as open_clip's tokenizers do ("whitespace")."""
    # Nothing of printable ASCII is broken but an entity: 15,000 captions take 5 ms, and 0.9 s through ftfy.
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split())
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split())


def mend_lower(text: str) -> str:
    """Mend and lower-case ("lower", what CLIP was trained with)."""
    return mend(text).lower()


def mend_plain(text: str) -> str:
    """Mend, lower-case, and leave out punctuation ("canonicalize", what SigLIP was trained with)."""
    return " ".join(mend(text).replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


def leave(text: str) -> str:
    """Return the text as it is ("none", for tokenizers that mend it themselves)."""
    return text


_BY_NAME = {"none": leave, "whitespace": mend, "lower": mend_lower, "canonicalize": mend_plain}


def cleaner(name: str) -> Callable[[str], str]:
    """Return a way of cleaning by its name in open_clip's `tokenizer_kwargs`.

    Raises:
        MedclipError: PACK_INVALID for a name that is none of these.
    """
    if name not in _BY_NAME:
        raise MedclipError(
            Reason.PACK_INVALID, f"the text cleaning {name!r} is not one of {', '.join(sorted(_BY_NAME))}."
        )
    return _BY_NAME[name]


MARK = "clip_tokenizer.json"
"""What `save` writes: the vocabulary comes with open_clip, so that the context length and the cleaning are enough."""
DEFAULT_CONTEXT = 77
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_NUM_MERGES = 49_152 - 256 - 2
_SPECIAL = ("<start_of_text>", "<end_of_text>")
_WORDS = "|".join(_SPECIAL) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD_END = "</w>"


class ClipTokenizer:
    """Equal to `open_clip.tokenizer.SimpleTokenizer` with the same context length.

    Args:
        context_length: Tokens per sentence, begin and end included. A longer sentence is cut and still ends with the
            end token.
        clean: Name of the cleaning: "lower" (CLIP's), "whitespace" or "canonicalize".
    """

    def __init__(self, context_length: int = DEFAULT_CONTEXT, *, clean: str = "lower") -> None:
        self._mend = cleaner(clean)
        self.context_length = context_length
        """Tokens per sentence, begin and end included."""
        self._clean = clean

    @property
    def vocab_size(self) -> int:
        """Number of ids: 49,408."""
        return len(_ids())

    @property
    def pad_id(self) -> int:
        """0, which is also the id of an exclamation mark inside a word."""
        return 0

    @property
    def eos_id(self) -> int:
        """The highest id; argmax pooling finds it."""
        return _ids()[_SPECIAL[1]]

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of begin and end."""
        return frozenset(_ids()[name] for name in _SPECIAL)

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode N sentences to int64 [N, context_length]."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens_NL = np.zeros((len(texts), self.context_length), np.int64)
        begin, end = (_ids()[name] for name in _SPECIAL)
        for row, text in zip(tokens_NL, texts, strict=True):
            words = _pattern().findall(self._mend(text))
            ids = [begin, *(i for word in words for i in _word_ids(word))][: self.context_length - 1]
            row[: len(ids) + 1] = [*ids, end]
        return tokens_NL

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence back, lower-cased, without special tokens."""
        pieces, byte_of = list(_ids()), {character: byte for byte, character in enumerate(_byte_characters())}
        kept: list[str] = []
        for number in (int(i) for i in ids):
            if number == self.eos_id:
                break
            if pieces[number] != _SPECIAL[0]:
                kept.append(pieces[number])
        text = bytes(byte_of[character] for character in "".join(kept)).decode("utf-8", errors="replace")
        return text.replace(_WORD_END, " ").strip()

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
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            raise MedclipError(Reason.PACK_INVALID, "these are not the settings of a tokenizer.", where=path) from e


@lru_cache(maxsize=1)
def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int]:
    """Return the pairs that are merged, the first ones first, from the file that comes with open_clip."""
    package = find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations is not None
    with gzip.open(Path(package.submodule_search_locations[0]) / _VOCABULARY, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _NUM_MERGES + 1]
    return {(first, second): rank for rank, (first, second) in enumerate(line.split() for line in lines)}


@lru_cache(maxsize=1)
def _ids() -> dict[str, int]:
    """Return the id of each piece: bytes in CLIP's order, bytes that end a word, merged pairs, special ones."""
    characters = sorted(_byte_characters(), key=lambda c: (ord(c) > 255, ord(c)))
    pieces = [*characters, *(c + _WORD_END for c in characters), *("".join(pair) for pair in _ranks()), *_SPECIAL]
    return {piece: i for i, piece in enumerate(pieces)}


@lru_cache(maxsize=1)
def _pattern() -> Any:
    import regex

    return regex.compile(_WORDS, regex.IGNORECASE)


@lru_cache(maxsize=1 << 16)
def _word_ids(word: str) -> tuple[int, ...]:
    """Cut one word into pieces, by the rank of pairs."""
    if word in _SPECIAL:
        return (_ids()[word],)
    characters, ranks = _byte_characters(), _ranks()
    pieces = [characters[byte] for byte in word.encode()]
    pieces[-1] += _WORD_END
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, _NUM_MERGES))
        if best not in ranks:
            break
        merged: list[str] = []
        i = 0
        while i < len(pieces):
            both = i + 1 < len(pieces) and pairs[i] == best
            merged.append(pieces[i] + pieces[i + 1] if both else pieces[i])
            i += 1 + both
        pieces = merged
    return tuple(_ids()[piece] for piece in pieces)

"""Tokenizers: a small byte-pair one of our own, CLIP's, and any that lies in a folder as the hub lays it out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medclip.errors import MedclipError, Reason, printable
from medclip.text.tokenizers.clip import DEFAULT_CONTEXT, MARK, ClipTokenizer, cleaner, mend
from medclip.text.tokenizers.transformers_files import (
    CONCH,
    MERGES,
    PIECES,
    WORDPIECE_CONTEXT,
    WORDPIECE_SPECIAL,
    WORDPIECE_VOCABULARY,
    as_the_hub_reads_it,
    read_transformers,
    tokenizer_files,
    wordpiece_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as Backend

_FEWEST_IDS = 300
"""256 bytes, 4 special tokens and a few merges."""

PAD, UNK, BOS, EOS = "[PAD]", "[UNK]", "[BOS]", "[EOS]"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_ALONE = (WORDPIECE_VOCABULARY, MERGES, PIECES, CONCH)
"""Files that make a tokenizer without tokenizer.json: BERT's, CLIP's, SigLIP's and CONCH's."""
_CLEAN = "medclip_clean"
"""Key of tokenizer_config.json for the cleaning of a text, where it is not open_clip's "whitespace"."""
_SPECIAL = re.compile(r"\[(PAD|UNK|BOS|EOS|CLS|SEP|MASK|unused\d+)\]|<\|?(s|/s|pad|unk|mask|(start|end)_?of_?text)\|?>")
"""Tokens that are special in any tokenizer, marked as such or not."""
_LONGEST = 10_000
"""A `model_max_length` above this stands for "not stated" (the hub writes 1e30)."""


class Tokenizer(Protocol):
    """Turns sentences into token ids. Kinds: `FolderTokenizer` (ours, WordPiece, others) and `ClipTokenizer`."""

    context_length: int
    """Tokens per sentence, begin and end included; longer ones are cut, shorter ones padded with `pad_id`."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def pad_id(self) -> int:
        """Id that fills up short sentences."""
        ...

    @property
    def eos_id(self) -> int:
        """Id of the end of the sentence ([EOS], [SEP], <end_of_text>); it survives the cut of a long one."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no part of a text: padding, begin, end, what is unknown, masked or unused."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode N sentences to int64 [N, context_length]."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence back without special tokens."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer` needs to give the same ids."""
        ...


class FolderTokenizer:
    """A tokenizer that lies in a folder as tokenizer.json with companions: ours, BERT's WordPiece, SigLIP's.

    Equal to `open_clip.tokenizer.HFTokenizer` on the same folder with the same context length, but needs neither torch
    nor transformers.

    Args:
        backend: Tokenizer of the `tokenizers` library.
        context_length: Tokens per sentence.
        files: Name and bytes of the files that `save` writes.
        pad: The token that fills up.
        eos: The token that ends a sentence.
        clean: Name of the cleaning, as in open_clip's `tokenizer_kwargs`.
        strip_sep_token: Whether the end token is replaced by 0, as the CLIPA models do.
        padding_side: Side of the text that is padded, "right" or "left".
    """

    def __init__(
        self,
        backend: Backend,
        context_length: int,
        files: Mapping[str, bytes],
        *,
        pad: str = PAD,
        eos: str = EOS,
        clean: str = "whitespace",
        strip_sep_token: bool = False,
        padding_side: str = "right",
    ) -> None:
        self._backend = backend
        self._files = dict(files)
        self._clean = cleaner(clean)
        self._strip_sep_token = strip_sep_token
        self.context_length = context_length
        """Tokens per sentence, begin and end included; longer ones are cut, shorter ones padded."""
        self._pad_id, self._eos_id = (backend.get_vocab(with_added_tokens=True)[name] for name in (pad, eos))
        backend.enable_truncation(context_length)
        backend.enable_padding(
            direction="left" if padding_side == "left" else "right",
            length=context_length,
            pad_id=self._pad_id,
            pad_token=pad,
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._backend.get_vocab_size()

    @property
    def pad_id(self) -> int:
        """Id of the padding token; 0 in ours and in BERT's."""
        return self._pad_id

    @property
    def eos_id(self) -> int:
        """Id of the end of the sentence; the highest in ours, so that open_clip's argmax pooling finds it."""
        return self._eos_id

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no part of a text: padding, begin, end, what is unknown, masked or unused."""
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        stated = {i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}
        return frozenset(
            stated | {self._pad_id, self._eos_id} | {i for t, i in vocabulary.items() if _SPECIAL.fullmatch(t)}
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode N sentences.

        Args:
            texts: Sentences; in ours case does not matter.

        Returns:
            int64 [N, context_length].
        """
        if isinstance(texts, str):
            texts = [texts]
        if not texts:
            return np.zeros((0, self.context_length), dtype=np.int64)
        encoded = self._backend.encode_batch([self._clean(t) for t in texts])
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        return np.where(ids == self._eos_id, 0, ids) if self._strip_sep_token else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the sentence back without special tokens, lower-cased where the vocabulary is."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and its companions; open_clip and transformers read them too."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (folder / name).write_bytes(content)


def train_tokenizer(
    captions: Iterable[str], folder: Path, *, vocab_size: int = 4096, context_length: int = 64
) -> FolderTokenizer:
    """Train a byte-pair tokenizer and write it; the same captions give the same bytes.

    Byte-level, so that no text is unknown. (Word pieces would do as well, but `tokenizers` numbers them in the order of
    a hash map, which differs from run to run.)

    Args:
        captions: Training sentences; their order does not matter.
        folder: Folder that gets tokenizer.json, tokenizer_config.json and special_tokens_map.json.
        vocab_size: Upper limit of ids, the four special tokens included.
        context_length: Tokens per sentence, stored as `model_max_length`.

    Returns:
        The tokenizer, loaded back from the folder.

    Raises:
        MedclipError: WRONG_USE without captions, or when a size is too small to be of use.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    sentences = sorted(mend(c) for c in captions)
    if not sentences:
        raise MedclipError(Reason.WRONG_USE, "no captions were given to train the tokenizer on.")
    if context_length < 3 or vocab_size < _FEWEST_IDS:
        raise MedclipError(Reason.WRONG_USE, f"a tokenizer needs at least {_FEWEST_IDS} ids and 3 tokens per sentence.")
    backend = Backend(models.BPE(unk_token=UNK))  # pyright: ignore[reportCallIssue]
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # type: ignore[assignment]
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        show_progress=False,
        special_tokens=[PAD, UNK, BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(sentences, trainer)
    backend.add_special_tokens([EOS])  # last, so that its id is the highest
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, backend.token_to_id(BOS)), (EOS, backend.token_to_id(EOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    special = {"pad_token": PAD, "unk_token": UNK, "bos_token": BOS, "eos_token": EOS}
    for name, content in tokenizer_files(backend, context_length, special).items():
        (folder / name).write_bytes(content)
    return _from_folder(folder, None, {}, ours=True)


def load_tokenizer(folder: Path, text_cfg: Mapping[str, Any] | None = None) -> Tokenizer:
    """Load the tokenizer of a model; never asks the network.

    Args:
        folder: Folder with tokenizer.json and its companions, or the vocab.txt of a BERT. Nothing is read from it for
            CLIP's own tokenizer, which comes with open_clip.
        text_cfg: open_clip's `text_cfg`: without an `hf_tokenizer_name` the tokenizer is CLIP's; `context_length` and
            `tokenizer_kwargs` apply. None: what lies in the folder decides, also the context length.

    Raises:
        MedclipError: MISSING_FILE or PACK_INVALID when the folder does not hold such a tokenizer.
    """
    if text_cfg is None:
        marked = (folder / MARK).is_file()
        return ClipTokenizer.read(folder / MARK) if marked else _from_folder(folder, None, {}, ours=True)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    if unknown := sorted(set(options) - {"clean", "strip_sep_token"}) + ["tokenizer_mode"] * bool(
        text_cfg.get("tokenizer_mode")
    ):
        raise MedclipError(
            Reason.PACK_INVALID, f"the tokenizer settings {', '.join(unknown)} are not supported.", where=folder
        )
    context_length = text_cfg.get("context_length")
    if not text_cfg.get("hf_tokenizer_name"):
        return ClipTokenizer(context_length or DEFAULT_CONTEXT, clean=options.get("clean", "lower"))
    # An argmax tower takes the highest id for the end of the sentence: only a tokenizer of ours has it there.
    elsewhere = text_cfg.get("hf_model_name") or text_cfg.get("embed_cls")
    ours = not elsewhere and text_cfg.get("pool_type", "argmax") == "argmax"
    return _from_folder(folder, context_length, options, ours=ours)


def _from_folder(
    folder: Path, context_length: int | None, options: Mapping[str, Any], *, ours: bool
) -> FolderTokenizer:
    """Load what lies in a folder; with `ours` only a tokenizer of ours and word pieces."""
    from tokenizers import Tokenizer as Backend

    has_json = (folder / FILES[0]).is_file()
    if not has_json and not any((folder / name).is_file() for name in _ALONE):
        raise MedclipError(
            Reason.MISSING_FILE,
            f"there is no tokenizer here: no {FILES[0]}, {', '.join(_ALONE[:-1])} or {_ALONE[-1]}.",
            where=folder,
            hint="Take it from the model's source, or name the folder that holds it: --text-folder.",
        )
    try:
        stored = {n: (folder / n).read_bytes() for n in FILES if (folder / n).is_file()}
        config: dict[str, Any] = json.loads(stored.get(FILES[1], b"{}"))
        special = _special(config, json.loads(stored.get(FILES[2], b"{}")))
        stated = int(config.get("model_max_length", _LONGEST + 1))
        length = context_length or (stated if stated <= _LONGEST else 0)
        if (other := read_transformers(folder, config, special)) is not None:
            return _of_transformers(*other, length, options)
        if has_json:
            backend = Backend.from_str(stored[FILES[0]].decode())
            pieces = json.loads(stored[FILES[0]])["model"]["type"] == "WordPiece"
        else:
            backend, pieces = wordpiece_of(folder / WORDPIECE_VOCABULARY), True
    except Exception as e:  # tokenizers raises bare Exception
        files = ", ".join(n for n in (*FILES, *_ALONE) if (folder / n).is_file())
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the tokenizer files cannot be read ({files}): {printable(str(e) or type(e).__name__)[:120]}.",
            where=folder,
            hint="Take them from their source again.",
        ) from e
    if pieces:
        special = WORDPIECE_SPECIAL | special
    elif ours and _CLEAN not in config:
        special = {"pad_token": PAD, "eos_token": EOS}
        if backend.token_to_id(PAD) != 0 or backend.token_to_id(EOS) != backend.get_vocab_size() - 1:
            raise MedclipError(
                Reason.PACK_INVALID,
                "the tokenizer is that of another model: the text tower looks for the end of a text at the highest id, "
                f"and this tokenizer does not have {PAD} as its first and {EOS} as its last of "
                f"{backend.get_vocab_size():,} ids.",
                where=folder,
            )
    length = length or (WORDPIECE_CONTEXT if pieces else 0)
    pad, eos = special.get("pad_token", ""), special.get("sep_token" if pieces else "eos_token", "")
    if not length or backend.token_to_id(pad) is None or backend.token_to_id(eos) is None:
        raise MedclipError(
            Reason.PACK_INVALID, "the tokenizer does not say how it pads, ends and how long it is.", where=folder
        )
    if pieces:
        backend = as_the_hub_reads_it(backend, config)
        backend.no_truncation()
        backend.no_padding()
        stored = tokenizer_files(
            backend, length, {k: v for k, v in special.items() if backend.token_to_id(v) is not None}
        )
    elif config.get("model_max_length") != length:  # what is saved says what is used
        stored[FILES[1]] = json.dumps({**config, "model_max_length": length}, indent=2).encode() + b"\n"
    settings = {"clean": config.get(_CLEAN, "whitespace"), "padding_side": config.get("padding_side", "right")}
    return FolderTokenizer(backend, length, stored, pad=pad, eos=eos, **settings | dict(options))


def _of_transformers(
    backend: Backend, special: Mapping[str, str], side: str, length: int, options: Mapping[str, Any]
) -> FolderTokenizer:
    """Make a tokenizer of a CLIP or SigLIP, whose texts nobody mends before."""
    if not length:
        raise ValueError("no length")
    files = tokenizer_files(backend, length, special, padding_side=side, **{_CLEAN: "none"})
    settings = {"clean": "none", "padding_side": side, **options}
    return FolderTokenizer(backend, length, files, pad=special["pad_token"], eos=special["eos_token"], **settings)


def _special(config: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, str]:
    """Collect the names of special tokens; a file may give each as text or as a record with "content"."""
    tokens: dict[str, str] = {}
    for key in ("pad_token", "unk_token", "bos_token", "eos_token", "cls_token", "sep_token", "mask_token"):
        value = named.get(key) or config.get(key)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            tokens[key] = value
    return tokens

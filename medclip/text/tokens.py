"""A small byte-pair tokenizer of our own, in the file layout that transformers and open_clip load."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medclip.errors import MedclipError, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as Backend

_FEWEST_IDS = 300
"""256 bytes, 4 special tokens and a few merges."""

PAD, UNK, BOS, EOS = "[PAD]", "[UNK]", "[BOS]", "[EOS]"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Tokenizer:
    """Turns sentences into token ids.

    Equal to `open_clip.tokenizer.HFTokenizer` on the same folder with the same context length, but needs neither torch
    nor transformers.
    """

    def __init__(self, backend: Backend, context_length: int) -> None:
        self._backend = backend
        self.context_length = context_length
        """Tokens per sentence, [BOS] and [EOS] included; longer ones are cut, shorter ones padded with [PAD] = 0."""
        backend.enable_truncation(context_length)
        backend.enable_padding(length=context_length, pad_id=0, pad_token=PAD)

    @property
    def vocab_size(self) -> int:
        """Number of ids; [EOS] is the last."""
        return self._backend.get_vocab_size()

    @property
    def eos_id(self) -> int:
        """Id of [EOS]: the highest, so that open_clip's argmax pooling finds the end of the sentence."""
        return self.vocab_size - 1

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Encode N sentences.

        Args:
            texts: Sentences; case does not matter.

        Returns:
            int64 [N, context_length].
        """
        if isinstance(texts, str):
            texts = [texts]
        if not texts:
            return np.zeros((0, self.context_length), dtype=np.int64)
        encoded = self._backend.encode_batch([_clean(t) for t in texts])
        return np.array([e.ids for e in encoded], dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Give the sentence back, lower-cased, without special tokens."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True).strip()


def train_tokenizer(
    captions: Iterable[str], folder: Path, *, vocab_size: int = 4096, context_length: int = 64
) -> Tokenizer:
    """Train a byte-pair tokenizer and write it; the same captions give the same bytes.

    Byte-level, so that no text is unknown. (Word pieces would do as well, but `tokenizers` numbers them in the order of
    a hash map, which differs from run to run.)

    Args:
        captions: Training sentences; their order does not matter.
        folder: Gets tokenizer.json, tokenizer_config.json and special_tokens_map.json.
        vocab_size: Upper limit of ids, the four special tokens included.
        context_length: Tokens per sentence, stored as `model_max_length`.

    Returns:
        The tokenizer, loaded back from the folder.

    Raises:
        MedclipError: WRONG_USE without captions, or when a size is too small to be of use.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    sentences = sorted(_clean(c) for c in captions)
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
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True) + "\n", encoding="utf-8")
    special = {"pad_token": PAD, "unk_token": UNK, "bos_token": BOS, "eos_token": EOS}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a tokenizer folder with the `tokenizers` library alone.

    Raises:
        MedclipError: MISSING_FILE or PACK_INVALID when the folder does not hold a tokenizer of this kind.
    """
    from tokenizers import Tokenizer as Backend

    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise MedclipError(Reason.MISSING_FILE, f"there is no {name} here.", where=folder)
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        backend = Backend.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        context_length = int(config["model_max_length"])
    except Exception as e:  # tokenizers raises bare Exception
        raise MedclipError(
            Reason.PACK_INVALID,
            "the tokenizer files cannot be read.",
            where=folder,
            hint="Take them from the pack again.",
        ) from e
    if backend.token_to_id(PAD) != 0 or backend.token_to_id(EOS) != backend.get_vocab_size() - 1:
        raise MedclipError(
            Reason.PACK_INVALID,
            "this tokenizer does not have [PAD] as its first and [EOS] as its last id.",
            where=folder,
        )
    return Tokenizer(backend, context_length)


def _clean(text: str) -> str:
    """Mend broken Unicode, HTML entities and white space as open_clip's tokenizers do."""
    import ftfy

    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""Tokenizers as transformers lays them out: CLIP's byte pairs, SigLIP's sentence pieces, BERT's word pieces.

transformers builds CLIP's tokenizer anew from the vocabulary and the merges, whatever else tokenizer.json says, and
reads SigLIP's spiece.model with the sentencepiece library. Here both become a tokenizer of the `tokenizers` library
once, at import; a pack holds the result. Of BERT's, tokenizer.json is read, or vocab.txt alone as PubMedBERT ships it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MERGES = "merges.txt"
PIECES = "spiece.model"
CONCH = "conch_byte_level_bpe_uncased.json"
"""CONCH's tokenizer, as its authors' package calls it; it does not lie beside the weights on the hub."""
_VOCABULARY = "vocab.json"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
"""ASCII's, which SigLIP's tokenizer leaves out."""
_SPACE = "\u2581"
"""What sentencepiece writes for a blank."""


def read_transformers(
    folder: Path, config: Mapping[str, Any], stated: Mapping[str, str]
) -> tuple[Backend, dict[str, str], str] | None:
    """Read the tokenizer of a CLIP, a SigLIP or CONCH.

    Args:
        folder: Folder with tokenizer.json, vocab.json with merges.txt, or spiece.model.
        config: tokenizer_config.json; empty where there is none.
        stated: The special tokens that the folder names.

    Returns:
        The tokenizer, its special tokens, and the side that is padded; None for a folder with another kind.

    Raises:
        OSError, ValueError, LookupError, TypeError: For files that are damaged.
    """
    kind = str(config.get("tokenizer_class") or "")
    has_json = (folder / "tokenizer.json").is_file()
    side = "right"
    if (folder / CONCH).is_file() and not has_json:
        from tokenizers import Tokenizer

        special = {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>", "pad_token": "<pad>"}
        backend = Tokenizer.from_file(str(folder / CONCH))
    elif (folder / PIECES).is_file() and (kind.startswith("SiglipTokenizer") or not has_json):
        special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>", **stated}
        backend = _from_pieces((folder / PIECES).read_bytes(), special["eos_token"])
    elif kind.startswith("CLIPTokenizer") or (not has_json and (folder / MERGES).is_file()):
        special = {"bos_token": _BEGIN, "eos_token": _END, "unk_token": _END, "pad_token": _END, **stated}
        backend = _from_pairs(folder, special)
    elif kind.startswith(("Siglip2Tokenizer", "GemmaTokenizer")) and has_json:
        special = {"eos_token": "<eos>", "pad_token": "<pad>", **stated}
        backend = _lower_cased(folder, config, special["eos_token"])
        side = "left" if kind.startswith("Siglip2") else "right"
    else:
        return None
    return backend, special, str(config.get("padding_side") or side)


def _from_pairs(folder: Path, special: Mapping[str, str]) -> Backend:
    """Build CLIP's tokenizer of byte pairs, as the class CLIPTokenizer of transformers does."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if (folder / "tokenizer.json").is_file():
        model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        vocabulary = model["vocab"]
        merges: Any = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    else:
        vocabulary = json.loads((folder / _VOCABULARY).read_text(encoding="utf-8"))
        lines = (folder / MERGES).read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    pairs: Any = models.BPE(
        vocab=vocabulary,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
        unk_token=special["unk_token"],
    )
    backend = Tokenizer(pairs)
    backend.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])  # type: ignore[assignment]
    begin, end = special["bos_token"], special["eos_token"]
    backend.post_processor = processors.RobertaProcessing(  # type: ignore[assignment]
        (end, vocabulary[end]), (begin, vocabulary[begin]), trim_offsets=False, add_prefix_space=False
    )
    backend.add_special_tokens(list(dict.fromkeys(special.values())))
    return backend


def _lower_cased(folder: Path, config: Mapping[str, Any], eos: str) -> Backend:
    """Load Gemma's tokenizer as SigLIP 2 was trained with it: every text in lower case."""
    from tokenizers import Tokenizer, normalizers, processors

    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    backend = Tokenizer.from_str(text)
    normalizer: Any = backend.normalizer
    if "Lowercase" not in json.dumps(json.loads(text)["normalizer"]):
        steps = [normalizers.Lowercase(), normalizer] if normalizer is not None else [normalizers.Lowercase()]
        backend.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    if config.get("add_eos_token") and backend.post_processor is None:
        backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"$A {eos}", special_tokens=[(eos, backend.get_vocab(with_added_tokens=True)[eos])]
        )
    return backend


def _from_pieces(content: bytes, eos: str) -> Backend:
    """Build the tokenizer of a sentencepiece model of the unigram kind, with SigLIP's lower case and no punctuation."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces: list[tuple[str, float]] = []
    unknown, normaliser = 0, {}
    for field, value in _fields(content):
        if field == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, bytes(4)))
            if piece.get(3, 1) == 2:
                unknown = len(pieces)
            pieces.append((piece[1].decode(), score))
        elif field == 2 and dict(_fields(value)).get(3, 1) != 1:
            raise ValueError("not a unigram model")
        elif field == 3:
            normaliser = dict(_fields(value))
    backend = Tokenizer(models.Unigram(pieces, unknown, byte_fallback=False))  # type: ignore[arg-type]
    steps: list[Any] = [normalizers.Lowercase(), normalizers.Replace(Regex(_PUNCTUATION), "")]
    steps += [normalizers.Precompiled(normaliser[2])] if normaliser.get(2) else []
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")  # type: ignore[assignment]
    backend.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")  # type: ignore[assignment]
    vocabulary = backend.get_vocab()
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"$A {eos}", special_tokens=[(eos, vocabulary[eos])]
    )
    backend.add_special_tokens([eos, pieces[unknown][0]])
    return backend


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of the fields of a protocol buffer: integers, 4 or 8 bytes, or bytes.

    A spiece.model is one; its few fields need no library (https://protobuf.dev/programming-guides/encoding).

    Raises:
        ValueError: When it is none.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = content[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(content):
        try:
            tag = varint()
            kind = tag & 7
            if kind == 0:
                yield tag >> 3, varint()
                continue
            size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        except LookupError as e:
            raise ValueError("no protocol buffer") from e
        if place + size > len(content):
            raise ValueError("cut off")
        yield tag >> 3, content[place : place + size]
        place += size


WORDPIECE_VOCABULARY = "vocab.txt"
WORDPIECE_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORDPIECE_CONTEXT = 256
"""Tokens per sentence in BiomedCLIP and UniMed-CLIP, where the folder does not say."""


def wordpiece_of(path: Path) -> Backend:
    """Make the tokenizer of a vocab.txt: one piece a line, the line's number is the id.

    Args:
        path: The file. It must hold the special tokens.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors

    model: Any = models.WordPiece.from_file(str(path), unk_token=WORDPIECE_SPECIAL["unk_token"])
    backend = Backend(model)
    backend.add_special_tokens(
        [token for token in WORDPIECE_SPECIAL.values() if backend.token_to_id(token) is not None]
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    backend.decoder = decoders.WordPiece()  # type: ignore[assignment]
    first, last = WORDPIECE_SPECIAL["cls_token"], WORDPIECE_SPECIAL["sep_token"]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{first} $A {last}",
        special_tokens=[(name, backend.get_vocab()[name]) for name in (first, last)],
    )
    return backend


def as_the_hub_reads_it(backend: Backend, config: Mapping[str, Any]) -> Backend:
    """Set the normalisation that transformers gives to a BERT tokenizer.

    Its class makes it anew from tokenizer_config.json, whatever tokenizer.json says: lower case unless `do_lower_case`
    is false, accents as `strip_accents` says. A folder of the class PreTrainedTokenizerFast is left as it is.

    Args:
        backend: Tokenizer, changed in place.
        config: tokenizer_config.json; empty where there is none.
    """
    from tokenizers import normalizers

    if str(config.get("tokenizer_class", "BertTokenizer")).startswith("Bert"):
        backend.normalizer = normalizers.BertNormalizer(  # type: ignore[assignment]
            clean_text=True,
            handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
            strip_accents=config.get("strip_accents"),
            lowercase=bool(config.get("do_lower_case", True)),
        )
    return backend


def tokenizer_files(backend: Backend, context_length: int, special: Mapping[str, str], **more: str) -> dict[str, bytes]:
    """Return the files that make transformers, open_clip and medclip read exactly this tokenizer.

    Args:
        backend: Tokenizer without truncation and padding.
        context_length: Tokens per sentence, written as `model_max_length`.
        special: Names of the special tokens, see `WORDPIECE_SPECIAL`.
        **more: Further entries of tokenizer_config.json.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **special,
        **more,
    }
    return {
        "tokenizer.json": backend.to_str(pretty=True).encode() + b"\n",
        "tokenizer_config.json": json.dumps(config, indent=2).encode() + b"\n",
        "special_tokens_map.json": json.dumps(dict(special), indent=2).encode() + b"\n",
    }

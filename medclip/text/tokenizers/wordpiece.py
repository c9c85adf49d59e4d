"""BERT's WordPiece tokenizer from a local folder: tokenizer.json, or vocab.txt alone as PubMedBERT ships it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

VOCABULARY = "vocab.txt"
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
DEFAULT_CONTEXT = 256
"""Tokens per sentence in BiomedCLIP and UniMed-CLIP, where the folder does not say."""


def from_vocabulary(path: Path) -> Backend:
    """Make the tokenizer of a vocab.txt: one piece a line, the line's number is the id.

    Args:
        path: The file. It must hold the special tokens.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors

    model: Any = models.WordPiece.from_file(str(path), unk_token=SPECIAL["unk_token"])
    backend = Backend(model)
    backend.add_special_tokens([token for token in SPECIAL.values() if backend.token_to_id(token) is not None])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    backend.decoder = decoders.WordPiece()  # type: ignore[assignment]
    first, last = SPECIAL["cls_token"], SPECIAL["sep_token"]
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


def files_of(backend: Backend, context_length: int, special: Mapping[str, str], **more: str) -> dict[str, bytes]:
    """Return the files that make transformers, open_clip and medclip read exactly this tokenizer.

    Args:
        backend: Tokenizer without truncation and padding.
        context_length: Tokens per sentence, written as `model_max_length`.
        special: Names of the special tokens, see `SPECIAL`.
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

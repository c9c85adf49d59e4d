"""A language model alone, as the hub lays it out: turned into the folder that text towers start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.errors import MedclipError, Reason
from medclip.files.output import fresh_folder, naming
from medclip.models.interchange.find_source import weights_in
from medclip.models.packs.manifest import WEIGHTS_NAME, is_pickle
from medclip.models.towers import bert as hf_text
from medclip.models.towers.state_dict import check_finite, read_weights
from medclip.models.towers.unpickle import to_safetensors
from medclip.text.tokenizers.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def import_text_model(source: Path, out: Path) -> Path:
    """Write a text folder: config.json, the tokenizer's files as they are, and the weights as model.safetensors.

    Pickled weights are converted in a process of their own. No number is changed, and heads of other tasks are kept.

    Args:
        source: A folder with config.json, tokenizer and weights (pytorch_model.bin or model.safetensors) of a BERT.
        out: The folder to write; what is there goes.

    Returns:
        `out`, for `text_folder`.

    Raises:
        MedclipError: MISSING_FILE, UNSAFE_WEIGHTS, READ_ERROR; PACK_INVALID when weights, config and tokenizer do not
            go together; NON_FINITE.
    """
    weights = weights_in(source)
    load_tokenizer(source, hf_text.bert_text_cfg())
    with fresh_folder(out) as fresh:
        target = fresh / WEIGHTS_NAME
        if is_pickle(weights) or weights.suffix.lower() != ".safetensors":
            to_safetensors(weights, target)
        else:
            shutil.copyfile(weights, target)
        with naming(weights, instead=fresh):
            state = read_weights(target)
            hf_text.fitting(state, _tensors_of(source), weights)
            check_finite(state)
        for name in (hf_text.CONFIG, *_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, fresh / name)
    return out


def _tensors_of(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of the tower that a config describes, without memory."""
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        with torch.device("meta"):
            return AutoModel.from_config(AutoConfig.from_pretrained(folder, local_files_only=True)).state_dict()
    except (OSError, TypeError, ValueError, ArithmeticError, RuntimeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"no text model can be built of its {hf_text.CONFIG}.", where=folder / hf_text.CONFIG
        ) from e

"""A named public checkpoint through open_clip's hub code: the only door to a network. Pickled weights are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.card import Card
from medclip.models.model import Model
from medclip.models.preprocess import Preprocess

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""The names open_clip tries before it falls back to a pickle."""
_CONFIG = "open_clip_config.json"


class _HubTokenizer:
    """Gives open_clip's tokenizer the form of ours."""

    def __init__(self, tokenize: Any) -> None:
        self._tokenize = tokenize

    def encode(self, texts: list[str]) -> NDArray[np.int64]:
        return self._tokenize(list(texts)).numpy().astype(np.int64)


def load_hub(name: str, cache_dir: Path | str | None = None, *, device: str = "cpu") -> Model:
    """Load an open_clip checkpoint by its hub name.

    What lies in the cache is used; the network is asked only for what is missing, and never with HF_HUB_OFFLINE=1.
    Weights must be safetensors: that they are there is made sure of before open_clip looks, which would fall back to a
    pickle.

    Args:
        name: "org/name", with or without "hf-hub:".
        cache_dir: Cache in the hub's layout (models--org--name/snapshots/...); the hub client's own where None.
        device: Torch device.

    Returns:
        A model whose card knows nothing but its name, and whose preprocessing is bound to no adapter: figures measured
        on medclip's own packs do not apply to it. Images are letterboxed, whatever resize mode the checkpoint was
        trained with.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had; UNSAFE_WEIGHTS when it has no
            safetensors weights; PACK_INVALID when open_clip cannot build it.
    """
    import open_clip

    repository = name.removeprefix("hf-hub:")
    cache = os.fspath(cache_dir) if cache_dir is not None else None
    fetch_config(repository, cache=cache)
    fetch_weights(repository, cache=cache)
    try:
        clip = open_clip.create_model(
            f"hf-hub:{repository}", cache_dir=cache, require_pretrained=True, weights_only=True
        )
        tokenize = open_clip.get_tokenizer(f"hf-hub:{repository}", cache_dir=cache)
    except (RuntimeError, ValueError, OSError, AssertionError, KeyError, TypeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"open_clip cannot load {repository!r}: {str(e).splitlines()[0]}"
        ) from e
    return _model(clip, tokenize, repository, device)


def _model(clip: nn.Module, tokenize: Any, repository: str, device: str) -> Model:
    settings: dict[str, Any] = clip.visual.preprocess_cfg  # type: ignore[assignment, union-attr]
    size = settings["size"]
    side = int(size if isinstance(size, int) else size[0])
    preprocess = Preprocess(side, tuple(settings["mean"]), tuple(settings["std"]))
    card = Card(
        name=repository, summary="Public checkpoint, loaded through open_clip. Nothing was measured by medclip."
    )
    tokenizer: Any = _HubTokenizer(tokenize)
    clip = clip.to(torch.float32)
    return Model(clip, tokenizer, preprocess, card, name=repository, path=Path(repository), device=device)


def fetch(repository: str, filename: str, cache: str | None = None) -> Path | None:
    """Give the local path of one file, fetching it where that is allowed; None when it is not to be had."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, filename, cache_dir=cache))
    except Exception:  # the hub client raises a dozen kinds; all of them mean: not here
        return None


def fetch_config(repository: str, filename: str = _CONFIG, cache: str | None = None) -> Path:
    """Give the local path of a config.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had.
    """
    if found := fetch(repository, filename, cache):
        return found
    raise MedclipError(
        Reason.PACK_NOT_FOUND,
        f"there is no open_clip checkpoint {repository!r} in the cache, and none could be fetched.",
        hint="Check the name; without HF_HUB_OFFLINE=1 and with a network it is downloaded.",
    )


def fetch_weights(repository: str, filename: str = "", cache: str | None = None) -> Path:
    """Give the local path of safetensors weights.

    Args:
        repository: "org/name".
        filename: What open_clip's list calls the file; its safetensors form is looked for. "" for the usual names.
        cache: See `load_hub`.

    Raises:
        MedclipError: UNSAFE_WEIGHTS when there are none.
    """
    names = (f"{filename.rpartition('.')[0]}.safetensors",) if filename else _WEIGHTS
    for name in names:
        if found := fetch(repository, name, cache):
            return found
    raise MedclipError(
        Reason.UNSAFE_WEIGHTS,
        f"the checkpoint {repository!r} has no safetensors weights; pickled ones are not loaded.",
        hint="Download it yourself and convert it: medclip models import FILE_OR_FOLDER --out PACK.",
    )

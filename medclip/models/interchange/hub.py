"""A named public checkpoint through open_clip's hub code: the only door to a network. Pickled weights are refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.card import Card
from medclip.models.model import Model
from medclip.models.packs.manifest import CONFIG_NAME, PICKLES
from medclip.models.preprocess import Preprocess, normalisation

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""The names open_clip tries before it falls back to a pickle."""
_PICKLES = ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "pytorch_model.bin")
_CONFIG = CONFIG_NAME
_TIMEOUT_S = 10.0


class Missing(Enum):
    """Why a file is not to be had."""

    ABSENT = "the hub has no such file"
    NO_REPOSITORY = "the hub has no such repository, or does not show it to you"
    OFFLINE = "HF_HUB_OFFLINE=1 keeps the network from being asked"
    UNREACHABLE = "the hub could not be reached"


_REMEDY = {
    Missing.OFFLINE: "Fetch it where there is a network and carry the cache ($HF_HOME) over, or unset HF_HUB_OFFLINE.",
    Missing.UNREACHABLE: "Check network and proxy, or fetch it elsewhere and carry the cache ($HF_HOME) over.",
}


class _HubTokenizer:
    """Wraps open_clip's tokenizer in the form of ours."""

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
        with _quiet():
            clip = open_clip.create_model(
                f"hf-hub:{repository}", cache_dir=cache, require_pretrained=True, weights_only=True
            )
            tokenize = open_clip.get_tokenizer(f"hf-hub:{repository}", cache_dir=cache)
    except (RuntimeError, ValueError, OSError, AssertionError, KeyError, TypeError) as e:
        raise MedclipError(
            Reason.PACK_INVALID, f"open_clip cannot load {repository!r}: {str(e).splitlines()[0].rstrip('.')}."
        ) from e
    return _model(clip, tokenize, repository, device)


def _model(clip: nn.Module, tokenize: Any, repository: str, device: str) -> Model:
    settings: dict[str, Any] = clip.visual.preprocess_cfg  # type: ignore[assignment, union-attr]
    size = settings["size"]
    side = int(size if isinstance(size, int) else size[0])
    preprocess = Preprocess(side, *normalisation(settings["mean"], settings["std"]))
    card = Card(
        name=repository, summary="Public checkpoint, loaded through open_clip. Nothing was measured by medclip."
    )
    tokenizer: Any = _HubTokenizer(tokenize)
    clip = clip.to(torch.float32)
    return Model(clip, tokenizer, preprocess, card, name=repository, path=Path(repository), device=device)


def fetch(repository: str, filename: str, cache: str | None = None) -> Path | Missing:
    """Return the local path of one file, from the cache or else from the network, or why it is not to be had.

    The network is asked once, for no longer than `_TIMEOUT_S`: the client's own download would try five times more.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repository, filename, cache_dir=cache, local_files_only=True))
    except HFValidationError:
        return Missing.NO_REPOSITORY
    except Exception:  # the hub client raises a dozen kinds; all of them mean: not in the cache
        if constants.HF_HUB_OFFLINE:
            return Missing.OFFLINE
    try:
        with _quiet():
            get_hf_file_metadata(hf_hub_url(repository, filename), timeout=_TIMEOUT_S)
            return Path(hf_hub_download(repository, filename, cache_dir=cache))
    except RepositoryNotFoundError:
        return Missing.NO_REPOSITORY
    except EntryNotFoundError:
        return Missing.ABSENT
    except Exception:  # as many kinds mean: no network, a proxy, a timeout
        return Missing.UNREACHABLE


def fetch_config(repository: str, filename: str = _CONFIG, cache: str | None = None) -> Path:
    """Return the local path of a config.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had.
    """
    path = fetch(repository, filename, cache)
    if isinstance(path, Path):
        return path
    raise _not_found(repository, f"{filename} is", path)


def fetch_weights(repository: str, filename: str = "", cache: str | None = None) -> Path:
    """Return the local path of safetensors weights.

    Args:
        repository: "org/name".
        filename: What open_clip's list calls the file; its safetensors form is looked for. "" for the usual names.
        cache: See `load_hub`.

    Raises:
        MedclipError: PACK_NOT_FOUND when they are neither in the cache nor to be had; UNSAFE_WEIGHTS when the
            checkpoint is there and has pickled weights only.
    """
    names = (f"{filename.rpartition('.')[0]}.safetensors",) if filename else _WEIGHTS
    why = Missing.ABSENT
    for name in names:
        path = fetch(repository, name, cache)
        if isinstance(path, Path):
            return path
        if (why := path) is not Missing.ABSENT and path is not Missing.OFFLINE:
            break  # it would be the same for the next
    if why is Missing.ABSENT or _pickle_in_cache(repository, filename, cache):
        raise MedclipError(
            Reason.UNSAFE_WEIGHTS,
            f"the checkpoint {repository!r} has no safetensors weights; pickled ones are not loaded.",
            hint="Download it yourself and convert it: medclip models import FILE_OR_FOLDER --out PACK.",
        )
    raise _not_found(repository, "safetensors weights are", why)


def _pickle_in_cache(repository: str, filename: str, cache: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = _PICKLES if not filename else tuple({filename, f"{filename.rpartition('.')[0]}.bin"})
    cached = [try_to_load_from_cache(repository, n, cache_dir=cache) for n in names if Path(n).suffix in PICKLES]
    return any(isinstance(f, str) for f in cached)


def _not_found(repository: str, what: str, why: Missing) -> MedclipError:
    return MedclipError(
        Reason.PACK_NOT_FOUND,
        f"the checkpoint {repository!r} is not to be had: {what} not in the hub's cache, and {why.value}.",
        hint=_REMEDY.get(why, "Check the name."),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub client from printing its own lines; what matters is said in one sentence of ours."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)

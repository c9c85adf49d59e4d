"""Files of a named public checkpoint, from the hub's cache or else from the network: the only door to one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.models.interchange.layouts.layout import HUB_WEIGHTS, INDEX, PICKLED_INDEX, split_over
from medclip.models.interchange.layouts.open_clip_folder import OPEN_CLIP_WEIGHTS
from medclip.models.interchange.pixels import PROCESSOR
from medclip.models.packs.manifest import CONFIG_NAME

_COMPANIONS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
"""What lies beside weights, in one layout or another."""
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


def fetch(repository: str, filename: str, cache: str | None = None) -> Path | Missing:
    """Return the local path of one file, from the cache or else from the network, or why it is not to be had.

    The network is asked once, for no longer than `_TIMEOUT_S`: the client's own download would try five times more.
    """
    from huggingface_hub import (
        _CACHED_NO_EXIST,
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repository, filename, cache_dir=cache, local_files_only=True))
    except HFValidationError:
        return Missing.NO_REPOSITORY
    except Exception:  # the hub client raises a dozen kinds; all of them mean: not in the cache
        if try_to_load_from_cache(repository, filename, cache_dir=cache) is _CACHED_NO_EXIST:
            return Missing.ABSENT  # as the hub said when it was asked
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


def fetch_model(repository: str, cache: str | None = None) -> Path:
    """Fetch what a layout may need: configs, weights, tokenizer; return the folder in the cache where they lie.

    Weights in safetensors are preferred; where there are pickles only, they are fetched, and loaded by nobody: they are
    to be converted.

    Raises:
        MedclipError: PACK_NOT_FOUND when it is neither in the cache nor to be had.
    """
    why = fetch(repository, CONFIG_NAME, cache)
    if why in (Missing.NO_REPOSITORY, Missing.UNREACHABLE):
        raise _not_found(repository, f"{CONFIG_NAME} is", why)
    usual = HUB_WEIGHTS if isinstance(why, Missing) else OPEN_CLIP_WEIGHTS
    weights = fetch_weights(repository, *usual, cache=cache)
    for name in _COMPANIONS:  # a repository has some of them
        if fetch(repository, name, cache) is Missing.UNREACHABLE:
            break
    if weights.name in (INDEX, PICKLED_INDEX):
        for shard in split_over(weights):
            fetch_weights(repository, shard, cache=cache)
    return weights.parent


def fetch_weights(repository: str, *names: str, cache: str | None = None) -> Path:
    """Return the local path of the first of these files that there is.

    Raises:
        MedclipError: PACK_NOT_FOUND when none is in the cache or to be had.
    """
    why = Missing.ABSENT
    for name in names:
        path = fetch(repository, name, cache)
        if isinstance(path, Path):
            return path
        if (why := path) not in (Missing.ABSENT, Missing.OFFLINE):
            break  # it would be the same for the next
    raise _not_found(repository, f"{' or '.join(names)} is" if len(names) == 1 else "weights are", why)


def pixels_not_fetched(repository: str, cache: str | None = None) -> MedclipError | None:
    """Return why a model of transformers has no file about its pixels here; None where the hub itself has none."""
    why = fetch(repository, PROCESSOR, cache)
    if why not in (Missing.OFFLINE, Missing.UNREACHABLE):
        return None
    return MedclipError(
        Reason.PACK_NOT_FOUND,
        f"how {repository!r} treats images is not known: {PROCESSOR} is not in the hub's cache, and {why.value}.",
        hint=f"{_REMEDY[why]} Or state it: --preset NAME, or --resize, --mean and --std.",
    )


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

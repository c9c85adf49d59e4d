"""Where a model to start from lies: a pack, a folder, a file, a name. Finds config and weights; loads nothing.

Files of a named public checkpoint come from the hub's cache, or else from the network: this is the only door to one.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.interchange.layouts import dinov2, hf_clip, hf_siglip, timm_layouts
from medclip.models.interchange.layouts.layout import (
    HUB_WEIGHTS,
    INDEX,
    PICKLED_INDEX,
    Place,
    Source,
    as_safetensors,
    split_over,
)
from medclip.models.interchange.layouts.open_clip_layouts import FOLDER, OPEN_CLIP_WEIGHTS, contrastive_half
from medclip.models.interchange.layouts.table import read_layout
from medclip.models.interchange.pixels import PROCESSOR, from_open_clip
from medclip.models.packs import pack as packs
from medclip.models.packs.manifest import (
    CONFIG_NAME,
    FILE_NAME,
    HUB,
    check_files,
    read_architecture,
    read_manifest,
    refuse_pickles,
)
from medclip.models.towers import bert as hf_text

_PIXELS = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip's list of pre-trained weights says about pixels."""
_WITH_PROCESSOR = (hf_clip.LAYOUT.name, hf_siglip.LAYOUT.name, dinov2.LAYOUT.name)
"""Layouts that say it in a file beside config.json, which half a cache may lack."""


def find_source(start: str | Path, architecture: str | None = None, scratch: Path | None = None) -> Source:
    """Find a model to start from: look at the place, and ask the table of layouts what it is.

    Args:
        start: A pack (folder or built-in name), a file or folder in one of the layouts of the table, an open_clip
            architecture, "imagenet" (`timm_layouts.IMAGENET`), "NAME:TAG" of open_clip's list of pre-trained weights,
            or "hf-hub:org/name". Only the last two ask the network, and only for what the hub's cache lacks.
        architecture: Architecture of a bare checkpoint: a name in open_clip, or a JSON file that describes it; of an
            image tower alone a name in timm, or its config.json.
        scratch: Folder for pickles that are converted to be looked into; None: they are not looked into.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID, MISSING_FILE, UNSAFE_WEIGHTS or WRONG_USE.
    """
    text = os.fspath(start)
    source = _find(text, Path(text), architecture, scratch)
    if architecture is not None and source.config is None:
        return contrastive_half(replace(source, config=_architecture(architecture)))
    if architecture is not None and source.layout != timm_layouts.CHECKPOINT.name:
        raise MedclipError(
            Reason.WRONG_USE, "this model brings its own architecture; no other can be given to it.", where=text
        )
    return source


def _find(text: str, path: Path, architecture: str | None, scratch: Path | None) -> Source:
    if text.startswith(HUB):
        return read_hub(text.removeprefix(HUB), scratch)
    if os.path.isdir(path):
        if (path / FILE_NAME).is_file():
            return _pack(path)
        if architecture is None:
            _refuse_bare_text_model(path)
    if os.path.exists(path):
        return read_layout(path, architecture, scratch)
    if Path(text).name == text and os.path.isfile(packs.BUILTIN / text / FILE_NAME):
        return _pack(packs.BUILTIN / text)
    if text == timm_layouts.IMAGENET:
        return timm_layouts.read_imagenet(scratch)
    name, _, tag = text.partition(":")
    if tag and name in _names():
        return _tagged(name, tag)
    if text in _names():
        return contrastive_half(Source(_architecture(text), place=text))
    raise _unknown(text)


def _names() -> list[str]:
    """List open_clip's architectures; by their files where it is not imported, which takes seconds."""
    if "open_clip" in sys.modules:
        return sys.modules["open_clip"].list_models()
    spec = find_spec("open_clip")
    places = [] if spec is None else spec.submodule_search_locations or []
    return sorted(file.stem for place in places for file in (Path(place) / "model_configs").glob("*.json"))


def _architecture(name: str) -> dict[str, Any]:
    """Return the config of an architecture: of a JSON file, else of the name in open_clip's list."""
    if os.path.isfile(name):
        return read_architecture(Path(name))
    import open_clip

    config = open_clip.get_model_config(name) if name in _names() else None
    if config is None:
        raise _unknown(name)
    return dict(config)


def _unknown(text: str) -> MedclipError:
    hint = did_you_mean(text, _names()) or "A checkpoint is a file, a pack or model is a folder."
    return MedclipError(
        Reason.PACK_NOT_FOUND, f"there is no file, folder, pack or open_clip architecture {text!r}.", hint=hint
    )


def _pack(path: Path) -> Source:
    refuse_pickles(path)
    check_files(path, read_manifest(path))
    return FOLDER.read(Place(path))


def _refuse_bare_text_model(path: Path) -> None:
    if is_bare_text_model(path):
        raise MedclipError(
            Reason.WRONG_USE,
            "this is a text model alone, without an image tower.",
            where=path,
            hint="Name a model with an image tower, and this folder as its text model: --text-folder "
            "(model.text_folder in a recipe).",
        )


def is_bare_text_model(folder: Path) -> bool:
    """Whether a folder holds a text model in transformers' layout and no dual encoder."""
    return not (folder / CONFIG_NAME).is_file() and hf_text.is_text_model(folder)


def read_hub(repository: str, scratch: Path | None, cache: str | None = None) -> Source:
    """Read what a model of the hub is, from the hub's cache or else from the network.

    Args:
        repository: Name of the repository: "org/name".
        scratch: Folder for conversions, see `find_source`.
        cache: Folder of the hub's cache; the hub client's own where None.
    """
    folder = fetch_model(repository, cache)
    source = read_layout(folder, scratch=scratch)
    text_cfg = (source.config or {}).get("text_cfg") or {}
    bert = text_cfg.get("hf_model_name")
    if bert and not hf_text.is_text_model(folder):
        config = fetch(bert, hf_text.CONFIG, cache)  # named by the checkpoint that the user named
        if isinstance(config, Path):  # else the user is asked for its folder, unless one was named
            text_cfg["hf_model_name"] = str(config.parent)
    if not source.preprocess and source.refusal is None and source.layout in _WITH_PROCESSOR:
        source = replace(source, refusal=pixels_not_fetched(repository, cache))
    return replace(source, place=f"{HUB}{repository}")


def _tagged(name: str, tag: str) -> Source:
    from open_clip.pretrained import get_pretrained_cfg

    pretrained = get_pretrained_cfg(name, tag)
    if not pretrained:
        raise MedclipError(Reason.PACK_NOT_FOUND, f"open_clip knows no weights {tag!r} for {name}.")
    config = _architecture(name)
    if "quick_gelu" in pretrained:
        config["quick_gelu"] = pretrained["quick_gelu"]  # open_clip only warns where the name says otherwise
    repository, _, file = str(pretrained.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise MedclipError(
            Reason.UNSAFE_WEIGHTS,
            f"the weights {name}:{tag} exist as a pickle only.",
            hint="Download them yourself and use `medclip models import`.",
        )
    names = (f"{file.rpartition('.')[0]}.safetensors", file) if file else OPEN_CLIP_WEIGHTS
    weights = fetch_weights(repository, *names)
    pixels = from_open_clip({k: pretrained.get(k) for k in _PIXELS})
    return contrastive_half(
        Source(config, (weights,), None, pixels, f"{name}:{tag}", pixels_from="open_clip's list of weights")
    )


def refuse_pickle(source: Source) -> None:
    """Refuse weights that are not safetensors, whatever their name says.

    Raises:
        MedclipError: UNSAFE_WEIGHTS saying how to convert them.
    """
    for path in source.weights:
        if as_safetensors(path, None) is None:
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS,
                "these weights are no safetensors; a pickle can run code when it is loaded.",
                where=path,
                hint=f"Convert them once: medclip models import {source.place} --out PACK.",
            )


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

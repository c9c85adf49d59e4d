"""Where a model to start from lies: a pack, a folder, a file, a name. Finds config and weights; loads nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.interchange.layouts import dinov2, hf_clip, hf_siglip, open_clip_folder, timm_checkpoint
from medclip.models.interchange.layouts.layout import Place, Source, as_safetensors
from medclip.models.interchange.layouts.open_clip_coca import contrastive_half
from medclip.models.interchange.layouts.table import read_layout
from medclip.models.interchange.pixels import from_open_clip
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
            architecture, "NAME:TAG" of open_clip's list of pre-trained weights, or "hf-hub:org/name". Only the last two
            ask the network, and only for what the hub's cache lacks.
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
    if architecture is not None and source.layout != timm_checkpoint.LAYOUT.name:
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
    return open_clip_folder.LAYOUT.read(Place(path))


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

    Raises:
        MedclipError: As `find_source`.
    """
    from medclip.models.interchange.hub import fetch, fetch_model, pixels_not_fetched

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

    from medclip.models.interchange.hub import fetch_weights

    known = get_pretrained_cfg(name, tag)
    if not known:
        raise MedclipError(Reason.PACK_NOT_FOUND, f"open_clip knows no weights {tag!r} for {name}.")
    config = _architecture(name)
    if "quick_gelu" in known:
        config["quick_gelu"] = known["quick_gelu"]  # open_clip only warns where the name says otherwise
    repository, _, file = str(known.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise MedclipError(
            Reason.UNSAFE_WEIGHTS,
            f"the weights {name}:{tag} exist as a pickle only.",
            hint="Download them yourself and use `medclip models import`.",
        )
    names = (f"{file.rpartition('.')[0]}.safetensors", file) if file else open_clip_folder.OPEN_CLIP_WEIGHTS
    weights = fetch_weights(repository, *names)
    pixels = from_open_clip({k: known.get(k) for k in _PIXELS})
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

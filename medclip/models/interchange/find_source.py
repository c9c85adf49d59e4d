"""Where a model to start from lies: a pack, a folder, a file, a name. Finds config and weights; loads nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason, did_you_mean
from medclip.models.packs import pack as packs
from medclip.models.packs.manifest import (
    CONFIG_NAME,
    FILE_NAME,
    PICKLES,
    WEIGHTS_NAME,
    check_files,
    is_pickle,
    read_architecture,
    read_config,
    read_manifest,
    refuse_pickles,
)
from medclip.models.towers import bert as hf_text

HUB = "hf-hub:"
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    WEIGHTS_NAME,
    "pytorch_model.bin",
)
"""What open_clip looks for in a folder, in its order."""
_TEXT_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "special_tokens_map.json")


@dataclass(frozen=True, eq=False)
class Source:
    """What was found."""

    config: dict[str, Any] | None
    """open_clip `model_cfg`; None for a bare checkpoint whose architecture nobody named."""
    weights: Path | None = None
    """safetensors or a pickle; None for random weights."""
    folder: Path | None = None
    """Folder with tokenizer and text config."""
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    """open_clip `preprocess_cfg`."""
    place: Path | str = ""
    """What the user named, for errors and cards."""


def find_source(start: str | Path, architecture: str | None = None) -> Source:
    """Find a model to start from.

    Args:
        start: A pack (folder or built-in name), a folder with open_clip_config.json, a checkpoint file, an open_clip
            architecture, "NAME:TAG" of open_clip's list of pre-trained weights, or "hf-hub:org/name". Only the last two
            ask the network, and only for what the hub's cache lacks.
        architecture: open_clip architecture of a bare checkpoint: a name, or a JSON file that describes it.

    Raises:
        MedclipError: PACK_NOT_FOUND, PACK_INVALID, MISSING_FILE, UNSAFE_WEIGHTS or WRONG_USE.
    """
    text = os.fspath(start)
    source = _find(text, Path(text), architecture)
    if architecture is not None and source.config is None:
        return Source(_architecture(architecture), source.weights, source.folder, source.preprocess, source.place)
    if architecture is not None:
        raise MedclipError(
            Reason.WRONG_USE, "this model brings its own architecture; no other can be given to it.", where=text
        )
    return source


def _find(text: str, path: Path, architecture: str | None) -> Source:
    if text.startswith(HUB):
        return _hub(text.removeprefix(HUB))
    if os.path.isdir(path):
        return _pack(path) if (path / FILE_NAME).is_file() else _folder(path, architecture)
    if os.path.isfile(path):
        return Source(None, path, None, place=path)
    if Path(text).name == text and os.path.isfile(packs.BUILTIN / text / FILE_NAME):
        return _pack(packs.BUILTIN / text)
    name, _, tag = text.partition(":")
    if tag and name in _names():
        return _tagged(name, tag)
    if text in _names():
        return Source(_architecture(text), place=text)
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
    return _described(path, path / WEIGHTS_NAME)


def _folder(path: Path, architecture: str | None) -> Source:
    weights = weights_in(path)
    if architecture is not None and not (path / CONFIG_NAME).is_file():
        return Source(None, weights, path, place=path)
    if is_bare_text_model(path):
        raise MedclipError(
            Reason.WRONG_USE,
            "this is a text model alone, without an image tower.",
            where=path,
            hint="Name a model with an image tower, and this folder as its text model: --text-folder "
            "(model.text_folder in a recipe).",
        )
    return _described(path, weights)


def is_bare_text_model(folder: Path) -> bool:
    """Whether a folder holds a text model in transformers' layout and no dual encoder."""
    return not (folder / CONFIG_NAME).is_file() and hf_text.is_text_model(folder)


def weights_in(folder: Path) -> Path:
    """Return the file of weights in a folder: by one of the usual names, or the only one there is.

    Raises:
        MedclipError: MISSING_FILE.
    """
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        others = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLES | {".safetensors"})
        weights = others[0] if len(others) == 1 else None
    if weights is None:
        raise MedclipError(
            Reason.MISSING_FILE, "this folder holds no weights, or more than one file of them.", where=folder,
            hint="Name the file.",
        )  # fmt: skip
    return weights


def _described(folder: Path, weights: Path) -> Source:
    values = read_config(folder)
    return Source(dict(values["model_cfg"]), weights, folder, dict(values.get("preprocess_cfg") or {}), folder)


def _hub(repository: str) -> Source:
    from medclip.models.interchange.hub import Missing, fetch, fetch_config, fetch_weights

    config_path = fetch_config(repository)
    weights = fetch_weights(repository)
    source = _described(config_path.parent, weights)
    for name in _TEXT_FILES:  # a repository has some of them
        if fetch(repository, name) is Missing.UNREACHABLE:
            break
    text_cfg = (source.config or {})["text_cfg"]
    bert = text_cfg.get("hf_model_name")
    if bert and not hf_text.is_text_model(config_path.parent):
        config = fetch_config(bert, hf_text.CONFIG)  # named by the checkpoint that the user named
        text_cfg["hf_model_name"] = str(config.parent)
    return source


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
    weights = fetch_weights(repository, file)
    return Source(config, weights, None, {k: known[k] for k in ("mean", "std")}, f"{name}:{tag}")


def refuse_pickle(path: Path) -> None:
    """Refuse weights that are not safetensors, whatever their name says.

    Raises:
        MedclipError: UNSAFE_WEIGHTS saying how to convert them.
    """
    if path.suffix.lower() != ".safetensors" or is_pickle(path):
        raise MedclipError(
            Reason.UNSAFE_WEIGHTS,
            "these weights are no safetensors; a pickle can run code when it is loaded.",
            where=path,
            hint=f"Convert them once: medclip models import {path} --out PACK.",
        )

"""What lies in a pack folder, by hash. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import write_file

FILE_NAME = "manifest.json"
CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "model.safetensors"
TEXT_FOLDER = "text"
"""Folder inside a pack that holds the config.json of a BERT text tower."""
LICENCE_NAME = "LICENSE.txt"
"""File in a pack with the terms of its weights in full; packs need none."""
FORMAT = 1
HUB = "hf-hub:"
"""What stands before the name of a model on the hub."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
"""Suffixes of weight files that can run code when loaded (numpy's may hold pickled objects)."""
FUSION = "fusion"
"""Key of a `model_cfg`, and how the names of its weights begin."""
WITHOUT_FUSION = "What fuses the views of an examination is medclip's own and was left out: single images only."
"""Note of an export to another library."""


_IMAGE_TOWER = "visual."
"""How the names of its weights begin."""
_AT_ONCE = 1 << 24
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json."""

    files: Mapping[str, str]
    """File name to sha256."""
    preprocessing: Mapping[str, str] = field(default_factory=dict)
    """Modality (or "generic") to the hash of the adapter preprocessing the weights were trained through."""


def seal(folder: Path, preprocessing: Mapping[str, str]) -> Manifest:
    """Write manifest.json over whatever lies in the folder now, atomically."""
    manifest = Manifest({n: file_sha256(folder / n) for n in names_in(folder)}, dict(sorted(preprocessing.items())))
    text = json.dumps(
        {"format": FORMAT, "preprocessing": manifest.preprocessing, "files": manifest.files}, indent=1, sort_keys=True
    )
    write_file(folder / FILE_NAME, text + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json.

    Raises:
        MedclipError: PACK_INVALID when there is none or it is not one of ours.
    """
    path = folder / FILE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        format_number, files = values["format"], {str(k): str(v) for k, v in values["files"].items()}
        preprocessing = {str(k): str(v) for k, v in values["preprocessing"].items()}
    except FileNotFoundError as e:
        raise no_pack(folder) from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, "the pack's manifest cannot be read.", where=path) from e
    if format_number != FORMAT:
        raise MedclipError(
            Reason.PACK_INVALID,
            f"the pack has format {format_number}, this medclip reads {FORMAT}.",
            where=path,
            hint="Update medclip.",
        )
    return Manifest(files, preprocessing)


def pack_digest(folder: Path) -> str:
    """Return the sha256 of a pack's manifest, which holds the hash of every file."""
    return file_sha256(folder / FILE_NAME)


def weights_digest(folder: Path) -> str:
    """Return the head of the sha256 of a pack's weights, 16 hex characters, as its manifest has it.

    Raises:
        MedclipError: PACK_INVALID where the manifest lists none.
    """
    digest = read_manifest(folder).files.get(WEIGHTS_NAME)
    if digest is None:
        raise MedclipError(Reason.PACK_INVALID, f"the manifest does not list {WEIGHTS_NAME}.", where=folder)
    return digest[:16]


def read_config(folder: Path) -> dict[str, Any]:
    """Read open_clip_config.json.

    Raises:
        MedclipError: PACK_INVALID when it is missing or does not describe an image tower and, where it has one, a text
            tower.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        _check_towers(config["model_cfg"], image_only=True)
        if not isinstance(config.get("preprocess_cfg") or {}, dict):
            raise TypeError("preprocess_cfg")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, f"{CONFIG_NAME} is missing or not a model config.", where=folder) from e
    return config


def read_architecture(file: Path) -> dict[str, Any]:
    """Read a JSON file that describes two towers: an architecture of open_clip's, or its open_clip_config.json.

    Raises:
        MedclipError: PACK_INVALID when it describes none; READ_ERROR.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        config = config.get("model_cfg", config)
        _check_towers(config, image_only=False)
    except OSError as e:
        raise MedclipError(Reason.READ_ERROR, "the file cannot be read.", where=file) from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(
            Reason.PACK_INVALID,
            "this file describes no model.",
            where=file,
            hint="Expected is JSON with embed_dim, vision_cfg and text_cfg, as open_clip has it.",
        ) from e
    return config


def _check_towers(config: dict[str, Any], *, image_only: bool) -> None:
    parts = ("vision_cfg",) if image_only and config.get("text_cfg") is None else ("vision_cfg", "text_cfg")
    if not all(isinstance(config[part], dict) for part in parts):
        raise TypeError(CONFIG_NAME)


def no_pack(place: Path) -> MedclipError:
    """Return the error for a file, and for a folder without a manifest; weights in it are to be imported first."""
    folder = place.is_dir()
    weights = not folder or any(p.suffix.lower() in PICKLES | {".safetensors"} for p in place.iterdir())
    return MedclipError(
        Reason.PACK_INVALID,
        f"this folder is not a model pack: it has no {FILE_NAME}." if folder else "this file is not a model pack.",
        where=place,
        hint=f"It may be a checkpoint: `medclip models import {place} --out PACK` makes a pack of it, once."
        if weights
        else "`medclip pretrain` and `medclip models import` write packs.",
    )


def hash_tensors(weights: Path, about: object, *, of_images: bool) -> str:
    """Hash the tensors of one of the towers of a safetensors file, in the order of their names.

    Args:
        weights: The file.
        about: Architecture of the tower, of values that JSON takes; it goes into the hash, too.
        of_images: Whether it is the tower of images; False for all other tensors.

    Returns:
        sha256, hex.

    Raises:
        MedclipError: PACK_INVALID for what is no safetensors file.
    """
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    try:
        with weights.open("rb") as file:  # in the order of names: files differ in the order of their tensors
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name in sorted(name for name in header if name != "__metadata__"):
                if name.startswith(_IMAGE_TOWER) is not of_images:
                    continue
                start, end = header[name]["data_offsets"]
                state.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode())
                file.seek(8 + length + start)
                for place in range(start, end, _AT_ONCE):
                    state.update(file.read(min(_AT_ONCE, end - place)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, "the weights cannot be read.", where=weights) from e
    return state.hexdigest()


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest.

    Raises:
        MedclipError: PACK_INVALID naming the files that are missing, changed, or not listed (an unlisted weight file
            could be picked up by other loaders).
    """
    present = set(names_in(folder))
    faults = [f"{name} is missing" for name in sorted(set(manifest.files) - present)]
    faults += [f"{name} is not listed in {FILE_NAME}" for name in sorted(present - set(manifest.files))]
    faults += [
        f"{name} does not have the bytes that {FILE_NAME} promises"
        for name in sorted(present & set(manifest.files))
        if file_sha256(folder / name) != manifest.files[name]
    ]
    if faults:
        raise MedclipError(
            Reason.PACK_INVALID, f"{'; '.join(faults)}.", where=folder, hint="Take the pack from its source again."
        )


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder with weights that could run code.

    Raises:
        MedclipError: UNSAFE_WEIGHTS naming the file.
    """
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix.lower() in PICKLES or (path.suffix.lower() == ".safetensors" and is_pickle(path)):
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS,
                "this file may hold pickled objects, which can run code when they are loaded.",
                where=path,
                hint="Only safetensors weights are loaded; convert them in a place you trust.",
            )


def names_in(folder: Path) -> list[str]:
    """Names of the files in a pack folder and below, hidden ones and the manifest left out; sorted, forward slashes."""
    names = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    kept = [n for n in names if not any(part.startswith((".", "__pycache__")) for part in n.parts)]
    return sorted(n.as_posix() for n in kept if n.as_posix() != FILE_NAME)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def is_pickle(path: Path) -> bool:
    """Whether a file starts as a pickle of protocol 2 to 5 or as a zip (what torch.save writes) does.

    A safetensors file starts with the length of its JSON header, 8 bytes little-endian, so one with a header of 640
    bytes starts with 80 02 as a pickle does. A length that fits into the file and the header's brace tell them apart.
    """
    with path.open("rb") as f:
        head = f.read(9)
    if head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return False
    return (head[:1] == b"\x80" and head[1:2] in _PROTOCOLS) or head[:4] in _ZIP

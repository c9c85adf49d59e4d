"""What a layout is, what it is asked about, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError, Reason, printable
from medclip.models.packs.manifest import PICKLES, WEIGHTS_NAME, is_pickle
from medclip.models.towers.weight_files import read_shapes, to_safetensors
from medclip.wording import list_of

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]
    Convert = Callable[[State], State]

CONFIG = "config.json"
"""What transformers and timm call their config."""
INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
"""Names the file of each tensor where weights are split over several (shards)."""
HUB_WEIGHTS = (WEIGHTS_NAME, INDEX, "pytorch_model.bin", PICKLED_INDEX)
"""What transformers and timm call their weights, in the order in which they look."""
OWN_FILES = "the checkpoint's own files"
_SHOWN = 4
"""Names of files and of tensors that an error shows."""


@dataclass(frozen=True, eq=False)
class Source:
    """What was found."""

    config: dict[str, Any] | None
    """open_clip `model_cfg`; None for a bare checkpoint whose architecture nobody named."""
    weights: tuple[Path, ...] = ()
    """As they lie: safetensors or pickles, several where they are split; none for random weights, which have no
    `folder`, and for a folder that lacks them."""
    folder: Path | None = None
    """Folder with tokenizer and text config."""
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    """open_clip `preprocess_cfg`; empty where the checkpoint says nothing about pixels."""
    place: Path | str = ""
    """What the user named, for errors and cards."""
    convert: Convert | None = None
    """From the tensors' names in the file to those of the towers that `config` describes; None where they are equal."""
    layout: str = ""
    """Name of the layout, for the card."""
    refusal: MedclipError | None = None
    """Why the checkpoint's own file about pixels cannot be followed; raised unless the user states them."""
    pixels_from: str = OWN_FILES
    """What `preprocess` is from, for the card."""


def followed(read: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], MedclipError | None]:
    """Return what a checkpoint's own file says about pixels, or nothing and why it cannot be followed."""
    try:
        return read(), None
    except MedclipError as error:
        return {}, error


@dataclass(frozen=True, eq=False)
class Place:
    """A file or folder that may be a checkpoint, and what can be seen without loading it."""

    path: Path
    architecture: str | None = None
    """open_clip architecture that the user named for a bare checkpoint."""
    scratch: Path | None = None
    """Folder for pickles that are converted to be looked into; None: pickles are not looked into."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files in the folder; empty for a file."""
        return frozenset(p.name for p in self.path.iterdir() if p.is_file()) if self.path.is_dir() else frozenset()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Contents of config.json; empty where there is none that can be read."""
        try:
            values = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}

    def find_weights(self, *usual: str) -> tuple[Path, ...]:
        """Return the files of weights: by one of the usual names, or the only one there is; () where neither holds."""
        if not self.path.is_dir():
            return (self.path,)
        name = next((n for n in usual if n in self.names), None)
        if name is not None:
            return _shards(self.path / name) if name in (INDEX, PICKLED_INDEX) else (self.path / name,)
        others = sorted(n for n in self.names if Path(n).suffix.lower() in PICKLES | {".safetensors"})
        return (self.path / others[0],) if len(others) == 1 else ()

    def tensors(self, weights: tuple[Path, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return the sizes of the tensors in weights by name; empty for pickles that may not be converted here."""
        sizes: dict[str, tuple[int, ...]] = {}
        for path in weights:
            converted = as_safetensors(path, self.scratch)
            sizes |= read_shapes(converted) if converted is not None else {}
        return sizes


def as_safetensors(path: Path, scratch: Path | None) -> Path | None:
    """Return weights as safetensors: the file itself, or a pickle's conversion, made once in a process of its own.

    Args:
        path: A file of weights.
        scratch: Folder for conversions. None: a pickle is not converted, and None comes back for it.
    """
    if path.suffix.lower() == ".safetensors" and not is_pickle(path):
        return path
    if scratch is None:
        return None
    target = scratch / f"{path.name}.safetensors"
    return target if target.is_file() else to_safetensors(path, target)


def split_over(index: Path) -> tuple[str, ...]:
    """Return the names of the files that an index of split weights names, in its order.

    Raises:
        MedclipError: PACK_INVALID for an index that cannot be read or names files elsewhere.
    """
    try:
        names = dict.fromkeys(str(n) for n in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise MedclipError(Reason.PACK_INVALID, "this index of weights cannot be read.", where=index) from e
    if not names or any(Path(n).name != n for n in names):
        raise MedclipError(Reason.PACK_INVALID, "this index of weights names no files beside it.", where=index)
    return tuple(names)


def _shards(index: Path) -> tuple[Path, ...]:
    names = split_over(index)
    if missing := [n for n in names if not (index.parent / n).is_file()]:
        raise MedclipError(
            Reason.MISSING_FILE,
            f"the weights are split, and {list_of([printable(n) for n in missing], most=_SHOWN)} "
            f"{'is' if len(missing) == 1 else 'are'} missing.",
            where=index,
            hint="Take the folder from its source again.",
        )
    return tuple(index.parent / n for n in names)


def no_weights(folder: Path) -> MedclipError:
    """Return the error for a folder without weights, or with several files that could be them."""
    return MedclipError(
        Reason.MISSING_FILE,
        "this folder holds no weights, or more than one file of them.",
        where=folder,
        hint="Name the file.",
    )


@dataclass(frozen=True, eq=False)
class Layout:
    """One way in which checkpoints lie on disk."""

    name: str
    title: str
    looks_like: str
    """How to tell it, in words, for the error that a place in no layout gets."""
    matches: Callable[[Place], bool]
    read: Callable[[Place], Source]
    """Raises MedclipError for a place that looks like this layout and is damaged or of a kind that cannot be taken."""


def described(place: Place, weights: tuple[Path, ...]) -> str:
    """Describe what was seen at a place: files, what its config.json says it is, a few tensors."""
    parts: list[str] = []
    if place.names:
        files = sorted(place.names)
        parts.append("the files " + _some([printable(n) for n in files]))
    stated = {k: place.config.get(k) for k in ("model_type", "architectures", "architecture")}
    if stated := {k: v for k, v in stated.items() if v}:
        parts.append("a config.json with " + " and ".join(f"{k} {printable(str(v))[:80]!r}" for k, v in stated.items()))
    if sizes := place.tensors(weights):
        parts.append("tensors such as " + _some([f"{printable(n)} {list(size)}" for n, size in sizes.items()]))
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""The files that an audit read, by name, size and SHA-256; where they lie stays in the folder's own note."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.embeddings.write_embeddings import NOTE as EMBEDDINGS
from medclip.models.packs.manifest import FILE_NAME as MANIFEST
from medclip.models.packs.manifest import file_sha256
from medclip.runs.outputs.results import FILES, SCORES
from medclip.shards.folder import INDEX

_NAMED = ("compare", "choose_on")
"""Keys that take [NAME=]PATH."""
_PLAIN = ("scores", "labels", "files", "thresholds", "choose_labels", "masked", "images", "embeddings", "key_file")
_PLAIN += ("reference",)
_OR_NAME = ("model", "task")
"""Keys that take a path, or the name of what came with medclip."""
_SINGLE = (*_PLAIN, *_OR_NAME)
_NOT_HASHED = frozenset({"images", "key_file"})
"""A folder of millions of files, and a secret."""
_OF_FOLDERS = (SCORES, FILES, EMBEDDINGS, MANIFEST, INDEX)
"""Files that stand for a folder: of scores, of embeddings, of a pack, of shards."""


def change_paths(asked: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """Return what is asked with every path in it changed; what is no path, such as a data frame, stays.

    Args:
        asked: Values of options.
        change: Function of the key of a path ("labels", "compare:1") and the path; gives the new path.
    """
    values = dict(asked)
    for name in _SINGLE:
        if isinstance(values.get(name), str | Path):
            values[name] = change(name, str(values[name]))
    for name in (*_NAMED, "training"):
        if isinstance(values.get(name), list | tuple):
            values[name] = [
                _changed(one, f"{name}:{n}", name in _NAMED, change) if isinstance(one, str) else one
                for n, one in enumerate(values[name])
            ]
    return values


def _changed(text: str, key: str, is_named: bool, change: Callable[[str, str], str]) -> str:
    name, equals, path = text.partition("=")
    if is_named and equals and "://" not in name and not Path(text).exists():  # a path may hold "=" itself
        return f"{name}={change(key, path)}"
    return change(key, text)


def paths_of(asked: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files and folders that are named, by key; a pack of medclip's own is none."""
    paths: dict[str, Path] = {}

    def note(key: str, path: str) -> str:
        paths[key] = Path(path)
        return path

    change_paths(asked, note)
    return {key: path for key, path in paths.items() if key not in _OR_NAME or path.exists()}


def describe_inputs(paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of every file behind some keys; of folders those of the files that stand for them.

    Args:
        paths: Paths by key, from `paths_of`.
    """
    return [row for key, path in paths.items() for row in _described(key, path)]


def _described(key: str, path: Path) -> Iterator[dict[str, Any]]:
    inside = [path / name for name in _OF_FOLDERS if (path / name).is_file()] if path.is_dir() else []
    if key in _NOT_HASHED or (path.is_dir() and not inside):
        yield {"for": key, "name": path.name, "size": None, "sha256": None}
        return
    for file in inside or _with_files(key, path):
        name = f"{path.name}/{file.name}" if inside else file.name
        yield {"for": key, "name": name, "size": file.stat().st_size, "sha256": file_sha256(file)}


def _with_files(key: str, path: Path) -> Sequence[Path]:
    """Add the table of files that is read with scores of `medclip score`."""
    beside = path.parent / FILES
    of_scores = path.name == SCORES and key.partition(":")[0] in ("scores", "masked", *_NAMED)
    return (path, beside) if of_scores and beside.is_file() else (path,)


def relative_place(path: Path, folder: Path) -> str | None:
    """Return where an input lies as seen from the audit's folder; None where that would tell of a home folder or of how
    a machine's disks are laid out.

    Example:
        >>> relative_place(Path("/data/study/labels.csv"), Path("/data/study/audit"))
        '../labels.csv'
        >>> relative_place(Path("/home/jane/labels.csv"), Path("/srv/audit")) is None
        True
    """
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    try:
        common = Path(os.path.commonpath([path, folder]))
    except ValueError:  # two drives
        return None
    homes = [Path.home(), Path("/home"), Path("/Users")]
    if common == Path(common.anchor) or any(home.is_relative_to(common) and home != common for home in homes[:1]):
        return None
    return None if common in homes[1:] else os.path.relpath(path, folder)

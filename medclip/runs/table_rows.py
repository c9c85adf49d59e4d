"""Which rows of a table are inputs of a run: those that name a file below what is scored, there or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medclip.errors import Problem, Reason
from medclip.files.tables.manifest import Manifest
from medclip.sample import FileRef


def missing_files(refs: Sequence[FileRef], manifest: Manifest, root: Path) -> tuple[tuple[FileRef, ...], int]:
    """Find the files that a table names below the root and that do not exist: each input gets its row.

    A path in a table is relative to the scored folder or to the table's; the one that more rows exist in counts for
    rows that exist in neither.

    Args:
        refs: The files that were found.
        manifest: The table.
        root: The file or folder that is scored.

    Returns:
        The missing files, and how many rows name nothing here: a table may cover more than one folder.
    """
    scored = root if root.is_dir() else root.parent
    places = [scored] if manifest.folder is None else [scored, manifest.folder]
    names, paths = {ref.name for ref in refs}, {os.path.abspath(ref.path) for ref in refs}
    exists = [[os.path.lexists(place / row.file) for row in manifest.rows] for place in places]
    base = max(range(len(places)), key=lambda index: (sum(exists[index]), -index))
    problem = Problem(Reason.MISSING_FILE, "The table names this file, but it does not exist.")
    missing: dict[str, FileRef] = {}
    elsewhere = 0
    for index, row in enumerate(manifest.rows):
        if os.path.normpath(row.file) in names or any(os.path.abspath(p / row.file) in paths for p in places):
            continue
        name = None if any(exists_here[index] for exists_here in exists) else _below(root, places[base] / row.file)
        if name is None:
            elsewhere += 1
        else:
            missing[name] = FileRef(root / name, name, 0, problem)
    return tuple(missing.values()), elsewhere


def _below(root: Path, path: Path) -> str | None:
    """Return a path relative to a folder; None where it does not lie in it, or where the root is a file."""
    if not root.is_dir():
        return None
    for absolute in (os.path.abspath, os.path.realpath):
        name = os.path.relpath(absolute(path), absolute(root))
        if name.split(os.sep)[0] != os.pardir and name != os.curdir:
            return Path(name).as_posix()
    return None

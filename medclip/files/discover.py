"""Find the files below a folder, in an order that depends on nothing but their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medclip.errors import Problem, Reason
from medclip.files.input_paths import refuse_missing
from medclip.files.output import is_draft
from medclip.sample import FileRef

LEDGER = "ledger.sqlite"
"""Name of the file by which an output folder is known (`medclip.runs.ledger.FILE_NAME`, a room above)."""
_SCHEMA_BYTES = 65536
"""The schema lies in the first pages of an SQLite file."""

_Inode = tuple[int, int]


def discover(root: Path, *, exclude: Sequence[Path] = ()) -> tuple[FileRef, ...]:
    """List every file at or below a path.

    Links to folders are followed after all real folders have been listed, each folder once: a link that leads to a
    folder already listed (a loop among them) becomes one entry with LINK_LOOP. A folder below the root that holds the
    ledger of a medclip run is an output folder and is left out with all it holds; only that ledger is ever opened. What
    a killed medclip left half written is passed over.

    Args:
        root: A file or a folder.
        exclude: Files or folders to leave out with all they hold, such as the output folder.

    Returns:
        One entry per path, sorted by the bytes of the relative name. Entries that cannot be opened carry a problem.

    Raises:
        MedclipError: MISSING_FILE if `root` does not exist.
    """
    refuse_missing(root)
    walk = _Walk(root, frozenset(os.path.realpath(path) for path in exclude))
    if root.is_dir():
        walk.folder(root, "")
        while walk.links:
            walk.links.sort(key=lambda link: os.fsencode(link[1]))
            walk.link(*walk.links.pop(0))
    else:
        walk.entry(root, root.name)
    return tuple(ref for _, ref in sorted(walk.files, key=lambda item: item[0]))


@dataclass
class _Walk:
    root: Path
    exclude: frozenset[str]
    files: list[tuple[bytes, FileRef]] = field(default_factory=list)
    links: list[tuple[Path, str]] = field(default_factory=list)
    seen: set[_Inode] = field(default_factory=set)

    def add(self, path: Path, name: str, size: int = 0, problem: Problem | None = None) -> None:
        raw = os.fsencode(name)
        # A name that is not UTF-8 is written with \xNN, so that every table can hold it and no two names collide.
        self.files.append((raw, FileRef(path, raw.decode("utf-8", "backslashreplace"), size, problem)))

    def folder(self, path: Path, name: str) -> None:
        """List one folder; real sub-folders at once, links to folders later."""
        try:
            status = path.stat()
            self.seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not is_draft(entry.name))
        except OSError as error:
            self.add(path, name or path.name, problem=_folder_problem(error))
            return
        if name and LEDGER in names and (path / LEDGER).is_file() and _is_ledger(path / LEDGER):
            return
        for child in names:
            self.entry(path / child, f"{name}/{child}" if name else child)

    def entry(self, path: Path, name: str) -> None:
        """Sort one path into file, folder, link to a folder or something else."""
        if self.exclude and os.path.realpath(path) in self.exclude:
            return
        try:
            status = path.stat()
        except OSError as error:
            self.add(path, name, problem=_link_problem(path, error))
            return
        if stat.S_ISDIR(status.st_mode):
            if path.is_symlink():
                self.links.append((path, name))
            else:
                self.folder(path, name)
        elif not stat.S_ISREG(status.st_mode):
            problem = Problem(Reason.NOT_A_FILE, "the path is a pipe, socket or device, not an ordinary file.")
            self.add(path, name, problem=problem)
        elif not os.access(path, os.R_OK):
            problem = Problem(Reason.PERMISSION_DENIED, "the file may not be read; check its permissions.")
            self.add(path, name, status.st_size, problem)
        else:
            self.add(path, name, status.st_size)

    def link(self, path: Path, name: str) -> None:
        """Follow a link to a folder unless that folder has been listed."""
        try:
            status = path.stat()
        except OSError as error:
            self.add(path, name, problem=_link_problem(path, error))
            return
        if (status.st_dev, status.st_ino) in self.seen:
            message = "the link leads to a folder that is listed already, so it is not followed again."
            self.add(path, name, problem=Problem(Reason.LINK_LOOP, message))
            return
        self.folder(path, name)


def _is_ledger(path: Path) -> bool:
    """Return whether an SQLite database has the tables of a medclip run.

    Those of a run that was killed may still lie in the write-ahead log beside the database.
    """
    schema = _head(path) + _head(path.with_name(f"{path.name}-wal"))
    return all(b"CREATE TABLE " + table in schema for table in (b"chunks", b"files", b"scores"))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_SCHEMA_BYTES)
    except OSError:
        return b""


def _folder_problem(error: OSError) -> Problem:
    if isinstance(error, PermissionError):
        return Problem(Reason.PERMISSION_DENIED, "the folder may not be listed; check its permissions.")
    return Problem(Reason.READ_ERROR, f"the folder could not be listed ({error.strerror}).")


def _link_problem(path: Path, error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError):
        return Problem(Reason.MISSING_FILE, "the link leads to nothing.")
    if isinstance(error, PermissionError):
        return Problem(Reason.PERMISSION_DENIED, "the path may not be looked at; check its permissions.")
    if path.is_symlink():
        return Problem(Reason.LINK_LOOP, "the link leads back to itself.")
    return Problem(Reason.READ_ERROR, f"the path could not be looked at ({error.strerror}).")

"""Find the files below a folder, in an order that depends on nothing but their names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medclip.errors import Problem, Reason, refuse_missing
from medclip.files.output import is_draft
from medclip.sample import NO_STAMP, FileRef, Stamp

LEDGER = "ledger.sqlite"
"""Name of the file by which an output folder is known (`medclip.runs.ledger.ledger.FILE_NAME`, a room above)."""
RECEIVED = "received"
"""Folder in an output folder with what others send to it (`medclip.files.dimse`)."""
_SCHEMA_BYTES = 1 << 18
"""The schema lies in the first pages of an SQLite file: a page for each table and index, and some of text."""

_SPELLED = re.compile(rb"\\x([0-9a-f]{2})")
_BACKSLASH = rb"\x5c"


_UNFINISHED = re.compile(
    r"[.~].*|.*~|.*\.(?:part|partial|filepart|tmp|temp|crdownload|opdownload|download)", re.IGNORECASE | re.DOTALL
)
"""Hidden names; those of editors and of Windows; those of senders, copiers and browsers until a file is there: dcm4che
(.part), rsync (.NAME.XXXXXX), rclone (NAME.XXXXXXXX.partial), WinSCP, lftp, Syncthing, Chrome, Opera, Safari."""
_MARKS = re.compile(
    r"^[.~]*(?:(?:syncthing|in)[.~])?|~$|\.(?:part|partial|filepart|tmp|temp|crdownload|opdownload|download)$",
    re.IGNORECASE,
)
_BY_CHANCE = re.compile(r"\.(?:\w{6}|[0-9a-f]{8})$", re.ASCII)
"""What rsync and rclone put behind a name."""
_SUFFIX = re.compile(r"\.[a-z]\w{0,4}$", re.ASCII | re.IGNORECASE)


def is_unfinished(name: str) -> bool:
    """Return whether a name, or a folder in it, is one that a file has before it is there, or a hidden one.

    Example:
        >>> [is_unfinished(name) for name in ("a/x.dcm.part", "a/.x.dcm.Xy12ab", ".sync/x.dcm", "a/x.dcm")]
        [True, True, True, False]
    """
    return any(map(_UNFINISHED.fullmatch, name.split("/")))


def is_finished(unfinished: str, name: str) -> bool:
    """Return whether a name is what a file of an unfinished name is called when it is there.

    Example:
        >>> [is_finished("a/x.part", name) for name in ("a/x.dcm", "a/x", "a/y.dcm", "b/x.dcm")]
        [True, True, False, False]
    """
    folder, _, marked = unfinished.rpartition("/")
    parent, _, last = name.rpartition("/")
    plain = _MARKS.sub("", marked)
    return folder == parent and bool({plain, _BY_CHANCE.sub("", plain)} & {last, _SUFFIX.sub("", last)})


def finished_stem(unfinished: str) -> str:
    """Return what every name begins with that a file of an unfinished name may have when it is there."""
    folder, slash, marked = unfinished.rpartition("/")
    return f"{folder}{slash}{_BY_CHANCE.sub('', _MARKS.sub('', marked))}"


def discover(root: Path, *, exclude: Sequence[Path] = (), follow_links: bool = False) -> tuple[FileRef, ...]:
    """List every file at or below a path, as `walk` finds them.

    Args:
        root: A file or a folder.
        exclude: Files or folders to leave out with all they hold, such as the output folder.
        follow_links: Whether links out of the root are followed, as in `walk`.

    Returns:
        One entry per path, sorted by the bytes of the relative name. Entries that cannot be opened carry a problem.

    Raises:
        MedclipError: MISSING_FILE if `root` does not exist.
    """
    return tuple(sorted(walk(root, exclude=exclude, follow_links=follow_links), key=lambda ref: ref.name.encode()))


def walk(root: Path, *, exclude: Sequence[Path] = (), follow_links: bool = False) -> Iterator[FileRef]:
    """Yield every file at or below a path, folder by folder: the files of a folder, then its sub-folders.

    Names of one folder are held in memory, and of the folders above it; nothing else is.

    A link that leads out of the root is one entry with LINK_OUTSIDE: whoever may put files into a folder must not
    choose what else is read. With `follow_links` it is followed. The root itself may be a link.

    Links to folders are followed after all real folders have been listed, each folder once: a link that leads to a
    folder already listed (a loop among them) becomes one entry with LINK_LOOP. A folder below the root that holds the
    ledger of a medclip run is an output folder and is left out with all it holds; only that ledger is ever opened. What
    a killed medclip left half written is passed over. A folder whose path is longer than the system takes is one entry.

    Args:
        root: A file or a folder.
        exclude: Files or folders to leave out with all they hold; one that does not exist is none.
        follow_links: Whether links out of the root are followed.

    Yields:
        One entry per path, in the order of `FileRef.place`, which depends on names only.

    Raises:
        MedclipError: MISSING_FILE if `root` does not exist.
    """
    refuse_missing(root)
    limits = None if follow_links else os.path.join(os.path.realpath(root), "")
    walk = _Walk({_inode(status) for path in exclude if (status := _status(path)) is not None}, limits)
    if not root.is_dir():
        yield from walk.entry(root, root.name, ("", (0, root.name)), [], is_link=False)
        return
    yield from walk.folder(_Folder(root, "", ("",)))
    while walk.links:
        walk.links.sort(key=lambda link: os.fsencode(link.name))
        yield from walk.link(walk.links.pop(0))


@dataclass(frozen=True)
class _Folder:
    path: Path
    name: str
    place: tuple[Any, ...]


@dataclass
class _Walk:
    exclude: set[int]
    limits: str | None = None
    """The real path of the root with a slash; None where links may lead out of it."""
    links: list[_Folder] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def folder(self, top: _Folder) -> Iterator[FileRef]:
        """List a folder and the real folders below it; links to folders wait."""
        levels: list[Iterator[_Folder]] = [iter([top])]  # of folders beside each other names alone are kept
        while levels:
            folder = next(levels[-1], None)
            if folder is None:
                levels.pop()
                continue
            below: list[str] = []
            yield from self._one(folder, below)
            levels.append(_folders_below(folder, below))

    def _one(self, folder: _Folder, below: list[str]) -> Iterator[FileRef]:
        try:
            status = folder.path.stat()
            self.seen.add(_inode(status))
            with os.scandir(folder.path) as entries:
                is_link = {entry.name: entry.is_symlink() for entry in entries if not is_draft(entry.name)}
        except OSError as error:
            yield _ref(folder.path, folder.name or folder.path.name, folder.place, problem=_folder_problem(error))
            return
        if folder.name and LEDGER in is_link and (folder.path / LEDGER).is_file() and _is_ledger(folder.path / LEDGER):
            return
        for child in sorted(is_link):
            name = f"{folder.name}/{child}" if folder.name else child
            place = (*folder.place, (0, child))
            yield from self.entry(folder.path / child, name, place, below, is_link=is_link[child])

    def entry(
        self, path: Path, name: str, place: tuple[Any, ...], below: list[str], *, is_link: bool
    ) -> Iterator[FileRef]:
        """Sort one path into file, folder (its name goes to `below`), link to a folder or something else."""
        try:
            status = path.stat()
        except OSError as error:
            yield _ref(path, name, place, problem=_link_problem(path, error))
            return
        if _inode(status) in self.exclude:
            return
        if is_link and self.limits is not None and not os.path.join(os.path.realpath(path), "").startswith(self.limits):
            yield _ref(path, name, place, problem=_OUTSIDE)
            return
        stamp = Stamp.of(status)
        if stat.S_ISDIR(status.st_mode):
            child = place[-1][1]
            if is_link:
                self.links.append(_Folder(path, name, (*place[:-1], (1, child))))
            else:
                below.append(child)
        elif not stat.S_ISREG(status.st_mode):
            problem = Problem(Reason.NOT_A_FILE, "the path is a pipe, socket or device, not an ordinary file.")
            yield _ref(path, name, place, problem=problem)
        elif not os.access(path, os.R_OK):
            problem = Problem(Reason.PERMISSION_DENIED, "the file may not be read; check its permissions.")
            yield _ref(path, name, place, stamp, problem)
        else:
            yield _ref(path, name, place, stamp)

    def link(self, link: _Folder) -> Iterator[FileRef]:
        """Follow a link to a folder unless that folder has been listed."""
        place = (link.name,)
        try:
            status = link.path.stat()
        except OSError as error:
            yield _ref(link.path, link.name, place, problem=_link_problem(link.path, error))
            return
        if _inode(status) in self.seen:
            message = "the link leads to a folder that is listed already, so it is not followed again."
            yield _ref(link.path, link.name, place, problem=Problem(Reason.LINK_LOOP, message))
            return
        yield from self.folder(replace(link, place=place))


_OUTSIDE = Problem(
    Reason.LINK_OUTSIDE,
    "the link leads out of the folder that was named, and is not followed; name what it leads to, or allow it with "
    "follow_links = true below [limits] of medclip.toml (in Python: Settings(follow_links=True)).",
)


def _inode(status: os.stat_result) -> int:
    """Return one number for a device and a file on it: of a million folders half the memory of a pair."""
    return status.st_dev << 64 | status.st_ino


def _folders_below(folder: _Folder, names: list[str]) -> Iterator[_Folder]:
    for child in names:
        name = f"{folder.name}/{child}" if folder.name else child
        yield _Folder(folder.path / child, name, (*folder.place, (1, child)))


def spelled_name(name: str) -> str:
    r"""Return a name as every table can hold it: bytes that are not UTF-8 are written as \xNN.

    So is the backslash of a name that has \xNN in it already: no two names are written alike.
    """
    raw = _SPELLED.sub(lambda match: _BACKSLASH + match[0][1:], os.fsencode(name))
    return raw.decode("utf-8", "backslashreplace")


def name_of_spelled(spelled: str) -> str:
    """Return the name on the disk of what `spelled_name` wrote."""
    return os.fsdecode(_SPELLED.sub(lambda match: bytes.fromhex(match[1].decode()), spelled.encode()))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _ref(
    path: Path, name: str, place: tuple[Any, ...], stamp: Stamp = NO_STAMP, problem: Problem | None = None
) -> FileRef:
    return FileRef(path, spelled_name(name), stamp.size_bytes, problem, stamp, place)


def _is_ledger(path: Path) -> bool:
    """Return whether an SQLite database has the tables of a medclip run.

    Those of a run that was killed may still lie in the write-ahead log beside the database.
    """
    schema = _head(path) + _head(path.with_name(f"{path.name}-wal"))
    return all(b"CREATE TABLE " + table in schema for table in (b"meta", b"files", b"scores"))


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
    if os.path.islink(path):
        return Problem(Reason.LINK_LOOP, "the link leads back to itself.")
    return Problem(Reason.READ_ERROR, f"the path could not be looked at ({error.strerror}).")


# Which files of a folder that others write to have come whole: those that nothing has touched for a while.
#
# A file counts as moving until its size, its time of change and its time of status change have been the same for
# `settle_s` seconds. What lies in one folder belongs together (a study, a series), so that a folder with a moving
# file in it is held back as a whole, but not for ever: files of a folder that something always comes into, such as
# the one that is watched, are held back one by one.
#
# A file or folder whose name is hidden or unfinished is left out until it has its real name, also one that is still.
#
# Limits: a sender that pauses longer than `settle_s` in the middle of a file is taken to have finished. The file is
# then read as it is, and again when it has changed.

_MOST_HELD = 20
"""A folder is held back for at most so many times `settle_s`."""


@dataclass(frozen=True)
class Look:
    """What a folder looked like at one moment."""

    num_still: int
    """Files that may be read."""
    digest: str
    """Changes when another file may be read, or one that may be read has changed."""
    moving: tuple[Path, ...]
    """Files and folders that are to be left out, since they are not still."""
    waiting: tuple[Path, ...] = ()
    """Files and folders that are left out until something else comes, such as their real names: nobody waits for them.
    """
    num_waiting: int = 0
    """Files of unfinished names that are still."""


@dataclass
class Stillness:
    """Looks at a folder again and again.

    Args:
        root: The folder.
        settle_s: Seconds for which nothing may have changed.
        exclude: Folders that are no part of it, such as an output folder.
        now: Function that returns seconds since the epoch.
        follow_links: Whether links out of the root are followed, as in `medclip.files.discover.walk`.
    """

    root: Path
    settle_s: float
    exclude: Sequence[Path] = ()
    now: Callable[[], float] = time.time
    follow_links: bool = False
    _seen: dict[str, tuple[tuple[int, int, int], float]] = field(default_factory=dict)
    """Files that moved at the last look: size and times, and since when they are so."""
    _held: dict[str, float] = field(default_factory=dict)
    """Folders that were held back at the last look, and since when."""

    def look(self) -> Look:
        """Look at every file.

        Raises:
            MedclipError: MISSING_FILE where the folder is gone.
        """
        now = self.now()
        seen: dict[str, tuple[tuple[int, int, int], float]] = {}
        held: dict[str, float] = {}
        moving: list[Path] = []
        moving_in: set[str] = set()
        waiting: dict[str, bool] = {}
        for ref in walk(self.root, exclude=self.exclude, follow_links=self.follow_links):
            place, moves = self._unfinished_part(ref.name), ref.problem is None and self._moves(ref, now, seen)
            if place:
                waiting[place] = waiting.get(place, True) and not moves
            if moves:
                moving.append(ref.path)
                moving_in.add((place or ref.name).rpartition("/")[0])
        unfinished = tuple(self.root / name_of_spelled(name) for name in waiting)
        for folder in moving_in - {""}:
            since = self._held.get(folder, now)
            held[folder] = since
            if now - since <= _MOST_HELD * self.settle_s:
                moving.append(self.root / folder)
        self._seen, self._held = seen, held
        num_still, state = 0, hashlib.sha256()
        left_out = (*self.exclude, *moving, *unfinished)
        for ref in walk(self.root, exclude=left_out, follow_links=self.follow_links):
            num_still += 1
            state.update(f"{ref.name}\0{ref.stamp}\n".encode())
        return Look(num_still, state.hexdigest(), tuple(moving), unfinished, sum(waiting.values()))

    def settle(self) -> None:
        """Take note that what was looked at last has been read: nothing, here."""

    def _moves(self, ref: FileRef, now: float, seen: dict[str, tuple[tuple[int, int, int], float]]) -> bool:
        try:
            status = os.stat(ref.path)
        except OSError:  # gone since it was listed
            return True
        if now - status.st_ctime >= self.settle_s:
            return False
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        before, since = self._seen.get(ref.name, (state, now))
        since = since if before == state else now
        seen[ref.name] = (state, since)  # also by our own clock, where that of a network drive is another one
        return now - since < self.settle_s

    def _unfinished_part(self, name: str) -> str:
        """Return a name up to its first part that is unfinished; "" where none is.

        Nor where that is a link: what it leads to, which may have a real name, would be left out with it.
        """
        parts = name.split("/")
        num_parts = next((at for at, part in enumerate(parts, 1) if is_unfinished(part)), 0)
        place = "/".join(parts[:num_parts])
        return "" if place and (self.root / name_of_spelled(place)).is_symlink() else place

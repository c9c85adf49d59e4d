"""Where a folder of a model goes and where a fault of one lies: outputs refused early, errors given a place."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.discover import LEDGER


@contextmanager
def naming(place: Path | str, instead: Path | None = None) -> Iterator[None]:
    """Name a place in errors that do not name one yet.

    Args:
        place: What the user named.
        instead: A folder of ours whose files mean nothing to the user: errors that name one of them name `place`.
    """
    try:
        yield
    except MedclipError as e:
        inner = instead is not None and e.where is not None and Path(e.where).is_relative_to(instead)
        if e.where is not None and not inner:
            raise
        raise MedclipError(e.reason, e.message, where=place, hint=e.hint) from e


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also for a name that no file system takes."""
    with suppress(OSError):
        return path.is_dir()
    return False


def is_file(path: Path) -> bool:
    """Whether there is a file; False also for a name that no file system takes."""
    with suppress(OSError):
        return path.is_file()
    return False


def check_out(out: Path, kind: str) -> None:
    """Refuse a place where no folder can be made, before any work is done.

    Args:
        out: The folder to make; it may be there already.
        kind: What it will hold, for the error: "model pack".

    Raises:
        MedclipError: WRONG_USE where there is no name, a file, a file above it or a name that is too long.
    """
    if out.name in ("", ".."):
        raise MedclipError(
            Reason.WRONG_USE, f"{str(out)!r} names no folder of its own for the {kind}.", hint="Name a new folder."
        )
    with disk_faults(out, "folder"):
        _beside(out, "tmp").exists()  # says it where the longer of the two names is too long
        above = next(p for p in (out, *out.parents) if p.exists())
    if not above.is_dir():
        what = "this is a file" if above == out else f"{above.name} is a file"
        raise MedclipError(Reason.WRONG_USE, f"{what}; the {kind} is a folder.", where=out, hint="Name a new folder.")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out` that takes its place at the end; what was there goes. On errors nothing changes.

    Raises:
        MedclipError: DISK_FULL, PERMISSION_DENIED or WRONG_USE where it cannot be written.
    """
    fresh = _beside(out, "tmp")
    try:
        with disk_faults(out, "folder"):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            yield fresh
            if out.exists():
                old = _beside(out, "old")
                out.rename(old)
                fresh.rename(out)
                shutil.rmtree(old)
            else:
                fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _beside(out: Path, ending: str) -> Path:
    return out.parent / f".{out.name}.{os.getpid()}.{ending}"


_NO_PLACE = {
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EEXIST: "a file stands where a folder should be",
    errno.ENOENT: "there can be nothing at this place",
    errno.EROFS: "this file system is read-only",
}


@contextmanager
def disk_faults(where: Path, kind: str) -> Iterator[None]:
    """Say what a full disk or a missing permission means for an output (`kind`: "file" or "folder").

    Raises:
        MedclipError: DISK_FULL, PERMISSION_DENIED, or WRONG_USE for a place where nothing can be written.
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MedclipError(
                Reason.DISK_FULL, "the disk is full; nothing was kept.", where=where, hint="Make room and run again."
            ) from e
        if isinstance(e, PermissionError):
            raise MedclipError(Reason.PERMISSION_DENIED, f"the {kind} cannot be written.", where=where) from e
        if e.errno in _NO_PLACE:
            why = f"the {kind} cannot be written: {_NO_PLACE[e.errno]}."
            raise MedclipError(Reason.WRONG_USE, why, where=where, hint="Name another --out.") from e
        raise


_NO_ROOM_BYTES = 1_000_000


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk and a locked or foreign ledger into one sentence each."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "full" in text or ("disk I/O" in text and shutil.disk_usage(folder).free < _NO_ROOM_BYTES):
            raise _disk_full(folder) from error
        if "locked" in text:
            raise MedclipError(
                Reason.OUTPUT_IN_USE, "another medclip is writing to this folder.", where=folder, hint="Let it finish."
            ) from error
        if "not a database" in text or "malformed" in text:
            raise MedclipError(
                Reason.OUTPUT_IN_USE,
                f"{LEDGER} in this folder is not a ledger that medclip can read.",
                where=folder,
                hint="Name another output folder.",
            ) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(folder) from error
        raise


def _disk_full(folder: Path) -> MedclipError:
    return MedclipError(
        Reason.DISK_FULL,
        "the disk is full; what was finished before is kept.",
        where=folder,
        hint="Make room and run the same command again to go on.",
    )

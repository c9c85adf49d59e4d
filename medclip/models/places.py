"""Where a folder of a model goes and where a fault of one lies: outputs refused early, errors given a place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.shards.folder import disk_faults


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

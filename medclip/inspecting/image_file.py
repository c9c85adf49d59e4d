"""The file of a picture: refused where it cannot be written or is an input, put in place in one step."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.discover import discover
from medclip.files.output import disk_errors
from medclip.runs.identity import check_writable


def check_target(target: Path, root: Path) -> None:
    """Refuse a picture that cannot be written, or must not be; called before anything is decoded.

    Args:
        target: The PNG.
        root: The file or folder that is looked at; none of its files is replaced.

    Raises:
        MedclipError: WRONG_USE, PERMISSION_DENIED, DISK_FULL.
    """
    if os.path.isdir(target):
        raise MedclipError(
            Reason.WRONG_USE, "this is a folder.", where=target, hint="Name the picture, such as FOLDER/view.png."
        )
    if target.suffix.lower() != ".png":
        raise MedclipError(Reason.WRONG_USE, "the picture is a PNG; its name ends in .png.", where=target)
    check_writable(target.parent, target.name)
    if not os.path.exists(target):
        return
    if not target.is_file():
        raise MedclipError(Reason.WRONG_USE, "this is no file that could be replaced.", where=target)
    if not os.access(target, os.W_OK):
        raise MedclipError(Reason.PERMISSION_DENIED, "this file may not be replaced.", where=target)
    refuse_input(target, (ref.path for ref in discover(root)))


def refuse_input(target: Path, paths: Iterable[Path]) -> None:
    """Refuse to replace one of the files that are looked at, by whatever name or link it is reached.

    Raises:
        MedclipError: WRONG_USE.
    """
    try:
        own = os.stat(target)
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), own):
                raise MedclipError(
                    Reason.WRONG_USE,
                    "this is one of the files to look at, and it would be lost.",
                    where=target,
                    hint="Name another file for the picture.",
                )


def put(body: bytes, target: Path) -> None:
    """Put the picture in place in one step: whoever looks sees the old file or the new one, never a part.

    Raises:
        MedclipError: PERMISSION_DENIED, DISK_FULL.
    """
    draft = target.with_name(f".medclip-{uuid.uuid4().hex[:12]}.part")
    try:
        with disk_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(body)
            os.replace(draft, target)
    except OSError:
        raise MedclipError(Reason.PERMISSION_DENIED, "the picture cannot be written here.", where=target) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)

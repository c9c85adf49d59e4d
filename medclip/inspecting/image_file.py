"""The file of an image: refused where it cannot be written or is an input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from medclip.errors import MedclipError, Reason
from medclip.files.discover import discover
from medclip.files.output import claim_file


def check_target(target: Path, root: Path, *, overwrite: bool) -> None:
    """Refuse an image that cannot be written, or must not be; called before anything is decoded.

    Args:
        target: Path of the PNG.
        root: File or folder that is looked at; none of its files is replaced.
        overwrite: Whether another file may be replaced.

    Raises:
        MedclipError: WRONG_USE; as `medclip.files.output.claim_file`.
    """
    if target.suffix.lower() != ".png" and not os.path.isdir(target):
        raise MedclipError(Reason.WRONG_USE, "the image is a PNG; its name ends in .png.", where=target)
    if os.path.isfile(target):
        refuse_input(target, (ref.path for ref in discover(root)))
    claim_file(target, overwrite=overwrite)


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
                    hint="Name another file for the image.",
                )

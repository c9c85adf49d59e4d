"""Whether what a call names is there, and who may read what medclip writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from medclip.errors import MedclipError, Reason

# Whether what a call names is there: asked before anything heavy is imported, so that a slip is answered at once.


def refuse_missing(path: object, what: str = "file or folder") -> None:
    """Refuse a path where there is nothing. What is no path (a data frame, None) passes.

    Args:
        path: A path, or another value that may stand in its place.
        what: Name of what the path should be, for the sentence.

    Raises:
        MedclipError: MISSING_FILE.
    """
    if isinstance(path, (str, os.PathLike)) and not os.path.lexists(path):  # takes any name; Path.exists does not
        is_pacs = str(path).startswith(("dicomweb:/", "dicomwebs:/"))
        hint = "A PACS is read by medclip score and medclip embed." if is_pacs else "Check the path."
        if str(path).startswith("dicom:/"):
            hint = "What is sent by DIMSE is received by medclip watch."
        raise MedclipError(Reason.MISSING_FILE, f"there is no such {what}.", where=path, hint=hint)


# Who may read what medclip writes: its owner alone, or its owner's group where MEDCLIP_SHARE says so.

SHARE = "MEDCLIP_SHARE"


class FileModes(NamedTuple):
    """Permissions of what is new."""

    file: int
    folder: int
    umask: int
    """For what libraries write by themselves."""


PRIVATE = FileModes(0o600, 0o700, 0o077)
_OF_GROUP = FileModes(0o640, 0o750, 0o027)


def file_modes() -> FileModes:
    """Return the permissions of new files and folders, whatever the umask is.

    Raises:
        MedclipError: WRONG_USE for a value of MEDCLIP_SHARE that is none.
    """
    word = os.environ.get(SHARE, "")
    if word not in ("", "none", "group"):
        raise MedclipError(
            Reason.WRONG_USE,
            f"{SHARE} is {word!r}, and is none or group.",
            hint="With group, the group of a folder may read what is written there; none is the default.",
        )
    return _OF_GROUP if word == "group" else PRIVATE


def remedy_of_owner(path: Path) -> str:
    """Return a sentence that says whose a path is that this process may not use; "" where it is its own.

    A folder that is mounted into a container belongs to a user of the host, who is seldom that of the image.
    """
    nearest = next((place for place in (path, *path.absolute().parents) if os.path.exists(place)), None)
    if nearest is None or not hasattr(os, "geteuid"):
        return ""
    status, user = os.stat(nearest), os.geteuid()
    if status.st_uid == user:
        return ""
    if status.st_uid == 0:
        return f"It belongs to root, and this is user {user}: let that user write there."
    owner = f"{status.st_uid}:{status.st_gid}"
    return (
        f"It belongs to user {status.st_uid}, and this is user {user}: run as the owner (a container: --user {owner})."
    )

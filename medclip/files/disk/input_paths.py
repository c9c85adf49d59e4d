"""Whether what a call names is there: asked before anything heavy is imported, so that a slip is answered at once."""

from __future__ import annotations

import os

from medclip.errors import MedclipError, Reason


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
        raise MedclipError(Reason.MISSING_FILE, f"there is no such {what}.", where=path, hint=hint)

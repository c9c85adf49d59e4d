"""What lies where an adaptation is written to: only what is another run of the same one is replaced unasked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.models.packs.manifest import FILE_NAME as MANIFEST


def apart(places: Mapping[str, Path | None]) -> None:
    """Refuse folders of which one is another or lies in another.

    Args:
        places: Folder by what it is called: {"--out": ..., "the base": ...}.

    Raises:
        MedclipError: WRONG_USE.
    """
    whole = [(name, path.resolve()) for name, path in places.items() if path is not None]
    for n, (name, path) in enumerate(whole):
        for other, second in whole[:n]:
            if path.is_relative_to(second) or second.is_relative_to(path):
                how = "are the same folder" if path == second else "lie one inside the other"
                raise MedclipError(
                    Reason.WRONG_USE, f"{other} and {name} {how}.", where=path, hint="Name a new folder beside it."
                )


def manifest_digest(pack: Path) -> str | None:
    """Give sha256 of a pack's manifest; None where there is none."""
    try:
        return hashlib.sha256((pack / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None


def refuse_other(folder: Path, there: Mapping[str, Any] | None, asked: Mapping[str, Any], what: str) -> None:
    """Refuse to replace something else than another run of the same adaptation.

    Args:
        folder: Where it is written to.
        there: Facts of what lies there; None where nothing of ours does, or it cannot be read.
        asked: The facts that are known of what is written; a mapping is compared in the keys that it has.
        what: "pack" or "checkpoint".

    Raises:
        MedclipError: OUTPUT_IN_USE.
    """
    if there is None or not _within(asked, there):
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"another {what} lies here: of another base, task, method, draw or settings.",
            where=folder,
            hint="Name another folder, or replace it with --overwrite (overwrite=True).",
        )


def _within(asked: Any, there: Any) -> bool:
    """Whether all that is asked stands there, too; as JSON writes both."""
    if isinstance(asked, Mapping) and isinstance(there, Mapping):
        return all(key in there and _within(value, there[key]) for key, value in asked.items())
    return asked == there or json.dumps(asked, default=str) == json.dumps(there, default=str)

"""Where results are written: whether that can be, whose folder it is, and what makes two calls the same run."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.output import disk_errors
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.manifest import read_manifest
from medclip.runs.ledger import FILE_NAME, Ledger
from medclip.runs.options import ScoreOptions
from medclip.runs.plan import Plan
from medclip.settings import Settings
from medclip.wording import count, list_of

_LABELS = {
    "files": "the files",
    "num_files": "the number of files",
    "pack": "the model",
    "tasks": "the tasks",
    "prompt": "the prompt",
    "against": "what the prompt is compared with",
    "table": "the table",
    "modality": "--modality",
    "min_confidence": "--min-confidence",
    "group_by": "--group-by",
    "key": "the identity key",
    "limits": "the limits",
    "policy": "--uneven or --mpp",
    "version": "the version of medclip",
}


def check_output(folder: Path, root: Path) -> bool:
    """Make sure that an output folder can take a run, without changing anything.

    Args:
        folder: The folder; it need not exist.
        root: What is to be scored.

    Returns:
        Whether it already holds a run of medclip.

    Raises:
        MedclipError: OUTPUT_IN_USE when there is something else in it; WRONG_USE when it is the input or no folder, or
            cannot be one; PERMISSION_DENIED when it cannot be written.
    """
    there = os.path.exists(folder)  # Path.exists() raises for a name that is too long
    if there and not folder.is_dir():
        raise MedclipError(Reason.WRONG_USE, "the output is a folder, and this is a file.", where=folder)
    if there and os.path.exists(root) and folder.resolve() == root.resolve():
        raise MedclipError(
            Reason.WRONG_USE, "the output folder is the folder to score.", where=folder, hint="Name another one."
        )
    check_writable(folder)
    try:
        names = {entry.name for entry in folder.iterdir()} if there else set()
    except OSError:
        raise MedclipError(Reason.PERMISSION_DENIED, "this folder may not be listed.", where=folder) from None
    if names and FILE_NAME not in names:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"this folder holds {count(len(names), 'other file')} and no run of medclip; nothing was changed.",
            where=folder,
            hint="Name an empty or new folder.",
        )
    return FILE_NAME in names


def check_writable(folder: Path, name: str = "") -> None:
    """Make sure that a folder, and a file of a name in it, could be made; nothing is left behind.

    Permissions do not tell: root may write everywhere, and yet nothing can be made in /proc. So a file without a name
    is made in the nearest folder that exists.

    Args:
        folder: The folder; it need not exist.
        name: The file that is to be written there.

    Raises:
        MedclipError: WRONG_USE for names that are too long, and where a file stands in the way; PERMISSION_DENIED,
            DISK_FULL.
    """
    whole = folder.absolute()
    nearest = next(place for place in (whole, *whole.parents) if os.path.exists(place))
    if not nearest.is_dir():
        raise MedclipError(Reason.WRONG_USE, "this is a file, so that no folder can be made in it.", where=nearest)
    longest, whole_path = _limits(nearest)
    new = [*whole.relative_to(nearest).parts, name]
    if max(len(os.fsencode(part)) for part in new) > longest or len(os.fsencode(whole / name)) >= whole_path:
        raise MedclipError(
            Reason.WRONG_USE,
            f"the name of the output is too long; here a name has at most {longest} bytes.",
            where=nearest,
            hint="Name a shorter one.",
        )
    try:
        with disk_errors(nearest), tempfile.TemporaryFile(dir=nearest):
            pass
    except (OSError, ValueError):  # ValueError: a NUL in the name
        raise MedclipError(
            Reason.PERMISSION_DENIED, "nothing can be written in this folder.", where=nearest, hint="Name another one."
        ) from None


def _limits(folder: Path) -> tuple[int, int]:
    """Return the most bytes that a name in a folder and a whole path may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 255, 4096


def run_identity(
    plan: Plan, options: ScoreOptions, *, pack: str, tasks: list[str], version: str, key: bytes, settings: Settings
) -> dict[str, Any]:
    """Return what a run is: equal identity, equal bytes in the output. Holds hashes and options, no path.

    Args:
        plan: The planned files.
        options: The caller's wishes.
        pack: Name and hash of the model pack.
        tasks: The tasks as resolved.
        version: Version of medclip.
        key: Identity key; only a hash of it goes in, since study keys depend on it.
        settings: Limits that decide rows.
    """
    return {
        "files": plan.digest,
        "num_files": len(plan.files),
        "pack": pack,
        "tasks": tasks,
        "prompt": options.prompt,
        "against": options.against,
        "table": _table_hash(options.table),
        "modality": None if options.modality is None else str(options.modality),
        "min_confidence": options.min_confidence,
        "group_by": options.group_by,
        "key": keyed_hash("run", "identity", key),
        "limits": [settings.max_pixels, settings.max_file_bytes, settings.max_volume_bytes],
        "policy": dict(settings.policy.changes()),
        "version": version,
    }


def _table_hash(table: Any) -> str:
    """Hash a table's bytes; of a data frame, what was understood of it."""
    if table is None:
        return ""
    body = table.read_bytes() if isinstance(table, Path) else repr(read_manifest(table).rows).encode()
    return hashlib.sha256(body).hexdigest()


def claim(ledger: Ledger, identity: dict[str, Any], folder: Path) -> None:
    """Bind a new ledger to a run, or check that it is this run's.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    known = ledger.get("identity")
    if known is None:
        ledger.put({"identity": identity})
        return
    differs = [_LABELS[name] for name in _LABELS if known.get(name) != identity.get(name)]
    if differs:
        raise MedclipError(
            Reason.OUTPUT_IN_USE,
            f"this folder holds another run: {list_of(differs)} {'differs' if len(differs) == 1 else 'differ'}; "
            "nothing was changed.",
            where=folder,
            hint="Name another output folder.",
        )

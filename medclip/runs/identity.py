"""What makes two calls the same run, so that the second goes on with the folder of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medclip.files.output import refuse_other
from medclip.files.pseudonyms import keyed_hash
from medclip.runs.ledger import Ledger
from medclip.runs.options import ScoreOptions
from medclip.runs.plan import Plan
from medclip.settings import Settings

_TITLES = {
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
    "policy": "--uneven, --mpp or --accept-unterminated",
    "version": "the version of medclip",
}


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
        "table": plan.table,
        "modality": None if options.modality is None else str(options.modality),
        "min_confidence": options.min_confidence,
        "group_by": options.group_by,
        "key": keyed_hash("run", "identity", key),
        "limits": [settings.max_pixels, settings.max_file_bytes, settings.max_volume_bytes],
        "policy": dict(settings.policy.changes()),
        "version": version,
    }


def claim(ledger: Ledger, identity: dict[str, Any], folder: Path) -> None:
    """Bind a new ledger to a run, or check that it is this run's.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    known = ledger.get("identity")
    if known is None:
        ledger.remember({"identity": identity})
    else:
        refuse_other(folder, "run", known, identity, titles=_TITLES)

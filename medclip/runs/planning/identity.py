"""What makes two calls the same run, so that the second goes on with the folder of the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medclip.files.output import refuse_other
from medclip.files.pseudonyms import keyed_hash
from medclip.files.tables.manifest import Manifest
from medclip.models.devices import default_batch, kind_of
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.planning.options import ScoreOptions
from medclip.settings import Settings

_TITLES = {
    "pack": "the model",
    "tasks": "the tasks",
    "prompts": "the prompts",
    "templates": "--templates",
    "exam": "--exam",
    "weeks": "--weeks",
    "table": "the table",
    "modality": "--modality",
    "min_confidence": "--min-confidence",
    "group_by": "--group-by",
    "key": "the identity key",
    "limits": "the limits",
    "hash_paths": "--hash-paths",
    "policy": "--reading",
    "version": "the version of medclip",
    "device": "--device",
    "batch_size": "--batch-size",
    "backend": "--backend",
    "command": "the command",
    "dtype": "--dtype",
    "embeddings": "the embeddings",
    "grid": "the size, scale, overlap, least coverage or origin of patches",
    "geojson": "--geojson",
    "source": "the server or the query",
    "qc": "--qc",
    "stain": "--stain",
}


def run_identity(
    options: ScoreOptions,
    *,
    manifest: Manifest | None,
    pack: str,
    version: str,
    key: bytes,
    settings: Settings,
    device: str = "cpu",
    batch_size: int | None = None,
    backend: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a run is besides its files, which the ledger knows. It holds hashes and options, no path.

    Device, batch size and back-end decide the last bits of a vector; those that go without saying are None.

    Args:
        options: The caller's wishes.
        manifest: Table that the options name, if any.
        pack: Name and hash of the model pack.
        version: Version of medclip.
        key: Identity key; only a hash of it goes in, since study keys depend on it.
        settings: Limits that decide rows.
        device: Device that the model computes on.
        batch_size: Images in one forward pass; None for the model's own number.
        backend: Identity of the back-end, `BackendChoice.identity()`; None for torch in float32.
    """
    return {
        "pack": pack,
        "table": "" if manifest is None else manifest.digest,
        "modality": None if options.modality is None else str(options.modality),
        "min_confidence": options.min_confidence,
        "group_by": options.group_by,
        "key": keyed_hash("run", "identity", key),
        "limits": [settings.max_pixels, settings.max_file_bytes, settings.max_volume_bytes],
        "hash_paths": options.hash_paths,
        "weeks": options.weeks or None,
        "policy": dict(settings.policy.changes()),
        "version": version,
        "device": None if device == "cpu" else kind_of(device),
        "batch_size": None if batch_size == default_batch(device) else batch_size,
        "backend": None if backend is None else dict(backend),
    }


def titles_of(names: Iterable[str]) -> list[str]:
    """Return what parts of a run's identity are called."""
    return [_TITLES[name] for name in names]


def claim(ledger: Ledger, identity: dict[str, Any], folder: Path) -> None:
    """Bind a new ledger to a run, or check that it is this run's.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    known = ledger.get("identity")
    if known is None:
        ledger.remember({"identity": identity})
    else:
        refuse_other_run(folder, known, identity)


def refuse_other_run(folder: Path, known: Mapping[str, Any], asked: Mapping[str, Any], **words: str) -> None:
    """Refuse to go on with a run that is not the same.

    Args:
        folder: Folder of the run.
        known: Identity of the run that the folder holds.
        asked: Identity of the run that the call asks for. A choice of reading that it does not name is another one,
            too.
        words: Further words of `refuse_other`, such as the remedy.

    Raises:
        MedclipError: OUTPUT_IN_USE, naming what differs.
    """
    identities = [{**each, "policy": sorted(each.get("policy", {}).items())} for each in (known, asked)]
    refuse_other(folder, "run", *identities, titles=_TITLES, **words)

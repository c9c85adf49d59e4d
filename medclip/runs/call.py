"""What a run over files is called with: the values that every verb has in common, what may not be in them, its pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclip.errors import MedclipError, Reason
from medclip.files.discover import RECEIVED, walk
from medclip.files.tables.manifest import Manifest, read_manifest
from medclip.models.backends.choice import BackendChoice
from medclip.models.devices import check_batch_size, check_device
from medclip.progress import Progress, Silent
from medclip.runs.engines.engine import Engine
from medclip.runs.operations.watch import RunWatch, current_watch
from medclip.runs.outputs.publication import Publication
from medclip.runs.planning.identity import RunShard
from medclip.runs.planning.listing import RemoteFiles
from medclip.runs.planning.options import ScoreOptions
from medclip.sample import FileRef
from medclip.settings import DEFAULT_MODEL, Settings

_OF_FILES = frozenset({"path", "table", "exclude"})
"""Arguments with names of files that are read."""


@dataclass(frozen=True)
class Call:
    """What every verb over files is called with."""

    root: Path
    """A file or folder."""
    folder: Path
    """Output folder: new, empty, or holding this same run, which then goes on."""
    given: tuple[FileRef, ...] | None = None
    """The files, by `FileRef.place`, where they were named one by one; `root` is then of no meaning."""
    model: Any = DEFAULT_MODEL
    """Name or folder of a model pack, or a loaded model of one."""
    options: ScoreOptions = field(default_factory=ScoreOptions)
    key_file: Path | None = None
    """Identity key to hash identifiers with, where it is not the one in the settings' home."""
    settings: Settings = field(default_factory=Settings)
    """Limits and number of reading processes."""
    progress: Progress = field(default_factory=Silent)
    add: bool = False
    """Take in files that came since an earlier call, and those that changed; rows of the others stay."""
    retry_failed: str | None = None
    """Try the files that failed once more: those of a reason, or all for ""."""
    device: str = "cpu"
    batch_size: int | None = None
    """Images in one forward pass; None for the model's own number."""
    exclude: tuple[Path, ...] = ()
    """Folders below `root` that are left out, beside the output folder."""
    backend: BackendChoice | None = None
    """What computes the images; None for torch in float32."""
    asked: Mapping[str, Any] | None = None
    """The arguments of the verb that the ledger can keep for `medclip.retry`; None for a verb that it is not of."""
    recipe: Mapping[str, Any] | None = None
    """What repeats it, as run.json has it: no path, no query; None for a verb that has none."""
    remote: RemoteFiles | None = None
    """The files, where they lie elsewhere; `root` is then the folder they are brought to."""
    watch: RunWatch = field(default_factory=current_watch)
    """Told how the run goes on, beside `progress`: its log, its metrics, where its time goes."""
    shard: RunShard | None = None
    """Do this shard of the run alone, and write no tables; None for all of it."""
    engine: Engine | None = None
    """Who computes the chunks; None for this process. It is no part of what the run is."""
    publication: Publication | None = None
    """Where in a store copies of the results go; None for none. It is no part of what the run is."""
    limit: int | None = None
    """Stop once so many files have their row; another call without it goes on. None for all files."""

    @property
    def asked_without_files(self) -> Mapping[str, Any]:
        """The arguments of the verb but those that name what is read, where any do."""
        return {name: value for name, value in (self.asked or {}).items() if name not in _OF_FILES or not value}

    def __post_init__(self) -> None:
        """Refuse a limit below one.

        Raises:
            MedclipError: WRONG_USE.
        """
        if self.limit is not None and self.limit < 1:
            raise MedclipError(Reason.WRONG_USE, f"a run is limited to 1 file or more, not to {self.limit}.")


def inputs_of_call(call: Call) -> dict[str, Path]:
    """Return what a call reads and may not be replaced, by what it is called."""
    is_received = call.root.parent == call.folder / RECEIVED
    return {"what is scored": call.root} if call.given is None and call.remote is None and not is_received else {}


def manifest_of_call(call: Call) -> Manifest | None:
    """Return the table of a call, which is read where a file or a data frame is named."""
    table = call.options.table
    return table if table is None or isinstance(table, Manifest) else read_manifest(table)


def num_files_of_call(call: Call) -> int | None:
    """Return how many files there are, where nothing need be counted."""
    if call.remote is not None:
        return call.remote.num_files
    return None if call.given is None else len(call.given)


def refuse_own_files(call: Call) -> None:
    """Refuse a log or metrics in the folder that is read: they would be files of the run, and change while it goes."""
    if call.given is not None:
        return
    root, outside = call.root.resolve(), [folder.resolve() for folder in (call.folder, *call.exclude)]
    for file in call.watch.files:
        place = file.resolve()
        if place.is_relative_to(root) and not any(place.is_relative_to(folder) for folder in outside):
            raise MedclipError(
                Reason.WRONG_USE,
                "the log lies in the folder that is read, and would be one of its files.",
                where=file,
                hint="Name a place outside it.",
            )


def refuse_empty(call: Call, manifest: Manifest | None) -> None:
    """Refuse a folder without a file before anything is written."""
    if call.given is not None:
        if not call.given:
            raise MedclipError(Reason.NOTHING_TO_DO, "no image was given.", hint="Give paths or arrays.")
        return
    if next(walk(call.root, exclude=(call.folder, *call.exclude)), None) is None and not (
        manifest is not None and manifest.rows
    ):
        raise MedclipError(
            Reason.NOTHING_TO_DO, "there is no file in this folder.", where=call.root, hint="Name another folder."
        )


@dataclass(frozen=True)
class RunPack:
    """The model pack of a run, checked and not loaded."""

    path: Path
    card: Any
    digest: str

    @property
    def identity(self) -> str:
        """Name, version and hash."""
        return f"{self.card.name} {self.card.version} {self.digest}"


def pack_of_run(model: Any, settings: Settings, device: str = "cpu", batch_size: int | None = None) -> RunPack:
    """Check all that can be checked of a run's model without loading it.

    Args:
        model: Name or folder of a pack, or a loaded model. A loaded model stands for its pack, which is loaded again:
            the run is bound to the pack's hashes.
        settings: Settings of the run; other pixels than models are trained with are refused.
        device: Device that the model is to compute on.
        batch_size: Images in one forward pass.

    Raises:
        MedclipError: WRONG_USE, PREPROCESSING_MISMATCH, and what `verify_pack` raises.
    """
    from medclip.models.packs.card import read_card
    from medclip.models.packs.manifest import pack_digest
    from medclip.models.packs.pack import find_pack, verify_pack

    if "pixels" in settings.policy.changes():
        raise MedclipError(
            Reason.PREPROCESSING_MISMATCH,
            "the settings ask for other pixels than models are trained with.",
            hint="Score with the default PixelPolicy; medclip.open_study and medclip.view take any.",
        )
    check_batch_size(batch_size)
    named = getattr(model, "path", model)
    if not isinstance(named, (str, Path)):
        raise MedclipError(
            Reason.WRONG_USE,
            f"a model is named by a pack's name or folder, or is a loaded model, not {type(model).__name__}.",
        )
    pack = find_pack(named)
    check_device(device)
    verify_pack(pack)
    return RunPack(pack, read_card(pack), pack_digest(pack))


def pack_of_call(call: Call) -> RunPack:
    """Check the model of a call; of an engine that computes elsewhere, which checks its own, not the device."""
    device = call.device if call.engine is None else "cpu"
    return pack_of_run(call.model, call.settings, device, call.batch_size)

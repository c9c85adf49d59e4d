"""What a run would do: its files are looked at, grouped and matched with the model, and no pixel is decoded.

The rows are made by the code of the run itself, in a ledger that goes with the call. What only pixels tell stays open:
a modality that is inferred, an image that turns out to be cut off.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError
from medclip.files.discover import LEDGER
from medclip.files.disk.temporary_folder import TemporaryFolder
from medclip.files.output import claim_folder
from medclip.files.pseudonyms import KEY_NAME, hashed_path, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.stores.inventory import Inventory
from medclip.files.tables.write import schema_of, table_of
from medclip.runs.call import Call, RunPack, inputs_of_call, manifest_of_call, refuse_empty
from medclip.runs.conduct import looker_of_call, worker_plan
from medclip.runs.engines.engine import load_run_model
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow
from medclip.runs.units.chunk import ChunkWork, items_of
from medclip.runs.verb import Verb

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Preview:
    """What a run would do."""

    counts: dict[str, int]
    """As those of a run; "scored" are the files that would be read."""
    formats: Mapping[str, int]
    """Files that would be read, by format."""
    modalities: Mapping[str, int]
    """The same by modality; "to be inferred" where only the pixels will tell."""
    reasons: Mapping[str, Mapping[str, int]]
    """Files that would not be read, by status and reason."""
    done_before: int
    """Files that an earlier call on the output folder has dealt with, by number; they are counted above, too."""
    files: pyarrow.Table
    """One row per file, as in files.parquet, without what only pixels tell; none of files that lie elsewhere."""
    listed: Inventory | None = None
    """Of a PACS or a store: what it says that it has. Nothing is fetched, so that all else stays open; `counts` has its
    files and studies."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the rows."""
        names = ("formats", "modalities", "reasons", "done_before")
        listed = {} if self.listed is None else {"listed": self.listed.to_json()}
        return {name: getattr(self, name) for name in names} | listed


def preview(call: Call, pack: RunPack, verb: Verb) -> Preview:
    """Look at the files of a run and return what it would do. Nothing is written, not even an identity key.

    Args:
        call: Files and options of the run.
        pack: Model of the run.
        verb: Verb that the run would carry out.
    """
    settings, options = call.settings, call.options
    holds_run = claim_folder(call.folder, "run of medclip", marks=(LEDGER, *verb.beside), inputs=inputs_of_call(call))
    is_kept = call.key_file is not None or (settings.home / KEY_NAME).exists()
    key = load_key(settings, path=call.key_file) if is_kept else secrets.token_bytes(32)
    manifest = manifest_of_call(call)
    done_before = 0
    if holds_run:
        with suppress(MedclipError), Ledger(call.folder, create=False) as ledger:
            done_before = ledger.num_done()
    if call.remote is not None:
        return _listed(call, call.remote.inventory(), done_before)
    refuse_empty(call, manifest)
    with (
        TemporaryFolder("dry-run") as scratch,
        Ledger(Path(scratch)) as ledger,
        ReadingPool.of(settings, note=call.progress.note) as pool,
        ThreadPoolExecutor(1) as encoders,
    ):
        loading = encoders.submit(load_run_model, pack.path, call)
        looker = looker_of_call(call, verb, ledger, pool, manifest, key)
        looker.begin(call.folder, add=False, retry=None)
        call.progress.stage("Looking at files", 1)
        context = worker_plan(call, pack, verb, key).context(loading.result(), pool, encoders, 1, call.progress)
        for chunk in looker.chunks():
            work = ChunkWork(context, chunk, items_of(chunk))
            for item in work.items:
                item.problem = item.problem or context.unread(item)
                if item.problem is None and item.modality is not None:
                    item.problem = context.answers.refuse(item.modality, item.body_part, item.kind)
            ledger.commit(work.result())
        call.progress.step()
        ledger.number()
        if options.hash_paths:
            ledger.hash_names(partial(hashed_path, key=key))
        modalities = ledger.counts_by("modality")
        counts = ledger.counts()
        call.watch.previewed(counts)
        return Preview(
            counts=counts,
            formats=ledger.counts_by("format"),
            modalities={("to be inferred" if name == "None" else name): num for name, num in modalities.items()},
            reasons={status: ledger.counts_by("reason", status) for status in ("failed", "skipped")},
            done_before=done_before,
            files=table_of(ledger.files(), FileRow, schema_of(FileRow)),
        )


def _listed(call: Call, inventory: Inventory, done_before: int) -> Preview:
    """Return what is known of files that lie elsewhere: what their source says."""
    counts = {
        "files": inventory.num_files,
        "scored": 0,
        "skipped": 0,
        "failed": 0,
        "studies": inventory.num_studies or 0,
    }
    call.watch.previewed(counts)
    reasons: dict[str, dict[str, int]] = {"failed": {}, "skipped": {}}
    return Preview(counts, {}, {}, reasons, done_before, schema_of(FileRow).empty_table(), inventory)

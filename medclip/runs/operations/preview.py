"""What a run would do: its files are looked at, grouped and matched with the model, and no pixel is decoded.

The rows are made by the code of the run itself, in a ledger that goes with the call. What only pixels tell stays open:
a modality that is inferred, an image that turns out to be cut off.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclip.errors import MedclipError
from medclip.files.discover import LEDGER
from medclip.files.output import claim_folder
from medclip.files.pseudonyms import KEY_NAME, hashed_path, load_key
from medclip.files.readers.pool import ReadingPool
from medclip.files.tables.write import schema_of, table_of
from medclip.files.temporary_folder import TemporaryFolder
from medclip.runs.call import Call, RunPack, inputs_of_call, manifest_of_call, refuse_empty
from medclip.runs.conduct import looker_of_call, worker_plan
from medclip.runs.engines.engine import load_run_model
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.rows import FileRow
from medclip.runs.units.chunk import ChunkWork, items_of
from medclip.runs.verb import Verb

if TYPE_CHECKING:
    import pyarrow


def preview(call: Call, pack: RunPack, verb: Verb) -> tuple[dict[str, int], pyarrow.Table, dict[str, Any]]:
    """Look at the files of a run and return what it would do. Nothing is written, not even an identity key.

    Args:
        call: Files and options of the run.
        pack: Model of the run.
        verb: Verb that the run would carry out.

    Returns:
        Counts as those of a run, "scored" being the files that would be read. A table with one row per file, as in
        files.parquet, without what only pixels tell; it has no row of files that lie elsewhere. And `ScoreRun.planned`:
        the files that would be read by `formats` and by `modalities` ("to be inferred" where only the pixels will
        tell), the others by status in `reasons`, `done_before`, how many files an earlier call on the output folder has
        dealt with, and of a PACS or a store `listed`: what it says that it has, for nothing is fetched.
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
        inventory = call.remote.inventory()
        counts = {"files": inventory.num_files, "scored": 0, "skipped": 0, "failed": 0}
        counts["studies"] = inventory.num_studies or 0
        call.watch.previewed(counts)
        planned = {"formats": {}, "modalities": {}, "reasons": {"failed": {}, "skipped": {}}}
        planned |= {"done_before": done_before, "listed": inventory.to_json()}
        return counts, schema_of(FileRow).empty_table(), planned
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
        planned = {
            "formats": ledger.counts_by("format"),
            "modalities": {("to be inferred" if name == "None" else name): num for name, num in modalities.items()},
            "reasons": {status: ledger.counts_by("reason", status) for status in ("failed", "skipped")},
            "done_before": done_before,
        }
        return counts, table_of(ledger.files(), FileRow, schema_of(FileRow)), planned

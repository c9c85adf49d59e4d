"""The end of a run: its results are written from a complete ledger, once, and what was left out is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.progress import Progress
from medclip.runs.call import Call
from medclip.runs.ledger.ledger import Ledger
from medclip.runs.outputs.parts import Parts
from medclip.runs.outputs.results import hashes_of
from medclip.runs.run_pack import RunPack
from medclip.runs.verb import Verb
from medclip.wording import count

LIMITED = "limited"
"""What the ledger keeps of a run that left files out."""


def write_down(
    ledger: Ledger,
    folder: Path,
    verb: Verb,
    run: Callable[[], dict[str, Any]],
    hashed: Callable[[str], str],
    hash_paths: bool,
    progress: Progress,
) -> bool:
    """Write the results of a complete ledger, unless they are there as they were written.

    Args:
        ledger: Ledger whose chunks are all committed.
        folder: The output folder.
        verb: Verb that writes the results.
        run: Function that returns what run.json says.
        hashed: Function that turns a path into its hash.
        hash_paths: Whether hashes stand in the place of paths.
        progress: Progress bar of the writing.

    Returns:
        Whether they were.
    """
    finished = ledger.get("finished")
    already = finished is not None and finished == hashes_of(folder)
    if hash_paths and not ledger.get("hashed"):  # names came back for a call that was stopped
        already = False
    if not already:
        progress.stage("Writing the results", 1)
        if finished is not None and finished != hashes_of(folder):
            progress.note("The results were not as they had been written; they are written again.")
        ledger.remember({"report": None})
        ledger.number()
        if hash_paths and not ledger.get("hashed"):
            ledger.hash_names(hashed)
        verb.write(ledger, run())
    if verb.finish is not None:
        verb.finish(ledger)
    if not ledger.get(LIMITED):
        ledger.remember({"finished": hashes_of(folder)})
    if not already:
        Parts(folder).remove()
        progress.step()
    return already


def describe(identity: Mapping[str, Any], pack: RunPack | None, ledger: Ledger) -> dict[str, Any]:
    """Return what run.json says of every run besides its counts: no path, no time."""
    names = ("modality", "min_confidence", "group_by", "table")
    last = {n: identity[n] for n in ("device", "batch_size", "backend", "weeks") if identity.get(n) is not None}
    recipe = ledger.get("recipe")
    return {
        "medclip": identity["version"],
        **({} if recipe is None else {"recipe": recipe}),
        "model": None
        if pack is None
        else {"name": pack.card.name, "version": str(pack.card.version), "pack": pack.digest},
        "options": {name: identity[name] for name in names} | last,
        "input": {
            "num_files": ledger.num_listed(),
            "sha256": ledger.digest(),
            "num_added": ledger.get("added") or 0,
            "table_rows_elsewhere": ledger.get("elsewhere") or 0,
        },
    }


def note_limit(ledger: Ledger, notes: Sequence[str], call: Call, *, is_cut: bool) -> None:
    """Remember that a run was limited, and say so to whoever reads its results; or that it is not any more.

    Args:
        ledger: Ledger of the run.
        notes: Notes on the run besides the limit.
        call: Call whose progress is told, too.
        is_cut: Whether files were left out.
    """
    if is_cut:
        files = count(ledger.counts()["files"], "file")
        note = f"Limited: {files} have their row, and others were left out. The same call without a limit goes on."
        call.progress.note(note)
        ledger.remember({"notes": [*notes, note], "finished": None, LIMITED: True})
    elif ledger.get(LIMITED):
        ledger.remember({"finished": None, LIMITED: False})
